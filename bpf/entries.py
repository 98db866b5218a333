"""What the tables hold, in the words of whoever writes and reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

EGRESS, INGRESS = 0, 1
ALLOW, DENY, AUDIT = 1, 2, 3


class Policy(NamedTuple):
    """An entry of an identity's policy; ``port`` 0 any port, ``remote`` 0 any identity."""

    remote: int
    port: int
    protocol: int
    direction: int
    verdict: int
    rule: int


class External(NamedTuple):
    """Egress to a network, e.g. ``203.0.113.0/24``."""

    network: str
    port: int
    protocol: int
    verdict: int
    rule: int


class Limit(NamedTuple):
    """What a component may use: bytes and new connections per second for each direction, TCP
    connections open at once. 0: no limit."""

    out_bytes: int = 0
    in_bytes: int = 0
    new_connections: int = 0
    connections: int = 0


class Usage(NamedTuple):
    """What a component uses at this moment."""

    connections: int


class Learned(NamedTuple):
    """An address that a consumer may reach because of the name it asked for."""

    identity: int
    address: str
    port: int
    protocol: int


@dataclass(frozen=True)
class Flow:
    """Aggregated flows since the last drain. One that is allowed and has a reason is audited: it passed,
    and without the audit it would have been refused for that."""

    source: int
    destination: int
    remote: str
    port: int
    protocol: int
    direction: int
    allowed: bool
    reason: str
    rule: int
    packets: int
    bytes: int
