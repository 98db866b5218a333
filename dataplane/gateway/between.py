"""Gateways of one plane on different nodes: mutual TLS from the caller's node's to the replica's.

A cluster of the boundary has backends on several nodes. Those on the own node are called directly, as on
a machine; each other node is one endpoint more, with the shares of all its backends, reached through that
node's gateway. There a listener leads each cluster's name (the name that TLS asks for) to that node's own
backends and no further. Pure functions of desired state with ``around``, which the node's engine adds:

``around``: ``own``, the node's name; ``places``, replica → node; ``nodes``, other node → its address;
``peers``, names (URIs) in certificates of the gateways that may take part; ``authority``, PEM.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cells.boundary.model import ALLOW, INGRESS, RULE_NORTH
from dataplane import addresses
from dataplane.gateway import envoy
from infra.config import Config

PORT = addresses.GATEWAYS_PORT
#: File in the gateway's folder with its certificate and key, for Envoy alone.
IDENTITY = "between.json"
#: Seconds after which a node that confirms nothing of what it was sent is taken for gone.
UNCONFIRMED = 4
_TLS = f"{envoy.TYPE}.extensions.transport_sockets.tls.v3"
_TCP = socket.IPPROTO_TCP
#: What other nodes are to this one's kernel.
_FROM = (addresses.IDENTITY_WORLD, addresses.IDENTITY_NODE)
_OWN = "own"
#: An endpoint's metadata that tells other nodes from the own one.
_ELSEWHERE = "elsewhere"


def name(plane_id: int, node_id: int, enrolment: int = 1) -> str:
    """Of a node's gateway, as it stands in its certificate. Another one after each of its node's enrolments:
    what the node had before opens nothing any more, its gateway's certificate included."""
    own = f"cytoplane://plane/{plane_id}/gateway/{node_id}"
    return own if enrolment == 1 else f"{own}/{enrolment}"


def joined(
    document: dict[str, Any], own: str, nodes: Mapping[str, Sequence[str]], authority: str
) -> dict[str, Any]:
    """Desired state that says where replicas are (``placements``), with what gateways need to meet.

    ``nodes``: other nodes and their addresses, of which the first counts. The kernel lets the north
    gateway's identity reach those at one port, and be reached there; who it is they settle by TLS.
    """
    others = {node: found[0] for node, found in sorted(nodes.items()) if found and node != own}
    boundary = document["boundary"]
    identities = dict(boundary["identities"])
    north = identities.get(str(addresses.IDENTITY_GATEWAY_NORTH))
    if north is not None:
        meeting = [[remote, PORT, _TCP, INGRESS, ALLOW, RULE_NORTH] for remote in _FROM]
        ways = [[_single(address), PORT, _TCP, ALLOW, RULE_NORTH] for address in sorted(set(others.values()))]
        identities[str(addresses.IDENTITY_GATEWAY_NORTH)] = {
            **north,
            "policy": [*north["policy"], *meeting],
            "external": [*north["external"], *ways],
        }
    around = {
        "own": own,
        "places": document["placements"],
        "nodes": others,
        "peers": document.get("gateways", []),
        "authority": authority,
    }
    gateway = {**boundary["gateway"], "around": around}
    return {**document, "boundary": {**boundary, "identities": identities, "gateway": gateway}}


def _single(address: str) -> str:
    return f"{address}/{ipaddress.ip_address(address).max_prefixlen}"


def split(gateway: dict[str, Any], serving: set[str] | None, ready: bool = True) -> dict[str, Any]:
    """The gateway's part of desired state with each cluster's backends by node.

    ``serving``: ids of replicas that may get traffic; None for all. Of other nodes' replicas those nodes
    know more than this one. ``ready``: whether the own certificate is there. Nobody is called and nobody
    answered without it, nor without an authority and somebody who may take part. A document without
    ``around`` is a machine's and comes back as it is.
    """
    around = gateway.get("around")
    if around is None:
        return gateway
    joined = bool(ready and around["authority"] and around["peers"])
    clusters: list[dict[str, Any]] = []
    here: list[dict[str, Any]] = []
    for entry in gateway["clusters"]:
        local, away = _by_node(entry, around, serving)
        clusters.append({**entry, **local, _ELSEWHERE: away if joined else []})
        if joined and local["backends"]:
            here.append({**entry, **local, "name": _here(entry["name"])})
    return {**gateway, "clusters": clusters + here, "between": around if joined else None}


