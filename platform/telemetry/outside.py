"""Allowed flows to what lies outside, called by what was declared: the kernel counts them by rule."""

from __future__ import annotations

from collections.abc import Iterable

from projects.models import Cell, Connection

_PREFIX = "external:"


def declared_targets(cell: Cell, rules: Iterable[int]) -> dict[int, str]:
    """Rule → the network, name or pattern of names that a connection of the cell declares by it."""
    wanted = {rule for rule in rules if rule}
    if not wanted:
        return {}
    rows = Connection.objects.filter(workload__cell=cell, rule__in=wanted, key__startswith=_PREFIX)
    found = {}
    for rule, key in rows.values_list("rule", "key"):
        target, _, way = key.removeprefix(_PREFIX).rpartition(":")
        if not way.endswith("/http"):
            found[rule] = target
    return found
