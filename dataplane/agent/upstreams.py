"""Which DNS servers the resolver asks about names of the outside world: the operator's, else the machine's."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from bpf.tables import ALLOW, External
from cells.boundary.model import RULE_RESOLVER, TCP, UDP
from infra.config import Config

#: As many as a resolver of the machine would use.
MOST = 3
RESOLV_CONF = Path("/etc/resolv.conf")
#: The servers behind the stub that systemd-resolved puts into the other one.
BEHIND_STUB = Path("/run/systemd/resolve/resolv.conf")
NONE = "components declare names of the outside world, and no DNS server is known: set dns_servers"


def servers(config: Config, files: tuple[Path, ...] = (RESOLV_CONF, BEHIND_STUB)) -> list[str]:
    """Addresses that the resolver can reach: not loopback ones, which mean another place in its namespace."""
    if config.dns_servers:
        return usable(str(server) for server in config.upstreams)
    for file in files:
        if found := usable(_nameservers(file)):
            return found
    return []


def usable(texts) -> list[str]:  # type: ignore[no-untyped-def]
    """Canonical text of the addresses that lead out of a namespace, each once."""
    found: dict[str, None] = {}
    for text in texts:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue  # a name, or an address with a scope
        if not (
            address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
        ):
            found[str(address)] = None
    return list(found)[:MOST]


def _nameservers(file: Path) -> list[str]:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [words[1] for line in lines if len(words := line.split()) > 1 and words[0] == "nameserver"]


def entries(addresses: list[str]) -> list[External]:
    """What the resolver's identity may do so that it can ask them."""
    return [
        External(f"{address}/{128 if ':' in address else 32}", 53, protocol, ALLOW, RULE_RESOLVER)
        for address in addresses
        for protocol in (UDP, TCP)
    ]
