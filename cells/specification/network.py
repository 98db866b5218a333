"""What a component's declaration says about its network: limits, balancing, ping, translation."""

from __future__ import annotations

import re
from typing import Any

from cells.specification.model import BALANCES, Limits, Network, SpecificationError
from cells.specification.values import choice, number, only

#: Bits per second. Below the least, whole segments wait so long that TCP stalls and checks fail.
LEAST_BANDWIDTH, MOST_BANDWIDTH = 10**6, 10**11
#: Fewer would refuse a component's own gateway, resolver and pools.
LEAST_RATE, LEAST_CONNECTIONS = 5, 10
MOST_COUNTED = 10**6
#: Seconds that a client may stay with a replica.
MOST_AFFINITY = 24 * 3600

_MEMORY = re.compile(r"^(\d{1,9})\s*(Mi|Gi|M|G|MiB|GiB)?\Z")
_BANDWIDTH = re.compile(r"^(\d{1,12}(?:\.\d{1,3})?)\s*([kMG]?)(?:bit)?(?:/s)?\Z")
_DURATION = re.compile(r"^(\d{1,6})\s*(s|m|h)?\Z")
_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_SECONDS = {None: 1, "s": 1, "m": 60, "h": 3600}
_LIMITS = ("memory", "cpu", "bandwidth_in", "bandwidth_out", "connections_per_second", "connections")


def limits(raw: Any, where: str) -> Limits:
    """``limits`` of a component. Raises ``SpecificationError``, as all of these do."""
    if not isinstance(raw, dict):
        raise SpecificationError("limits are a mapping.", "limits: {memory: 256Mi, cpu: 0.5}", where)
    only(raw, _LIMITS, where.removeprefix("cytoplane.yaml, "))
    match = _MEMORY.match(str(raw.get("memory", "256Mi")))
    if not match:
        raise SpecificationError(
            f"`{raw.get('memory')}` isn't an amount of memory.", "memory: 256Mi", f"{where}.memory"
        )
    memory = int(match.group(1)) * (1024 if (match.group(2) or "").startswith("G") else 1)

    def counted(name: str, least: int) -> int:
        return number(raw[name], least, MOST_COUNTED, f"{where}.{name}", int) if name in raw else 0

    return Limits(
        memory=number(memory, 16, 65536, f"{where}.memory", int),
        cpu=number(raw.get("cpu", 0.5), 0.05, 64, f"{where}.cpu", float),
        bandwidth_in=_bandwidth(raw, "bandwidth_in", where),
        bandwidth_out=_bandwidth(raw, "bandwidth_out", where),
        connections_per_second=counted("connections_per_second", LEAST_RATE),
        connections=counted("connections", LEAST_CONNECTIONS),
    )


def _bandwidth(raw: dict[str, Any], name: str, where: str) -> int:
    """Bits per second; 0 where nothing is declared."""
    if name not in raw:
        return 0
    value, here = raw[name], f"{where}.{name}"
    match = None if isinstance(value, bool) else _BANDWIDTH.match(str(value))
    if not match:
        raise SpecificationError(
            f"`{value}` isn't a bandwidth in bits per second.",
            f"{name}: 10M (which is 1.25 MB per second)",
            here,
        )
    bits = round(float(match.group(1)) * _FACTORS[match.group(2)])
    if not LEAST_BANDWIDTH <= bits <= MOST_BANDWIDTH:
        raise SpecificationError(
            f"`{value}` isn't a bandwidth from 1M to 100G bits per second.", f"{name}: 10M", here
        )
    return bits


def balancing(raw: dict[str, Any], where: str) -> tuple[str, int]:
    """(``balance``, ``affinity`` in seconds) of an endpoint."""
    balance = choice(raw.get("balance", "random"), BALANCES, f"{where}.balance")
    value, here = raw.get("affinity", 0), f"{where}.affinity"
    match = None if isinstance(value, bool) else _DURATION.match(str(value))
    seconds = int(match.group(1)) * _SECONDS[match.group(2)] if match else -1
    if not 0 <= seconds <= MOST_AFFINITY:
        raise SpecificationError(
            f"`{value}` isn't a time of up to 24h.", "affinity: 10m (or 30s, 1h, seconds as a number)", here
        )
    return balance, seconds


def ping(value: Any, where: str) -> bool:
    """Whether who may call the component may ping it too."""
    if not isinstance(value, bool):
        raise SpecificationError("`ping` is true or false.", "ping: true", where)
    return value


def network(raw: Any, where: str) -> Network:
    """``network`` of a component."""
    if not isinstance(raw, dict):
        raise SpecificationError("network is a mapping.", "network: {services: off}", where)
    only(raw, ("services",), where.removeprefix("cytoplane.yaml, "))
    value = raw.get("services", True)
    # YAML reads on and off as true and false, but not in quotes.
    value = {"on": True, "off": False}.get(value, value) if isinstance(value, str) else value
    if not isinstance(value, bool):
        raise SpecificationError("`services` is on or off.", "network: {services: off}", f"{where}.services")
    return Network(services=value)
