"""Desired state of a plane: numbered generations of units, one for each cell.

A rebuild is idempotent and serialised for each plane; a new generation exists only if a unit differs.
Nodes get the units that are newer than what they have. Secrets aren't in them: ``fill`` puts them in
when they are sent.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import redis
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F

from cells.boundary import model
from cells.boundary.model import Topology
from cells.boundary.plain import plain
from dataplane.desired import joined
from dataplane.planes import commands, documents, node_addresses, units
from dataplane.planes import topology as topologies
from dataplane.planes.asking import ask
from dataplane.planes.models import Plane, Snapshot, Unit
from dataplane.planes.ranges import config_of
from delivery import environment
from delivery.models import Release
from infra.config import Config
from projects.models import Cell

log = logging.getLogger("cytoplane.planes")
#: Generations that a node may have and still get the difference alone; looked after every so many.
KEPT, FORGET = 1000, 100
#: Units in one self-check.
CHECKED = 50
#: Changed cells that are looked at by whoever changed them; more are left to a worker.
_FEW = 20
_LOCK_CLASS = 7001
#: Modules here whose code decides what is in a unit.
_MAKING = ("documents", "gateways", "network", "pods", "reading", "topology", "units")


def topology(plane: Plane) -> Topology:
    """What explanations are made from: the compiler's input for a plane, and what its nodes close by themselves."""
    return node_addresses.closed(plane, topologies.build(plane))


def channel(plane_id: int) -> str:
    """Redis channel that wakes the plane's long polls."""
    return f"plane:{plane_id}"


def rebuild(plane_id: int, also: Iterable[int] = ()) -> int:
    """Bring the units up to date that changed; the plane's newest generation.

    What changed is what was noted with the changes (``actions.touch``), and ``also``, numbers of cells.
    """
    return _rebuilt(plane_id, set(also))[0]


_NUMBERED = """
WITH plane AS (UPDATE planes_plane SET generation = %(number)s WHERE id = %(plane)s)
INSERT INTO planes_snapshot (plane_id, generation, mark, created_at)
VALUES (%(plane)s, %(number)s, %(mark)s, now())
"""
#: The newest generation if a node lacks it, what it is the difference to, and the units.
_NEWEST = """
WITH newest AS (
  SELECT generation, mark FROM planes_snapshot WHERE plane_id = %(plane)s::bigint ORDER BY generation DESC LIMIT 1
), known AS (
  SELECT n.*, CASE WHEN %(after)s::bigint < n.generation AND %(mark)s::text <> '' AND EXISTS (
      SELECT FROM planes_snapshot s
      WHERE s.plane_id = %(plane)s::bigint AND s.generation = %(after)s::bigint AND s.mark = %(mark)s::text
    ) THEN %(after)s::bigint ELSE 0 END AS base
  FROM newest n WHERE n.generation <> %(after)s::bigint OR %(mark)s::text NOT IN ('', n.mark)
)
SELECT k.generation, k.mark, k.base, u.number, u.document::text FROM known k LEFT JOIN planes_unit u
  ON u.plane_id = %(plane)s::bigint AND u.generation > k.base AND (k.base > 0 OR u.document IS NOT NULL)
ORDER BY u.number
"""


class Later(RuntimeError):
    """Not at once: somebody else is at it, or it takes too long."""


def at_once(plane_id: int) -> int:
    """``rebuild`` where the change was made; raises ``Later`` unless it is sure to be short."""
    return _rebuilt(plane_id, set(), patient=False)[0]


def check(plane_id: int) -> int:
    """Compile some more units from their rows though nothing was noted; how many were wrong.

    Goes round all of a plane's. Whatever a mistake left out of date is right again afterwards.
    """
    plane = Plane.objects.filter(pk=plane_id).first()
    if plane is None:
        return 0
    cells = Cell.objects.filter(environment__plane=plane, number__gt=plane.checked)
    units = Unit.objects.filter(plane=plane, number__gt=plane.checked, document__isnull=False)
    numbers = sorted(
        {*cells.order_by("number").values_list("number", flat=True)[:CHECKED]}
        | {*units.order_by("number").values_list("number", flat=True)[:CHECKED]}
    )[:CHECKED]
    repaired = _rebuilt(plane_id, set(numbers))[1]
    Plane.objects.filter(pk=plane_id).update(
        checked=numbers[-1] if numbers else 0, repaired=F("repaired") + repaired
    )
    if repaired:
        log.error("%s units of plane %s were out of date, and nothing had said so", repaired, plane_id)
    return repaired


def _rebuilt(plane_id: int, also: set[int], patient: bool = True) -> tuple[int, int]:
    """(generation, units that differ though nothing was noted)."""
    alone = not connection.in_atomic_block
    with transaction.atomic():
        return _rebuild_locked(plane_id, also, patient, alone)


def _rebuild_locked(plane_id: int, also: set[int], patient: bool, alone: bool) -> tuple[int, int]:
    with connection.cursor() as cursor:
        _lock(cursor, plane_id, patient, alone)
        plane = Plane.objects.filter(pk=plane_id).first()
        if plane is None:
            return 0, 0
        # Before the rows are read: what is committed from here on is noted for the next time.
        cursor.execute("DELETE FROM planes_touched WHERE plane_id = %s RETURNING number", [plane_id])
        noted = {number for (number,) in cursor.fetchall()}
    config = config_of(plane)
    work, basis = units.Work(plane, config), _basis(config)
    everything = None in noted or plane.basis != basis
    if not patient and (everything or len(noted) > _FEW):
        raise Later
    if everything:
        made = work.all()
    elif noted or also:
        made = work.reached(noted | also)
    else:
        return plane.generation, 0
    differing = _save(plane, work, made)
    if plane.basis != basis:
        plane.basis = basis
        plane.save(update_fields=["basis"])
    if differing:
        _numbered(plane)
    # Beside noted changes nobody could tell.
    strangers = 0 if everything or noted else len(differing & also)
    return plane.generation, strangers