def _by_node(
    entry: dict[str, Any], around: dict[str, Any], serving: set[str] | None
) -> tuple[dict[str, Any], list[tuple[str, int]]]:
    """A cluster's backends on the own node, and the shares of other nodes. What is nowhere is left out."""
    backends, shares, away = [], [], dict[str, int]()
    weights = entry.get("weights") or [1] * len(entry["backends"])
    for backend, weight in zip(entry["backends"], weights, strict=True):
        node = around["places"].get(backend[0])
        if node == around["own"]:
            if serving is None or backend[0] in serving:
                backends.append(backend)
                shares.append(weight)
        elif node in around["nodes"]:
            away[node] = away.get(node, 0) + weight
    return {"backends": backends, "weights": shares}, sorted(away.items())


def _here(name: str) -> str:
    """The cluster of a cluster's backends on the own node."""
    return f"here-{name}"


def _to(node: str) -> str:
    return f"to-{node}"


def endpoints(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Other nodes as endpoints of a cluster."""
    return [
        {
            "endpoint": {
                "address": {
                    "envoy_internal_address": {"server_listener_name": _to(node), "endpoint_id": node}
                }
            },
            "metadata": {"filter_metadata": {"envoy.transport_socket_match": {_ELSEWHERE: True}}},
            "load_balancing_weight": weight,
        }
        for node, weight in entry.get(_ELSEWHERE, ())
    ]


def clusters(config: Config, gateway: dict[str, Any], made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The clusters that were made of the same document, fit to call other nodes, and the ways there."""
    around = gateway.get("between")
    if not around:
        return made
    far = {entry["name"] for entry in gateway["clusters"] if not entry["name"].startswith(_here(""))}
    fit = [_fit(config, around, cluster) if cluster["name"] in far else cluster for cluster in made]
    return fit + [_way(config, node, address) for node, address in sorted(around["nodes"].items())]


def _fit(config: Config, around: dict[str, Any], cluster: dict[str, Any]) -> dict[str, Any]:
    """TLS towards other nodes, the cluster's name being asked for; plain towards the own node's backends."""
    tls = {
        "@type": f"{_TLS}.UpstreamTlsContext",
        "sni": cluster["name"],
        "common_tls_context": _context(config, around),
        # A session that is resumed would outlive what the other's certificate still opens.
        "max_session_keys": 0,
    }
    plain = {"@type": f"{envoy.TYPE}.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}
    return {
        **cluster,
        "transport_socket_matches": [
            {
                "name": _ELSEWHERE,
                "match": {_ELSEWHERE: True},
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
            },
            {
                "name": "here",
                "match": {},
                "transport_socket": {"name": "envoy.transport_sockets.raw_buffer", "typed_config": plain},
            },
        ],
        # Whoever can't be connected to rests for a moment: a request must not find it out each time.
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 2,
            "enforcing_consecutive_local_origin_failure": 100,
            "enforcing_local_origin_success_rate": 0,
            "enforcing_success_rate": 0,
            "enforcing_consecutive_5xx": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "interval": "1s",
            "base_ejection_time": "2s",
            "max_ejection_time": "10s",
            "max_ejection_percent": 100,
        },
    }


def _context(config: Config, around: dict[str, Any]) -> dict[str, Any]:
    """The own certificate, and whose are believed: from the authority, with exactly one of these names."""
    return {
        # As a client Envoy offers less unless it is told.
        "tls_params": dict.fromkeys(
            ("tls_minimum_protocol_version", "tls_maximum_protocol_version"), "TLSv1_3"
        ),
        "tls_certificate_sds_secret_configs": [
            {"name": _OWN, "sds_config": envoy.source(config.gateway_dir / IDENTITY)}
        ],
        "validation_context": {
            "trusted_ca": {"inline_string": around["authority"]},
            "match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"exact": peer}} for peer in sorted(around["peers"])
            ],
        },
    }


