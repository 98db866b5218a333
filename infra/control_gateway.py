"""Settings of the control gateway: Envoy in front of the agents' application and of the image registry.

It verifies client certificates and forwards what they are; nothing else on the network speaks to either.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.config import Config

KIND = "type.googleapis.com/envoy"
#: Of what isn't an image: as much as the web process takes.
LARGEST_BODY = 4 * 2**20


def document(
    config: Config,
    registry: dict[str, Any],
    *,
    listen: tuple[str, int] | None = None,
    action: dict[str, Any] | None = None,
    headers: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Envoy's settings. ``registry`` is the cluster of images; ``action`` and ``headers`` are more of the route
    to it. ``listen`` is address and port where they aren't those of ``config``."""
    tls_folder = config.server_tls
    kind = KIND
    address, port = listen or (config.agents_bind, config.agents_port)
    manager = {
        "@type": f"{kind}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "agents",
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"uri": True},
        "use_remote_address": True,
        "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"},
        "request_headers_timeout": "15s",
        "stream_idle_timeout": "300s",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        # Addresses that only this gateway itself may ask.
                        {"match": {"prefix": "/authz"}, "direct_response": {"status": 404}},
                        {
                            "match": {"prefix": "/v2/"},
                            "route": {
                                "cluster": "registry",
                                "timeout": "600s",
                                "idle_timeout": "600s",
                                **(action or {}),
                            },
                            "request_headers_to_add": headers or [],
                            "typed_per_filter_config": {
                                "envoy.filters.http.buffer": {
                                    "@type": f"{kind}.extensions.filters.http.buffer.v3.BufferPerRoute",
                                    "disabled": True,
                                }
                            },
                        },
                        {
                            "match": {"prefix": "/"},
                            "route": {"cluster": "web", "timeout": "120s"},
                            "typed_per_filter_config": {
                                "envoy.filters.http.ext_authz": {
                                    "@type": f"{kind}.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
                                    "disabled": True,
                                }
                            },
                        },
                    ],
                }
            ]
        },
        "http_filters": [
            {
                # Whole requests alone go on: bodies that arrive byte by byte would take all connections to
                # the web process, which are for everybody, and sending one needs no certificate.
                "name": "envoy.filters.http.buffer",
                "typed_config": {
                    "@type": f"{kind}.extensions.filters.http.buffer.v3.Buffer",
                    "max_request_bytes": LARGEST_BODY,
                },
            },
            {
                "name": "envoy.filters.http.ext_authz",
                "typed_config": {
                    "@type": f"{kind}.extensions.filters.http.ext_authz.v3.ExtAuthz",
                    "failure_mode_allow": False,
                    "http_service": {
                        "server_uri": {"uri": "http://web", "cluster": "web", "timeout": "5s"},
                        "path_prefix": "/authz",
                    },
                    "allowed_headers": {
                        "patterns": [{"exact": "x-forwarded-client-cert"}, {"exact": "content-type"}]
                    },
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{kind}.extensions.filters.http.router.v3.Router"},
            },
        ],
    }
    tls = {
        "@type": f"{kind}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(tls_folder / "server.pem")},
                    "private_key": {"filename": str(tls_folder / "server.key")},
                    "watched_directory": {"path": str(tls_folder)},
                }
            ],
            "validation_context": {
                "trusted_ca": {"filename": str(tls_folder / "authority.pem")},
                # Whether an ended certificate may still do something is decided by what it asks.
                "allow_expired_certificate": True,
            },
        },
        "require_client_certificate": False,
    }
    listener = {
        "name": "agents",
        "address": {
            "socket_address": {"address": address, "port_value": port, "ipv4_compat": address == "::"}
        },
        "filter_chains": [
            {
                "filters": [
                    {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
                ],
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
            }
        ],
    }
    return {
        "node": {"id": "control-gateway", "cluster": config.name},
        "static_resources": {
            "listeners": [listener],
            "clusters": [
                pipe("web", config.web_socket),
                registry,
            ],
        },
    }


def pipe(name: str, path: Path) -> dict[str, Any]:
    """A cluster that is a unix socket."""
    return {
        "name": name,
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(path)}}}}]}],
        },
    }
