from django.apps import AppConfig


class PlanesConfig(AppConfig):
    name = "dataplane.planes"
    label = "planes"