def _way(config: Config, node: str, address: str) -> dict[str, Any]:
    """How the bytes for another node get there: from the north address, whichever cell's they are."""
    own = addresses.workload(config, addresses.GATEWAY_NORTH)
    endpoint = {"address": {"socket_address": {"address": address, "port_value": PORT}}}
    return {
        "@type": f"{envoy.TYPE}.config.cluster.v3.Cluster",
        "name": _to(node),
        "type": "STATIC",
        "connect_timeout": "2s",
        "upstream_bind_config": {
            "source_address": {"address": own.v4, "port_value": 0},
            "extra_source_addresses": [{"address": {"address": own.v6, "port_value": 0}}],
            "socket_options": [
                {
                    "level": socket.IPPROTO_TCP,
                    "name": socket.TCP_USER_TIMEOUT,
                    "int_value": UNCONFIRMED * 1000,
                    "state": "STATE_PREBIND",
                }
            ],
        },
        # A node that fell silent is noticed by what it doesn't confirm, whether or not anything is asked.
        "upstream_connection_options": {
            "tcp_keepalive": {"keepalive_time": 5, "keepalive_interval": 2, "keepalive_probes": 2}
        },
        "circuit_breakers": {"thresholds": [{"max_connections": 16384, "max_pending_requests": 16384}]},
        "load_assignment": {
            "cluster_name": _to(node),
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
    }


def listeners(config: Config, gateway: dict[str, Any]) -> list[dict[str, Any]]:
    """One inside for each other node, and the one that answers other nodes."""
    around = gateway.get("between")
    if not around:
        return []
    inside = [_inside(node) for node in sorted(around["nodes"])]
    here = [entry for entry in gateway["clusters"] if entry["name"].startswith(_here(""))]
    return [*inside, _answering(config, around, here)] if here else inside


def _inside(node: str) -> dict[str, Any]:
    proxy = {
        "@type": f"{envoy.TYPE}.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": _to(node),
        "cluster": _to(node),
        "idle_timeout": "600s",
    }
    return {
        "@type": f"{envoy.TYPE}.config.listener.v3.Listener",
        "name": _to(node),
        "internal_listener": {},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}],
    }


def _answering(config: Config, around: dict[str, Any], here: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The listener for other nodes' gateways: a chain for each cluster that has backends here."""
    own = addresses.workload(config, addresses.GATEWAY_NORTH)
    inspector = {"@type": f"{envoy.TYPE}.extensions.filters.listener.tls_inspector.v3.TlsInspector"}
    tls = {
        "@type": f"{_TLS}.DownstreamTlsContext",
        "require_client_certificate": True,
        "disable_stateless_session_resumption": True,
        "disable_stateful_session_resumption": True,
        "common_tls_context": _context(config, around),
    }
    return {
        **envoy.listener("between", own.v4, own.v6, PORT),
        "listener_filters": [{"name": "envoy.filters.listener.tls_inspector", "typed_config": inspector}],
        "listener_filters_timeout": "5s",
        "filter_chains": [
            {
                "name": entry["name"],
                "filter_chain_match": {
                    "transport_protocol": "tls",
                    "server_names": [entry["name"].removeprefix(_here(""))],
                },
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
                "transport_socket_connect_timeout": "5s",
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": _passing(entry),
                    }
                ],
            }
            for entry in here
        ],
    }


def _passing(entry: dict[str, Any]) -> dict[str, Any]:
    """Requests as another gateway gives them: its word about caller and client is this plane's word.

    They are looked at one by one, so that each finds the replica that has the least to do.
    """
    route = envoy.route(entry["name"])
    # The connection is the other gateway's; whose request it is, that has written down.
    route["hash_policy"] = [{"header": {"header_name": "x-forwarded-for"}}]
    return {
        "@type": f"{envoy.TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "between",
        "codec_type": "HTTP2" if entry["protocol"] == "grpc" else "HTTP1",
        "use_remote_address": False,
        "skip_xff_append": True,
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "stream_idle_timeout": "300s",
        "request_headers_timeout": "15s",
        "common_http_protocol_options": {"idle_timeout": "120s"},
        "route_config": {
            "name": entry["name"],
            "validate_clusters": False,
            # Only this gateway says so, not what answers behind it.
            "response_headers_to_remove": [envoy.NOBODY_HERE],
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
            ],
        },
        "http_filters": [envoy.router(suppress_envoy_headers=True)],
        "local_reply_config": _local_replies(),
        "drain_timeout": "5s",
    }


def _local_replies() -> dict[str, Any]:
    """As everywhere; and whoever finds no replica here is told to try elsewhere."""
    common = envoy.local_replies()
    body = common["mappers"][-1]["body_format_override"]
    nobody = {
        "body_format_override": body,
        "filter": {"response_flag_filter": {"flags": ["UH", "NC"]}},
        "headers_to_add": [{"header": {"key": envoy.NOBODY_HERE, "value": "1"}}],
    }
    return {**common, "mappers": [nobody, *common["mappers"]]}


def secret(certificate: str, key: str) -> list[dict[str, Any]]:
    """The own certificate and key (PEM) in the form that Envoy reads; for ``IDENTITY``."""
    return [
        {
            "@type": f"{_TLS}.Secret",
            "name": _OWN,
            "tls_certificate": {
                "certificate_chain": {"inline_string": certificate},
                "private_key": {"inline_string": key},
            },
        }
    ]
