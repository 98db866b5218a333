"""The developer portal and the admin console: views, templates, styles, TypeScript islands."""
