"""From the boundary's gateway section to Envoy's resources. Pure functions; see ``files`` for writing.

North: one listener, routes by claimed host, and a door for each workload that declares public hosts.
East and west: a listener for each connection, on the provider cell's gateway address; only its
consumer's identity can reach it, so the caller is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dataplane import addresses
from infra.config import Config

TYPE = "type.googleapis.com/envoy"
#: Told by the gateway alone; stripped from what comes in and from what goes back.
CALLER = "x-cytoplane-caller"
_PLATFORM_HEADERS = [CALLER, "x-cytoplane-tenant", "x-forwarded-client-cert"]
#: What another node's gateway says where a replica would have answered: it has none, ask somebody else.
NOBODY_HERE = "x-cytoplane-nobody-here"
_NEVER_TOLD = [*_PLATFORM_HEADERS, NOBODY_HERE, "x-envoy-upstream-service-time"]
#: Longer than applications keep idle connections open is what makes races; shorter is safe.
_UPSTREAM_IDLE = "20s"


def bootstrap(config: Config) -> dict[str, Any]:
    """Envoy's own configuration: admin on a unix socket, everything else from files."""
    folder = config.gateway_dir
    return {
        "node": {"id": "gateway", "cluster": config.name},
        "admin": {"address": {"pipe": {"path": str(folder / "admin.sock"), "mode": 384}}},
        "dynamic_resources": {
            "lds_config": source(folder / "lds.json"),
            "cds_config": source(folder / "cds.json"),
        },
        # For what goes to other nodes' gateways.
        "bootstrap_extensions": [
            {
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": {
                    "@type": f"{TYPE}.extensions.bootstrap.internal_listener.v3.InternalListener"
                },
            }
        ],
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{TYPE}.extensions.resource_monitors.downstream_connections.v3"
                        ".DownstreamConnectionsConfig",
                        "max_active_downstream_connections": 20000,
                    },
                }
            ]
        },
    }


def source(path: Any) -> dict[str, Any]:
    """Resources in a file, which is watched."""
    return {
        "path_config_source": {"path": str(path), "watched_directory": {"path": str(path.parent)}},
        "resource_api_version": "V3",
    }


def clusters(config: Config, gateway: dict[str, Any]) -> list[dict[str, Any]]:
    """Clusters; their backends come by a file each, so that a deploy replaces no cluster."""
    return [_cluster(config, entry) for entry in gateway["clusters"]]


def _cluster(config: Config, entry: dict[str, Any]) -> dict[str, Any]:
    name = entry["name"]
    options: dict[str, Any] = {"common_http_protocol_options": {"idle_timeout": _UPSTREAM_IDLE}}
    options["explicit_http_config"] = (
        {"http2_protocol_options": {}} if entry["protocol"] == "grpc" else {"http_protocol_options": {}}
    )
    return {
        "@type": f"{TYPE}.config.cluster.v3.Cluster",
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": source(config.gateway_dir / "eds" / f"{name}.json")},
        "connect_timeout": "2s",
        "lb_policy": "RING_HASH" if entry.get("sticky") else "LEAST_REQUEST",
        "upstream_bind_config": {
            "source_address": {"address": entry["source4"], "port_value": 0},
            "extra_source_addresses": [{"address": {"address": entry["source6"], "port_value": 0}}],
        },
        "circuit_breakers": {"thresholds": [{"max_connections": 4096, "max_pending_requests": 4096}]},
        "close_connections_on_host_health_failure": False,
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
                **options,
            }
        },
    }


def assignment(
    name: str, backends: list[list[Any]], weights: list[int] | None = None, more: Sequence[Any] = ()
) -> dict[str, Any]:
    """The backends of a cluster: (id, address, port) each, and what share each gets; none: all the same.

    ``more``: endpoints that are made already.
    """
    return {
        "@type": f"{TYPE}.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": name,
        "endpoints": [
            {
                "lb_endpoints": [
                    {
                        "endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}},
                        "load_balancing_weight": weight,
                    }
                    for (_, address, port), weight in zip(
                        backends, weights or [1] * len(backends), strict=True
                    )
                ]
                + list(more)
            }
        ],
    }


def north_routes(gateway: dict[str, Any], apps_port: int) -> dict[str, Any]:
    """Public hosts, as everybody outside reaches them."""
    return {
        "@type": f"{TYPE}.config.route.v3.RouteConfiguration",
        **_public("north", gateway["routes"], apps_port, bool(gateway.get("between"))),
    }


def _public(name: str, routes: list[dict[str, Any]], apps_port: int, between: bool) -> dict[str, Any]:
    """Routes by host name, with and without the port, as clients send either."""
    ports = sorted({apps_port, addresses.NORTH_HTTP_PORT})
    return {
        "name": name,
        "virtual_hosts": [
            {
                "name": f"h{number}",
                "domains": [public["host"], *(f"{public['host']}:{port}" for port in ports)],
                "routes": [{"match": {"prefix": "/"}, "route": route(public["cluster"], between)}],
            }
            for number, public in enumerate(routes)
        ],
        "request_headers_to_remove": _PLATFORM_HEADERS,
        "response_headers_to_remove": _NEVER_TOLD,
    }


