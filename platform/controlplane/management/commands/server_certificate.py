"""Renews the server certificate of the agents' listener if it is due."""

from django.core.management.base import BaseCommand

from dataplane.planes import server_certificate


class Command(BaseCommand):
    help = "Make the agents' listener a new certificate if there is none or it is a month old."

    def handle(self, *args, **options):
        server_certificate.renew()
