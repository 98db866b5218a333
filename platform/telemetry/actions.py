"""Writing what nodes saw. Reports are untrusted: identities outside the node's plane are left out."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from cells.boundary.model import ALLOW, AUDIT, DENY
from dataplane.planes.models import Plane
from delivery.models import Replica
from delivery.queries import replica_number
from projects.models import Cell, Workload
from telemetry.bounds import EGRESS, MOST_LINES, Key, bounded, room_for_lines
from telemetry.models import LogLine

LONGEST_LINE = 8192
#: Packets or bytes of one flow in one report; sums stay far from what a column holds.
_MOST_AT_ONCE = 2**48
#: With what a row has already it still fits into the column.
_MOST_SUM = 2**62 - 1
#: Kept of each cell: lines, rows of flows, hours of them.
KEPT_LINES, KEPT_ROWS, KEPT_HOURS = 20000, 200_000, 48
#: Of advisory locks.
_LOCK_CLASS = 7301
#: The stream of lines that no process wrote.
PLATFORM = "platform"

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


def _judged(flow: dict[str, Any]) -> tuple[int, str]:
    """Verdict and reason. What passes and yet has a reason is audited: the reason would have denied it."""
    reason = str(flow.get("reason", "")).replace("\0", "")[:40]
    if flow.get("allowed") is not True:
        return DENY, reason
    return (AUDIT, reason) if reason not in ("", "OK") else (ALLOW, "")


def record_flows(plane: Plane, flows: list[dict[str, Any]]) -> int:
    """Add flows to their minute; the number that was taken.

    An egress flow belongs to the cell of its source, an ingress flow to that of its destination:
    each tenant has its own side. A cell has a bounded number of rows in a minute.
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
    totals: dict[Key, list[int]] = defaultdict(lambda: [0, 0, 0])
    for flow in flows:
        source, destination = _whole(flow.get("source")), _whole(flow.get("destination"))
        direction = _whole(flow.get("direction"), 1)
        cell = cells.get(source if direction == EGRESS else destination)
        if cell is None:
            continue
        key = Key(
            cell,
            minute,
            source,
            destination,
            str(flow.get("remote", "")).replace("\0", "")[:253],
            _whole(flow.get("port"), 65535),
            _whole(flow.get("protocol"), 255),
            direction,
            *_judged(flow),
        )
        total = totals[key]
        total[0] = _whole(flow.get("rule"))
        total[1] += _whole(flow.get("packets"), _MOST_AT_ONCE)
        total[2] += _whole(flow.get("bytes"), _MOST_AT_ONCE)
    with transaction.atomic(), connection.cursor() as cursor:
        # One report at a time: what there is already is counted.
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [_LOCK_CLASS, plane.pk])
        here = _kept({key.cell for key in totals})
        found = {key: total for key, total in totals.items() if key.cell in here}
        for key, total in sorted(bounded(found, minute).items()):
            rule, packets, size = total
            cursor.execute(_UPSERT, [*key, rule, min(packets, _MOST_SUM), min(size, _MOST_SUM), now])
    return len(found)


def _kept(cells: set[int]) -> set[int]:
    """Those of the cells that are still there, and stay until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM projects_cell WHERE id = ANY(%s) ORDER BY id FOR KEY SHARE", [list(cells)]
        )
        return {number for (number,) in cursor.fetchall()}


def record_logs(plane: Plane, lines: list[dict[str, Any]]) -> int:
    """Keep what processes wrote; the number of lines taken."""
    wanted = {number for line in lines if (number := replica_number(line.get("replica")))}
    if not wanted:
        return 0
    replicas = {
        row.pk: row
        for row in Replica.objects.filter(pk__in=wanted, plane=plane).select_related("workload__component")
    }
    now = timezone.now()
    rows = []
    dropped: dict[int, int] = defaultdict(int)
    with transaction.atomic():
        here = _kept({row.workload.cell_id for row in replicas.values()})
        meters = room_for_lines(here, now.replace(second=0, microsecond=0))
        for line in lines:
            replica = replicas.get(replica_number(line.get("replica")))
            if replica is None or replica.workload.cell_id not in here:
                continue
            meter = meters[replica.workload.cell_id]
            if meter.lines >= MOST_LINES:
                dropped[replica.pk] += 1
                continue
            meter.lines += 1
            stream = "stderr" if line.get("stream") == "stderr" else "stdout"
            # PostgreSQL's text holds no zero bytes.
            text = str(line.get("text", "")).replace("\0", "\ufffd")[:LONGEST_LINE]
            rows.append(_row(replica, stream, _time(line.get("at")), text))
        taken = len(rows)
        for number, count in dropped.items():
            text = f"{count} more lines weren't kept: a cell may write {MOST_LINES} in a minute."
            rows.append(_row(replicas[number], PLATFORM, now, text))
        LogLine.objects.bulk_create(rows, batch_size=500)
        for meter in meters.values():
            meter.save(update_fields=["minute", "lines"])
    return taken


def _row(replica: Replica, stream: str, at: datetime, text: str) -> LogLine:
    workload = replica.workload
    name = workload.component.name
    return LogLine(
        cell_id=workload.cell_id, component=name, replica=replica.pk, stream=stream, at=at, text=text
    )


def _time(value: Any) -> datetime:
    now = timezone.now()
    if isinstance(value, int | float) and 0 < value < now.timestamp() + 60:
        return datetime.fromtimestamp(value, UTC)
    return now
