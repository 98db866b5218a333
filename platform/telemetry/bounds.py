"""How much of what one cell causes is written down in a minute, so that it pushes out nobody else's.

Flows beyond the bound are counted together with others between the same ends; lines beyond it are
dropped, and a line says how many.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import NamedTuple

from django.db.models import Count

from telemetry.models import Edge, LogMeter

EGRESS = 0
#: Rows of flows for a cell and a minute; twice as many with those that stand for others.
MOST_ROWS = 300
#: Lines of all processes of a cell in a minute.
MOST_LINES = 6000


class Key(NamedTuple):
    """What a flow is told apart by: the columns of ``edge_bucket`` in its order."""

    cell: int
    minute: datetime
    source: int
    destination: int
    remote: str
    port: int
    protocol: int
    direction: int
    verdict: int
    reason: str

    def others(self) -> Key:
        """The row for all flows between the same ends that have none of their own."""
        return self._replace(remote="", port=0)

    def elsewhere(self) -> Key:
        """The row for what one of the cell's own has to do with ends that are too many to name."""
        others = self.others()
        return others._replace(destination=0) if self.direction == EGRESS else others._replace(source=0)


def bounded(flows: dict[Key, list[int]], minute: datetime) -> dict[Key, list[int]]:
    """The same counts (rule, packets, bytes) in a bounded number of rows for each cell.

    Who has a row keeps it; of the new ones the largest get one.
    """
    cells: dict[int, set[Key]] = defaultdict(set)
    for key in flows:
        cells[key.cell].add(key)
    rows = Edge.objects.filter(cell__in=cells, minute=minute)
    counted = dict(rows.values_list("cell").annotate(rows=Count("pk")).order_by())
    found = dict(flows)
    for cell, keys in cells.items():
        if counted.get(cell, 0) + len(keys) <= MOST_ROWS:
            continue
        columns = ("cell_id" if name == "cell" else name for name in Key._fields)
        known = {Key(*row) for row in rows.filter(cell=cell).values_list(*columns)}
        new = sorted(keys - known, key=lambda key: (-flows[key][1], key))
        room = max(0, MOST_ROWS - len(known))
        known |= set(new[:room])
        for key in new[room:]:
            together = key.others()
            if together not in known and len(known) >= 2 * MOST_ROWS:
                together = key.elsewhere()
            known.add(together)
            rule, packets, size = found.pop(key)
            total = found.setdefault(together, [rule, 0, 0])
            total[0] = rule if total[0] == rule else 0
            total[1] += packets
            total[2] += size
    return found


def room_for_lines(cells: set[int], minute: datetime) -> dict[int, LogMeter]:
    """Each cell's meter, locked, of this minute. Whoever takes lines adds them and saves it."""
    meters = {}
    for cell in sorted(cells):
        meter, _ = LogMeter.objects.select_for_update().get_or_create(
            cell_id=cell, defaults={"minute": minute}
        )
        if meter.minute != minute:
            meter.minute, meter.lines = minute, 0
        meters[cell] = meter
    return meters
