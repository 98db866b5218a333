"""Brings the database to this version. Safe to run twice, and by several at once."""

import os

from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connection

from tenants.actions import create_user
from tenants.models import User

#: Of PostgreSQL's advisory locks: "cytoplane", migrations.
LOCK = 0x6379_746F


class Command(BaseCommand):
    help = (
        "Migrate and create defaults, one at a time: who comes second waits, and finds everything done. An "
        "administrator is made from CYTOPLANE_ADMIN_EMAIL and CYTOPLANE_ADMIN_PASSWORD where they are given."
    )

    def handle(self, *args, **options):
        with connection.cursor() as cursor:
            # Of the session, so that it holds over the transactions of each migration, and ends with us.
            cursor.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        try:
            call_command("migrate", interactive=False, verbosity=0)
            call_command("init_platform", verbosity=0)
            _administrator(os.environ.get("CYTOPLANE_ADMIN_EMAIL", ""))
        finally:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


def _administrator(email: str) -> None:
    """Make the platform's administrator unless there is somebody by that address already."""
    if email and not User.objects.filter(email=email.lower()).exists():
        create_user(
            acting_user=None, email=email, password=os.environ["CYTOPLANE_ADMIN_PASSWORD"], admin=True
        )
