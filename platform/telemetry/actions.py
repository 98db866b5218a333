"""Writing what nodes saw. Reports are untrusted: identities outside the node's plane are left out."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from dataplane.planes.models import Plane
from delivery.models import Replica
from delivery.queries import replica_number
from projects.models import Cell, Workload
from telemetry.models import LogLine

EGRESS = 0
LONGEST_LINE = 8192
#: Packets or bytes of one flow in one report; sums stay far from what a column holds.
_MOST_AT_ONCE = 2**48
#: Lines and minutes kept for each cell.
KEPT_LINES, KEPT_HOURS = 20000, 48

_UPSERT = """
INSERT INTO telemetry_edge
  (cell_id, minute, source, destination, remote, port, protocol, direction, verdict, reason, rule, packets,
   bytes, last_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT ON CONSTRAINT edge_bucket DO UPDATE SET
  packets = LEAST(telemetry_edge.packets + excluded.packets, 4611686018427387904),
  bytes = LEAST(telemetry_edge.bytes + excluded.bytes, 4611686018427387904),
  last_at = excluded.last_at, rule = excluded.rule
"""


def _whole(value: Any, most: int = 2**62) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else 0


def record_flows(plane: Plane, flows: list[dict[str, Any]]) -> int:
    """Add flows to their minute; the number that was taken.

    An egress flow belongs to the cell of its source, an ingress flow to that of its destination:
    each tenant has its own side.
    """
    if not flows:
        return 0
    mentioned = {_whole(f.get(end)) for f in flows for end in ("source", "destination")}
    cells = dict(
        Workload.objects.filter(identity__in=mentioned, cell__environment__plane=plane).values_list(
            "identity", "cell_id"
        )
    )
    cells |= dict(
        Cell.objects.filter(gateway_identity__in=mentioned, environment__plane=plane).values_list(
            "gateway_identity", "pk"
        )
    )
    now = timezone.now()
    minute = now.replace(second=0, microsecond=0)
    totals: dict[tuple, list[int]] = defaultdict(lambda: [0, 0, 0])
    for flow in flows:
        source, destination = _whole(flow.get("source")), _whole(flow.get("destination"))
        direction = _whole(flow.get("direction"), 1)
        cell = cells.get(source if direction == EGRESS else destination)
        if cell is None:
            continue
        key = (
            cell,
            minute,
            source,
            destination,
            str(flow.get("remote", "")).replace("\0", "")[:253],
            _whole(flow.get("port"), 65535),
            _whole(flow.get("protocol"), 255),
            direction,
            1 if flow.get("allowed") is True else 2,
            "" if flow.get("allowed") is True else str(flow.get("reason", "")).replace("\0", "")[:40],
        )
        total = totals[key]
        total[0] = _whole(flow.get("rule"))
        total[1] += _whole(flow.get("packets"), _MOST_AT_ONCE)
        total[2] += _whole(flow.get("bytes"), _MOST_AT_ONCE)
    with transaction.atomic(), connection.cursor() as cursor:
        # One order for everybody: two reports can't wait for each other.
        for key in sorted(totals):
            cursor.execute(_UPSERT, [*key, *totals[key], now])
    return len(totals)


def record_logs(plane: Plane, lines: list[dict[str, Any]]) -> int:
    """Keep what processes wrote; the number of lines taken."""
    wanted = {number for line in lines if (number := replica_number(line.get("replica")))}
    if not wanted:
        return 0
    replicas = {
        row.pk: row
        for row in Replica.objects.filter(pk__in=wanted, plane=plane).select_related("workload__component")
    }
    rows = []
    for line in lines:
        replica = replicas.get(replica_number(line.get("replica")))
        if replica is None:
            continue
        rows.append(
            LogLine(
                cell_id=replica.workload.cell_id,
                component=replica.workload.component.name,
                replica=replica.pk,
                stream="stderr" if line.get("stream") == "stderr" else "stdout",
                at=_time(line.get("at")),
                # PostgreSQL's text holds no zero bytes.
                text=str(line.get("text", "")).replace("\0", "\ufffd")[:LONGEST_LINE],
            )
        )
    LogLine.objects.bulk_create(rows, batch_size=500)
    return len(rows)


def _time(value: Any) -> datetime:
    now = timezone.now()
    if isinstance(value, int | float) and 0 < value < now.timestamp() + 60:
        return datetime.fromtimestamp(value, UTC)
    return now
