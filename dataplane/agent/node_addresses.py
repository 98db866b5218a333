"""Which addresses a node has itself: they are closed to every workload on it."""

from __future__ import annotations

import ipaddress
import json
import subprocess

from infra.config import Config


def node_addresses(config: Config) -> list[tuple[str, str]]:
    """The node's own addresses as floor entries: closed to every workload.

    Each once, in order: a CNI gives its gateway's address to every pod's interface, and a floor that was
    another at each pod's coming would have every connection of the node looked at.
    """
    done = subprocess.run(["ip", "-j", "address"], capture_output=True, text=True, check=True)
    found = set()
    for link in json.loads(done.stdout):
        if link["ifname"].startswith(f"{config.name}v"):
            continue
        for entry in link.get("addr_info", []):
            address = ipaddress.ip_address(entry["local"])
            if not (address.is_loopback or address.is_link_local):
                found.add((f"{address}/{address.max_prefixlen}", "NODE"))
    return sorted(found)
