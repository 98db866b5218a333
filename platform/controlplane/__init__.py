"""The Django project: settings, request handling, task queue, errors."""
