"""Flows to addresses that are open because of a name: called by the name that was declared."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from projects.models import Cell, Connection

_PREFIX = "external:"


def declared_names(cell: Cell, rules: Iterable[int]) -> dict[int, str]:
    """Rule → the name of DNS, or the pattern, that a connection of the cell declares by it."""
    wanted = {rule for rule in rules if rule}
    if not wanted:
        return {}
    rows = Connection.objects.filter(workload__cell=cell, rule__in=wanted, key__startswith=_PREFIX)
    found = {}
    for rule, key in rows.values_list("rule", "key"):
        target, _, way = key.removeprefix(_PREFIX).rpartition(":")
        if not way.endswith("/http") and not _is_network(target):
            found[rule] = target
    return found


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True
