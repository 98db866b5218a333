"""Desired state as a Kubernetes node applies it: the addresses that pods have in place of symbolic ones.

The control plane knows no pod's address. It compiles with symbolic ones of the platform's range, one pair
for each replica; a node puts in what it knows of where replicas are. A pure function: what goes on the
wire is decided here and can be tested without a cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bpf.tables import ALLOW, INGRESS
from dataplane import addresses
from dataplane.agent.following import Rules
from dataplane.agent.pods.placements import REPLICA, Placement

_TCP = 6
#: The rule that probes are counted under: the platform's own about a replica itself (``RULE_SELF``).
_RULE = 4

Entry = list[int]


def adapt(
    document: Mapping[str, Any],
    placements: Mapping[str, Placement],
    floor: Iterable[tuple[str, str]] = (),
) -> dict[str, Any]:
    """The document with each replica's own addresses; what has none yet is left out of everything that
    leads somewhere. ``floor``: networks of the cluster, with reasons, closed besides what is closed already.
    Where it is adapted again and again, hand in what ``read`` gives.

    New is ``placements``: replica → the node it is on, of those that are placed.
    """
    boundary = document["boundary"]
    gateway = boundary.get("gateway", {})
    probed = probes(document["endpoints"])
    return {
        **document,
        "endpoints": [_endpoint(entry, placements) for entry in document["endpoints"]],
        "placements": {replica: pod.node for replica, pod in sorted(placements.items())},
        "boundary": {
            **boundary,
            "addresses": _addresses(boundary["addresses"], placements),
            "services": [_backends(entry, placements) for entry in boundary["services"]],
            "identities": with_probes(boundary["identities"], probed),
            "floor": [*boundary["floor"], *(list(entry) for entry in floor)],
            "gateway": {
                **gateway,
                "clusters": [_backends(entry, placements) for entry in gateway.get("clusters", [])],
            },
        },
    }


def read(document: Mapping[str, Any]) -> dict[str, Any]:
    """All of a document at once: as it is kept, each look at a part of it reads that part anew."""
    return {**document, "boundary": {**document["boundary"]}}


def _endpoint(entry: dict[str, Any], placements: Mapping[str, Placement]) -> dict[str, Any]:
    pod = placements.get(entry["id"])
    return {**entry, "v4": pod.v4 if pod else "", "v6": pod.v6 if pod else ""}


def _addresses(owners: Mapping[str, Any], placements: Mapping[str, Placement]) -> dict[str, Any]:
    """Who owns which address: replicas' own, the platform's parts' as they are (they are the node's)."""
    found = {}
    for symbolic, owner in owners.items():
        part = owner[1]
        if not REPLICA.fullmatch(part):
            found[symbolic] = owner
        elif part in placements and (address := placements[part].of(symbolic)):
            found[address] = owner
    return found


def _backends(entry: dict[str, Any], placements: Mapping[str, Placement]) -> dict[str, Any]:
    """A service or a gateway's cluster with the backends that are somewhere, each with its weight."""
    weights = entry.get("weights") or [1] * len(entry["backends"])
    kept, shares = [], []
    for (owner, symbolic, port), weight in zip(entry["backends"], weights, strict=True):
        address = symbolic
        if REPLICA.fullmatch(owner):
            pod = placements.get(owner)
            address = pod.of(symbolic) if pod else ""
        if address:
            kept.append([owner, address, port])
            shares.append(weight)
    return {**entry, "backends": kept, "weights": shares}


def probes(endpoints: Iterable[Mapping[str, Any]]) -> dict[str, list[Entry]]:
    """Identity → entries that let the node's own kubelet ask whether its replicas are well."""
    found: dict[str, list[Entry]] = {}
    for endpoint in endpoints:
        probe = endpoint.get("process", {}).get("probe", {})
        if probe.get("type") in ("http", "tcp") and probe.get("port"):
            entry = [addresses.IDENTITY_NODE, int(probe["port"]), _TCP, INGRESS, ALLOW, _RULE]
            known = found.setdefault(str(endpoint["identity"]), [])
            if entry not in known:
                known.append(entry)
    return found


def with_probes(identities: Mapping[str, Any], probed: Mapping[str, list[Entry]]) -> dict[str, Any]:
    """Rules of identities, with those of probes. Nothing that is denied opens by it: deny beats allow."""
    return {text: _with(text, entry, probed) for text, entry in identities.items()}


def _with(text: str, entry: dict[str, Any], probed: Mapping[str, list[Entry]]) -> dict[str, Any]:
    more = probed.get(text)
    return {**entry, "policy": [*entry["policy"], *more]} if more else entry


def adapted_rules(rules: Rules | None, probed: Mapping[str, list[Entry]]) -> Rules | None:
    """Changed rules, as ``adapt`` would have them."""
    if rules is None:
        return None
    return {text: _with(text, entry, probed) if entry else None for text, entry in rules.items()}
