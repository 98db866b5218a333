"""Writes what a web process and the gateway beside it find when they start in a pod."""

import base64
import json
import os
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand

from controlplane import registry_keys
from controlplane.external import PUBLIC_AUTHORITIES
from dataplane.planes import server_certificate
from infra import control_gateway

#: Where the gateway listens in its pod, whatever port people know it by.
PORT = 8443


class Command(BaseCommand):
    help = (
        "Write the control gateway's settings and first certificate, and static files unless the image brings "
        "them. The registry is CYTOPLANE_REGISTRY_URL, with CYTOPLANE_REGISTRY_USER and _PASSWORD, _CA (file) "
        "or _KEYS (folder that publish_secrets made)."
    )

    def handle(self, *args, **options):
        config = settings.CONFIG
        config.server_tls.mkdir(exist_ok=True)
        server_certificate.renew()
        listen = (_any_address(), PORT)
        document = control_gateway.document(config, listen=listen, **_registry(os.environ))
        file = config.home / "control-gateway" / "envoy.json"
        file.touch(mode=0o640)
        file.write_text(json.dumps(document))
        root = settings.STATIC_ROOT
        if not root.exists() or not any(root.iterdir()):
            call_command("collectstatic", interactive=False, verbosity=0)


def _any_address() -> str:
    """All addresses of both families, or of the one that there is."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as trial:
            trial.bind(("::", 0))
        return "::"
    except OSError:
        return "0.0.0.0"


def _registry(environ: Mapping[str, str]) -> dict[str, Any]:
    """The registry's part of the gateway's settings."""
    url = urlsplit(environ.get("CYTOPLANE_REGISTRY_URL", ""))
    if not url.hostname:
        nobody = {"name": "registry", "load_assignment": {"cluster_name": "registry"}}
        return {"registry": nobody}
    keys = environ.get("CYTOPLANE_REGISTRY_KEYS", "")
    name = registry_keys.REGISTRY if keys else url.hostname
    authorities = (
        f"{keys}/authority.pem" if keys else environ.get("CYTOPLANE_REGISTRY_CA") or PUBLIC_AUTHORITIES
    )
    kind = control_gateway.KIND
    common: dict[str, Any] = {
        "validation_context": {
            "trusted_ca": {"filename": authorities},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": name}}],
        }
    }
    if keys:
        common["tls_certificates"] = [
            {
                "certificate_chain": {"filename": f"{keys}/gateway.pem"},
                "private_key": {"filename": f"{keys}/gateway.key"},
            }
        ]
    address = {"socket_address": {"address": url.hostname, "port_value": url.port or 443}}
    cluster = {
        "name": "registry",
        "type": "STRICT_DNS",
        "dns_lookup_family": "ALL",
        # Nodes get their state whether or not the registry's name is known yet.
        "wait_for_warm_on_init": False,
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "registry",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{kind}.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": name,
                "common_tls_context": common,
            },
        },
    }
    # A registry that is just moving to another node is asked again.
    action: dict[str, Any] = {"retry_policy": {"retry_on": "connect-failure", "num_retries": 3}}
    headers = []
    if user := environ.get("CYTOPLANE_REGISTRY_USER", ""):
        secret = base64.b64encode(
            f"{user}:{environ.get('CYTOPLANE_REGISTRY_PASSWORD', '')}".encode()
        ).decode()
        header = {"key": "authorization", "value": f"Basic {secret}"}
        headers.append({"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"})
    if not keys:
        # Others' registries are often told apart by name. Addresses in their answers lead back here by the
        # name that was asked for.
        action |= {"host_rewrite_literal": url.netloc, "append_x_forwarded_host": True}
    return {"registry": cluster, "action": action, "headers": headers}
