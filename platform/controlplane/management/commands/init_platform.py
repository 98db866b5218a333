"""Fills an empty database with what every installation has."""

import sys

from django.core.management.base import BaseCommand

from dataplane.planes.models import Plane
from tenants.actions import create_user
from tenants.models import Plan, User


class Command(BaseCommand):
    help = "Default plan and shared machine plane; with --admin an administrator (password on stdin)."

    def add_arguments(self, parser):
        parser.add_argument("--admin", help="email of the platform administrator")

    def handle(self, *args, **options):
        Plan.objects.get_or_create(name="standard")
        Plane.objects.get_or_create(name="shared", defaults={"engine": Plane.Engine.MACHINE})
        email = options["admin"]
        if email and not User.objects.filter(email=email.lower()).exists():
            create_user(acting_user=None, email=email, password=sys.stdin.readline().strip(), admin=True)
