"""Keeps an installation's keys in Secrets of the cluster that it runs in: made once, never overwritten."""

import base64
import os
import ssl
import tempfile
from pathlib import Path

import httpx
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.test.utils import override_settings

from controlplane import registry_keys
from infra import config as installation
from tenants.models import TenantKey

#: Where a pod finds what it is at the API server.
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Command(BaseCommand):
    help = "Make the platform's keys and those of its registry where the named Secrets don't exist yet."

    def add_arguments(self, parser):
        parser.add_argument("--keys", required=True, help="Secret of master key, session key and authority")
        parser.add_argument("--registry", help="Secret with which gateway and registry know each other")

    def handle(self, *args, **options):
        with _api() as api:
            self._keep(api, options["keys"], _platform)
            if options["registry"]:
                self._keep(api, options["registry"], registry_keys.make)

    def _keep(self, api, name, make):
        space = (ACCOUNT / "namespace").read_text().strip()
        path = f"/api/v1/namespaces/{space}/secrets"
        found = api.get(f"{path}/{name}")
        if found.status_code == 200:
            self.stdout.write(f"The secret {name} is there.")
            return
        if found.status_code != 404:
            raise CommandError(f"The secret {name} can't be read: status {found.status_code}.")
        document = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "cytoplane"}},
            "data": {key: base64.b64encode(value).decode() for key, value in make().items()},
        }
        made = api.post(path, json=document)
        # 409: another one of these was faster, and what it made counts.
        if made.status_code not in (201, 409):
            raise CommandError(f"The secret {name} can't be made: status {made.status_code}.")
        self.stdout.write(f"The secret {name} is made.")


def _platform() -> dict[str, bytes]:
    """New keys of a platform; raises where the database is encrypted with others already."""
    if TenantKey._meta.db_table in connection.introspection.table_names() and TenantKey.objects.exists():
        raise CommandError(
            "The database holds tenants whose secrets were encrypted with a master key that isn't here. "
            "Restore the Secret with the platform's keys; new ones can't read them."
        )
    with (
        tempfile.TemporaryDirectory() as place,
        override_settings(CONFIG=installation.Config(home=Path(place))),
    ):
        call_command("init_secrets")
        return {file.name: file.read_bytes() for file in (Path(place) / "secrets").iterdir()}


def _api() -> httpx.Client:
    """A client of the API server with the pod's own account."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    return httpx.Client(
        base_url=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        verify=ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")),
        headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}"},
        timeout=20,
        trust_env=False,
    )
