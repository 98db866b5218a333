"""Prints a one-time enrolment token for a node agent or a builder."""

from django.core.management.base import BaseCommand, CommandError

from dataplane.planes import enrolment
from dataplane.planes.models import Node, Plane


class Command(BaseCommand):
    help = "A one-time token, valid for an hour, with which an agent or a builder enrols."

    def add_arguments(self, parser):
        parser.add_argument("kind", choices=Node.Kind.values)
        parser.add_argument("--plane", default="shared")

    def handle(self, *args, **options):
        plane = None
        if options["kind"] == Node.Kind.AGENT:
            plane = Plane.objects.filter(name=options["plane"]).first()
            if plane is None:
                raise CommandError(f"There is no plane `{options['plane']}`.")
        self.stdout.write(enrolment.create_token(options["kind"], plane))