def _lock(cursor: Any, plane_id: int, patient: bool, alone: bool) -> None:
    """Nobody else is at the plane until the transaction's end. ``alone``: it has no other purpose."""
    function = "pg_advisory_xact_lock" if patient else "pg_try_advisory_xact_lock"
    # Notes are taken by the same commit that keeps units: a crash that loses it loses nothing.
    flush = "set_config('synchronous_commit', 'off', true)" if alone else "NULL"
    cursor.execute(f"SELECT {function}(%s, %s), {flush}", [_LOCK_CLASS, plane_id])
    if not patient and not cursor.fetchone()[0]:
        raise Later


def _save(plane: Plane, work: units.Work, made: list[units.Made]) -> set[int]:
    """Keep what differs under the next generation; the numbers of the units that nodes have to get."""
    stored, differing, rows = work.stored(), set(), []
    for unit in made:
        document, facts = stored.get(unit.number, (None, None))
        if unit.document != document:
            differing.add(unit.number)
        if unit.document != document or unit.cell != facts:
            rows.append(unit)
    if differing:
        plane.generation += 1
    fresh = [unit for unit in rows if unit.number in differing]
    fields = ["facts", "tenant", "environment", "audit"]
    _upsert(plane, fresh, [*fields, "document", "generation"])
    _upsert(plane, [unit for unit in rows if unit.number not in differing], fields)
    return differing


def _upsert(plane: Plane, made: list[units.Made], fields: list[str]) -> None:
    Unit.objects.bulk_create(
        [
            Unit(
                plane=plane,
                number=unit.number,
                generation=plane.generation,
                document=unit.document,
                facts=None if unit.cell is None else plain(unit.cell),
                tenant=unit.cell.tenant if unit.cell else None,
                environment=unit.cell.environment if unit.cell else "",
                audit=bool(unit.cell and unit.cell.audit),
            )
            for unit in made
        ],
        update_conflicts=True,
        unique_fields=["plane", "number"],
        update_fields=fields,
    )


def _numbered(plane: Plane) -> None:
    """Give the generation its mark, and forget those that no node needs a difference to."""
    plane_id, generation = plane.pk, plane.generation
    with connection.cursor() as cursor:
        cursor.execute(_NUMBERED, {"plane": plane_id, "number": generation, "mark": secrets.token_hex(8)})
    if generation % FORGET == 0:
        oldest = generation - KEPT
        Snapshot.objects.filter(plane=plane, generation__lte=oldest).delete()
        Unit.objects.filter(plane=plane, document__isnull=True, generation__lte=oldest).delete()
    transaction.on_commit(lambda: wake(plane_id, generation))


def _basis(config: Config) -> str:
    """Digest of what every unit depends on beside its rows: the installation and the code."""
    return hashlib.sha256(f"{_code()} {topologies.platform(config)!r}".encode()).hexdigest()


@cache
def _code() -> str:
    found = hashlib.sha256()
    folder = Path(documents.__file__).parent
    compiler = Path(model.__file__).parent
    for file in (*sorted(compiler.glob("*.py")), *(folder / f"{name}.py" for name in _MAKING)):
        found.update(file.read_bytes())
    return found.hexdigest()


def wake(plane_id: int, generation: int = 0) -> None:
    """Let the plane's open polls look."""
    try:
        _redis().publish(channel(plane_id), generation)
    except redis.RedisError:
        log.warning("Redis is away; nodes of plane %s see the change at their next poll", plane_id)


@cache
def _redis() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL)


def newest(plane_id: int, after: int, mark: str = "") -> dict[str, Any] | None:
    """What a node of generation ``after`` lacks of the newest, with secrets filled in; None if nothing.

    ``base`` is the generation that it is the difference to: 0 where it is everything, since the server
    doesn't know, or know any more, what a node has that names this number with this mark.
    """
    # Numbers that no generation can have are nobody's.
    question = {"plane": plane_id, "after": after if 0 <= after < 2**63 else 0, "mark": mark}
    found = ask(_NEWEST, question)
    if not found:
        return None
    generation, newest_mark, base = found[0][:3]
    parts = {number: json.loads(text) if text else None for *_, number, text in found if number is not None}
    return {
        "plane": plane_id,
        "generation": generation,
        "mark": newest_mark,
        "base": base,
        "units": fill({str(number): part for number, part in parts.items() if part is not None}),
        "removed": [str(number) for number, part in parts.items() if part is None],
    }


def whole(plane_id: int) -> dict[str, Any]:
    """All of a plane's desired state in one document, without secrets."""
    found = Unit.objects.filter(plane_id=plane_id, document__isnull=False).order_by("number")
    return joined(found.values_list("document", flat=True))


def fill(parts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The units with what processes get as their environment."""
    running = [endpoint["process"] for part in parts.values() for endpoint in part["endpoints"]]
    wanted = {process["environment"]["release"] for process in running}
    releases = Release.objects.select_related("cell__project__tenant", "cell__environment").in_bulk(wanted)
    opened = {pk: environment.of_release(release) for pk, release in releases.items()}
    for process in running:
        reference = process["environment"]
        process["environment"] = opened.get(reference["release"], {}).get(reference["component"], {})
    commands.fill(process for process in running if process.get("restart") == "never")
    return parts
