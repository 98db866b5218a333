from django.apps import AppConfig


class ControlPlaneConfig(AppConfig):
    name = "controlplane"

    def ready(self) -> None:
        from controlplane import celery  # noqa: F401  the task base must exist before any task
