"""Makes the keys of an installation, once: master key, session key, certificate authority."""

import secrets

from django.conf import settings
from django.core.management.base import BaseCommand

from controlplane import crypto
from dataplane.planes import authority


class Command(BaseCommand):
    help = "Create the installation's keys where they don't exist yet. Never overwrites one."

    def handle(self, *args, **options):
        folder = settings.CONFIG.secrets
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (folder / "master.key").exists():
            crypto.write_master_key(folder / "master.key")
        key = folder / "django.key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_text(secrets.token_urlsafe(48))
        authority.ensure(folder)
