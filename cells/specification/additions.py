"""Connections to add to a cytoplane.yaml: their names, and how they are written."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any

#: A connection as an item of ``connections`` in cytoplane.yaml.
Item = dict[str, Any]
_LONGEST = 61


def default_name(item: Item | str) -> str:
    """What the parser calls a connection that says no ``as``."""
    if isinstance(item, str):
        item = {"to": item}
    if "to" not in item:
        return "EXTERNAL"
    component = str(item["to"]).rpartition("/")[2].partition(".")[0]
    return component.upper().replace("-", "_")


def name_of(item: Item | str) -> str:
    """What a connection is called: two of a component can't have one name."""
    return str(item.get("as") or default_name(item)) if isinstance(item, dict) else default_name(item)


def named(item: Item, taken: Iterable[str]) -> Item:
    """The connection with an ``as`` where it needs one beside connections with names that are ``taken``."""
    known = set(taken)
    if "to" in item and default_name(item) not in known:
        return item
    wanted = _speaking(item)
    name, number = wanted, 2
    while name in known:
        name, number = f"{wanted[: _LONGEST - 4]}_{number}", number + 1
    return {**item, "as": name}


def _speaking(item: Item) -> str:
    """A name that says where the connection leads."""
    if "to" in item:
        words = str(item["to"])
    else:
        external = item["external"]
        words = str(external.get("host") or _network(external["cidr"]))
    name = re.sub(r"[^A-Z0-9]+", "_", words.upper()).strip("_")
    return (name if name[:1].isalpha() else f"NET_{name}")[:_LONGEST].rstrip("_")


def _network(cidr: str) -> str:
    """A network without its length where it is one address."""
    network = ipaddress.ip_network(cidr, strict=False)
    return str(network.network_address if network.num_addresses == 1 else network)


def written(item: Item) -> str:
    """The connection in YAML's flow style, as an item of a list."""
    return "{" + ", ".join(f"{key}: {_value(value)}" for key, value in item.items()) + "}"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return written(value)
    text = str(value)
    # A colon, or the star of a wildcard, means something of its own there.
    return f'"{text}"' if isinstance(value, str) and (":" in text or text.startswith("*")) else text


def snippet(additions: Iterable[tuple[str, Item]]) -> str:
    """The connections of components as a piece of cytoplane.yaml."""
    lines: dict[str, list[str]] = {}
    for component, item in additions:
        lines.setdefault(component, []).append(f"      - {written(item)}")
    if not lines:
        return ""
    found = ["components:"]
    for component, items in sorted(lines.items()):
        found += [f"  {component}:", "    connections:", *items]
    return "\n".join(found)
