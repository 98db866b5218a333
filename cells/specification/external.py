"""Destinations outside a cell's reach: networks, names of DNS, and public hosts of this platform."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from cells.specification.model import External, SpecificationError
from cells.specification.values import choice, number, only

#: Names that only the platform's resolver knows end with it.
INTERNAL = "cy.internal"
LONGEST_NAME = 253
_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"^(?=.{{1,{LONGEST_NAME}}}$){_LABEL}(\.{_LABEL})*\Z")
#: The last label begins with a letter; what doesn't is how some programs write addresses.
_NAME = re.compile(rf"^({_LABEL}\.)+(?=[a-z]){_LABEL}\Z")
_EXAMPLE = "external: {host: api.example.com, port: 443}"


def external(raw: Any, where: str, domain: str) -> External:
    """A destination as cytoplane.yaml writes it; hosts under ``domain`` are the platform's own."""
    if not isinstance(raw, dict) or ("cidr" in raw) == ("host" in raw):
        raise SpecificationError(
            "an external destination has either `cidr` or `host`.",
            "external: {cidr: 203.0.113.0/24, port: 443}",
            where,
        )
    only(raw, ("cidr", "host", "port", "protocol"), where.removeprefix("cytoplane.yaml, "))
    return _host(raw, where, domain) if "host" in raw else _network(raw, where)


def _network(raw: dict[str, Any], where: str) -> External:
    try:
        cidr = str(ipaddress.ip_network(str(raw["cidr"]), strict=False))
    except ValueError as error:
        raise SpecificationError(f"{error}.", "cidr: 203.0.113.0/24", f"{where}.cidr") from error
    protocol = choice(raw.get("protocol", "tcp"), ("tcp", "udp", "icmp"), f"{where}.protocol")
    if protocol == "icmp":
        if "port" in raw:
            raise SpecificationError("icmp has no ports.", "Leave `port` out.", f"{where}.port")
        return External(port=0, protocol=protocol, cidr=cidr)
    return External(
        port=number(raw.get("port", 443), 1, 65535, f"{where}.port", int), protocol=protocol, cidr=cidr
    )


def _host(raw: dict[str, Any], where: str, domain: str) -> External:
    host = str(raw["host"]).lower()
    wildcard = host.startswith("*.")
    rest = host.removeprefix("*.")
    if not under(rest, domain):
        _check_name(host, rest, wildcard, f"{where}.host")
        if "port" not in raw:
            raise SpecificationError(f"`{host}` is declared without a port.", _EXAMPLE, f"{where}.port")
        protocol = choice(raw.get("protocol", "tcp"), ("tcp", "udp"), f"{where}.protocol")
        return External(
            port=number(raw["port"], 1, 65535, f"{where}.port", int), protocol=protocol, host=host
        )
    if wildcard or rest == domain:
        raise SpecificationError(
            f"`{host}` covers hosts of this platform, which are declared one by one.",
            f"host: shop.acme.{domain}",
            f"{where}.host",
        )
    if not _HOST.match(host):
        raise SpecificationError(f"`{host}` isn't a host name.", f"host: shop.acme.{domain}", f"{where}.host")
    choice(raw.get("protocol", "http"), ("http",), f"{where}.protocol")
    return External(
        port=number(raw.get("port", 80), 1, 65535, f"{where}.port", int), protocol="http", host=host
    )


def under(name: str, domain: str) -> bool:
    """Whether a name is a domain's own or below it."""
    return name == domain or name.endswith(f".{domain}")


def _check_name(host: str, rest: str, wildcard: bool, where: str) -> None:
    """Raise unless it is a name that DNS may have, or ``*.`` and one."""

    def wrong(message: str, hint: str = _EXAMPLE) -> SpecificationError:
        return SpecificationError(message, hint, where)

    if host.strip("*.") == "":
        raise wrong(f"`{host}` would open every name.", "Name a domain: `*.example.com`.")
    if "*" in rest:
        raise wrong(f"in `{host}`, `*` isn't the whole first label.", "Write it like `*.example.com`.")
    if under(rest, INTERNAL):
        raise wrong(f"`{host}` is a name inside the platform.", "Connect to the component: `to: api`.")
    if _is_address(rest):
        raise wrong(f"`{host}` is an address, not a name.", "Declare the network: `cidr: 203.0.113.7/32`.")
    if not _HOST.match(rest) or len(host) > LONGEST_NAME:
        raise wrong(f"`{host}` isn't a host name.")
    if "." not in rest:
        if wildcard:
            raise wrong(f"`{host}` would open a whole top-level domain.", "Name a domain: `*.example.com`.")
        raise wrong(f"`{host}` isn't a whole name.", "Write it with its domain, or `to:` for a component.")
    if not _NAME.match(rest):
        raise wrong(f"`{host}` isn't a host name: its last part doesn't begin with a letter.")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return bool(re.fullmatch(r"[0-9.]+", text))
    return True