def route(cluster: str, between: bool = False) -> dict[str, Any]:
    """Where requests go, for how long, and when they are sent again. ``between``: on other nodes too."""
    again = "connect-failure,refused-stream,reset-before-request"
    return {
        "cluster": cluster,
        # For clusters that keep a client where it is; others don't look at it.
        "hash_policy": [{"connection_properties": {"source_ip": True}}],
        "timeout": "60s",
        "idle_timeout": "300s",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        # Only what never reached an application is sent again.
        "retry_policy": {
            "retry_on": f"{again},retriable-headers" if between else again,
            "retriable_headers": [{"name": NOBODY_HERE, "present_match": True}] if between else [],
            "num_retries": 3,
            "retry_host_predicate": [
                {
                    "name": "previous",
                    "typed_config": {
                        "@type": f"{TYPE}.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                    },
                }
            ],
            "host_selection_retry_max_attempts": 3,
            "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
        },
    }


def listeners(config: Config, gateway: dict[str, Any]) -> list[dict[str, Any]]:
    """The north listener and one for each connection through the gateway."""
    north = addresses.workload(config, addresses.GATEWAY_NORTH)
    between = bool(gateway.get("between"))
    found = [
        _listener(
            "north",
            north.v4,
            north.v6,
            addresses.NORTH_HTTP_PORT,
            {
                "rds": {
                    "route_config_name": "north",
                    "config_source": source(config.gateway_dir / "rds.json"),
                }
            },
        )
    ]
    for entry in gateway.get("doors", []):
        # The caller is a stranger here, as the internet is; but one that may call only what it declares.
        open_to = [public for public in gateway["routes"] if public["host"] in entry["hosts"]]
        routes = {**_public(entry["name"], open_to, config.apps_port, between), "validate_clusters": False}
        found.append(_listener_of(entry, {"route_config": routes}))
    for entry in gateway["listeners"]:
        routes = {
            "name": entry["name"],
            # A listener isn't refused for a cluster that is still warming up.
            "validate_clusters": False,
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": route(entry["cluster"], between)}],
                    **_caller(entry["caller"]),
                }
            ],
            "request_headers_to_remove": _PLATFORM_HEADERS[1:] if entry["caller"] else _PLATFORM_HEADERS,
            "response_headers_to_remove": _NEVER_TOLD,
        }
        found.append(_listener_of(entry, {"route_config": routes}))
    return found


def _caller(name: str) -> dict[str, Any]:
    """The caller's name for the provider, whatever the caller itself says; nothing if there is none to tell."""
    if not name:
        return {}
    header = {"header": {"key": CALLER, "value": name}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    return {"request_headers_to_add": [header]}


def _listener_of(entry: dict[str, Any], routes: dict[str, Any]) -> dict[str, Any]:
    return _listener(entry["name"], entry["address4"], entry["address6"], entry["port"], routes)


def _listener(name: str, v4: str, v6: str, port: int, routes: dict[str, Any]) -> dict[str, Any]:
    manager = {
        "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        **routes,
        "codec_type": "AUTO",
        "use_remote_address": True,
        "xff_num_trusted_hops": 0,
        "skip_xff_append": False,
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": True,
        "merge_slashes": False,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "strip_trailing_host_dot": True,
        "stream_idle_timeout": "300s",
        "request_headers_timeout": "15s",
        "common_http_protocol_options": {
            "idle_timeout": "120s",
            "headers_with_underscores_action": "REJECT_REQUEST",
            "max_headers_count": 100,
        },
        "http_filters": [router()],
        "local_reply_config": local_replies(),
        "drain_timeout": "5s",
    }
    return {
        **listener(name, v4, v6, port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def listener(name: str, v4: str, v6: str, port: int) -> dict[str, Any]:
    """A listener at a port of a pair of addresses, without what it does."""
    return {
        "@type": f"{TYPE}.config.listener.v3.Listener",
        "name": name,
        "address": {"socket_address": {"address": v4, "port_value": port}},
        "additional_addresses": [{"address": {"socket_address": {"address": v6, "port_value": port}}}],
        # The addresses may come a moment after the configuration.
        "freebind": True,
        "per_connection_buffer_limit_bytes": 1048576,
    }


def router(**more: Any) -> dict[str, Any]:
    """The filter that sends requests on."""
    kind = f"{TYPE}.extensions.filters.http.router.v3.Router"
    return {"name": "envoy.filters.http.router", "typed_config": {"@type": kind, **more}}


def local_replies() -> dict[str, Any]:
    """Answers of the gateway itself: what happened and the request's id, in plain text."""
    sentences = {
        404: "No application has this host name.",
        503: "The application has no replica that serves.",
    }
    return {
        "mappers": [
            {
                "filter": {
                    "status_code_filter": {
                        "comparison": {
                            "op": "EQ",
                            "value": {"default_value": code, "runtime_key": f"reply{code}"},
                        }
                    }
                },
                "body_format_override": {
                    "text_format_source": {"inline_string": f"{sentence}\nrequest id: %REQ(x-request-id)%\n"}
                },
            }
            for code, sentence in sentences.items()
        ]
    }
