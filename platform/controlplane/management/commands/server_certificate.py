"""Prints a server certificate with its key, for the control gateway."""

from django.core.management.base import BaseCommand

from dataplane.planes import authority


class Command(BaseCommand):
    help = "A server certificate for the given names: key, a dividing line, then the chain, all PEM."

    def add_arguments(self, parser):
        parser.add_argument("names", nargs="+")

    def handle(self, *args, **options):
        signer = authority.Authority()
        certificate, key = signer.issue_server(options["names"])
        self.stdout.write(authority.key_pem(key).decode() + "-----CERTIFICATES-----")
        self.stdout.write(authority.pem(certificate) + signer.pem)
