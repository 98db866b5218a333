"""Everything that an installation's database and files need after the code changed, in one process."""

import json

from django.core.management import call_command
from django.core.management.base import BaseCommand

from dataplane.planes import enrolment
from dataplane.planes.models import Node, Plane


class Command(BaseCommand):
    help = (
        "Migrate, collect static files, create defaults; prints one-time tokens for the named kinds of node."
    )

    def add_arguments(self, parser):
        parser.add_argument("kinds", nargs="*", choices=[*Node.Kind.values, []])

    def handle(self, *args, **options):
        call_command("bring_database_up")
        call_command("collectstatic", interactive=False, clear=True, verbosity=0)
        plane = Plane.objects.get(name="shared")
        tokens = {
            kind: enrolment.create_token(kind, plane if kind == Node.Kind.AGENT else None)
            for kind in options["kinds"]
        }
        self.stdout.write(json.dumps(tokens))
