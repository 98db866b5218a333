"""Addresses of a plane's nodes, as those say themselves: closed to every workload there.

Each node's kernel closes its own by itself, whatever is declared. Here they are for explanations, so that
those say what the kernel does; no table is made of them, since what a node says isn't to be trusted.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

from cells.boundary.model import Topology
from dataplane.planes.models import Node, Plane

#: Of one node; a machine with more has a stranger set-up than a sentence can explain.
MOST = 256


def closed(plane: Plane, topology: Topology) -> Topology:
    """The topology with its nodes' addresses in the floor."""
    found = {
        (network, "NODE")
        for node in plane.nodes.filter(kind=Node.Kind.AGENT)
        for network in _said(node.health)
    }
    return replace(topology, floor=(*topology.floor, *sorted(found - set(topology.floor))))


def _said(health: Any) -> list[str]:
    """Single addresses of a node's report; what is anything else is left out."""
    facts = health.get("facts") if isinstance(health, dict) else None
    said = facts.get("addresses") if isinstance(facts, dict) else None
    found = []
    for text in said[:MOST] if isinstance(said, list) else ():
        try:
            network = ipaddress.ip_network(text) if isinstance(text, str) else None
        except ValueError:
            continue
        if network is not None and network.num_addresses == 1:
            found.append(str(network))
    return found
