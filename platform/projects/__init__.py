"""What tenants build: projects, components, environments, cells and their configuration."""
