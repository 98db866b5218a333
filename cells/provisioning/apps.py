from django.apps import AppConfig


class ProvisioningConfig(AppConfig):
    name = "cells.provisioning"
    label = "provisioning"
