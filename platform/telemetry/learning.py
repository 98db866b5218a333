"""What could be learned from traffic: the connections that refused and audited calls would need.

The compiler says what each call lacks, as it does for ``why``; nothing here decides.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Max, Sum
from django.utils import timezone

from cells.boundary import Explanation, ends
from cells.boundary.explain import explanations
from cells.boundary.model import ALLOW, AUDIT, EGRESS, Missing
from cells.specification import Specification, SpecificationError, additions
from cells.specification.additions import Item
from cells.specification.external import external
from projects.models import Cell, Workload
from telemetry import queries
from telemetry.denials import Known
from telemetry.models import Edge

#: Ends that are explained in one answer, the ones with the most packets; more than a person reads.
MOST = 400
_PROTOCOLS = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmp"}
_NAME = "NAME"
_ASSUMED = "Only its name was asked for, so the port is a guess: correct it if it is another."


@dataclass
class Lesson:
    """A connection of one of the project's components that calls would need."""

    component: str
    item: Item
    packets: int
    last_at: datetime
    #: The newest of the calls passed, since the project was in audit.
    audited: bool = False
    note: str = ""

    @property
    def id(self) -> str:
        """What a person chooses it by; the same as long as it leads to the same."""
        return hashlib.sha256(f"{self.component} {sorted(self._target.items())}".encode()).hexdigest()[:6]

    @property
    def _target(self) -> dict[str, Any]:
        return {"to": self.item["to"]} if "to" in self.item else dict(self.item["external"])

    @property
    def target(self) -> str:
        """Where it leads, for people."""
        if "to" in self.item:
            return str(self.item["to"])
        outside = self.item["external"]
        where = str(outside.get("host") or outside["cidr"])
        port = f" port {outside['port']}" if "port" in outside else ""
        return f"{where}{port}/{outside['protocol']}"

    @property
    def declaration(self) -> str:
        return additions.written(self.item)

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "component": self.component,
            "target": self.target,
            "verdict": "audited" if self.audited else "denied",
            "packets": self.packets,
            "last_at": self.last_at,
            "connection": self.item,
            "declaration": self.declaration,
            "note": self.note,
        }


@dataclass
class Excluded:
    """Calls that no connection of the project's opens, and why not."""

    component: str
    target: str
    reason: str
    sentence: str
    packets: int
    last_at: datetime
    #: What somebody else could declare, or the project elsewhere.
    fix: str = ""


@dataclass
class Lessons:
    cell: Cell
    hours: int
    connections: list[Lesson] = field(default_factory=list)
    excluded: list[Excluded] = field(default_factory=list)

    @property
    def yaml(self) -> str:
        return additions.snippet((lesson.component, lesson.item) for lesson in self.connections)

    def as_dict(self) -> dict[str, Any]:
        return {
            "hours": self.hours,
            "project": self.cell.project.slug,
            # Hosts below it are the platform's own; what is written is checked with that.
            "domain": settings.CONFIG.apps_domain,
            "connections": [lesson.as_dict() for lesson in self.connections],
            "excluded": [vars(row) for row in self.excluded],
            "yaml": self.yaml,
        }


def lessons(cell: Cell, hours: int = 24) -> Lessons:
    """What the cell's own components tried in the last hours and what it would take, most used first."""
    found = Lessons(cell, hours)
    plane = cell.environment.plane
    if plane is None:
        return found
    names = dict(Workload.objects.filter(cell=cell).values_list("identity", "component__name"))
    rows = (
        Edge.objects.filter(cell=cell, last_at__gte=timezone.now() - timedelta(hours=hours))
        .filter(source__in=names, direction=EGRESS)
        .exclude(verdict=ALLOW)
        .values("source", "destination", "remote", "port", "protocol", "verdict", "reason")
        .annotate(packets=Sum("packets"), last_at=Max("last_at"))
        .order_by("-packets", "source", "destination", "remote", "port")[:MOST]
    )
    seen = list(rows)
    called = queries.names(cell, {row["destination"] for row in seen})
    known = Known(plane, cell)
    opened: dict[tuple[str, str], Lesson] = {}
    closed: dict[tuple[str, str, str], Excluded] = {}
    # Calls before names: where a name was asked for and then called, the port is known.
    for row in sorted(seen, key=lambda row: row["reason"] == _NAME):
        component = names[row["source"]]
        answer = _answer(known, cell, component, row)
        if answer is not None and answer.allowed:
            continue  # declared meanwhile
        wrong = ""
        if answer is not None and answer.missing is not None and answer.missing.component == component:
            wrong = _wrong(answer.missing)
            if not wrong:
                _add(opened, answer.missing, row)
                continue
        target = _target(row, called)
        reason = answer.reason if answer else row["reason"]
        last = closed.get((component, target, reason))
        if last is None:
            sentence = answer.sentence if answer and answer.sentence else queries.sentence(row)
            sentence, fix = (wrong, "") if wrong else (sentence, answer.fix if answer else "")
            closed[component, target, reason] = Excluded(
                component, target, reason, sentence, row["packets"], row["last_at"], fix
            )
        else:
            last.packets += row["packets"]
            last.last_at = max(last.last_at, row["last_at"])
    found.connections = _named(cell, sorted(opened.values(), key=lambda item: (-item.packets, item.id)))
    found.excluded = sorted(closed.values(), key=lambda item: (-item.packets, item.component, item.target))
    return found


def _answer(known: Known, cell: Cell, component: str, row: dict[str, Any]) -> Explanation | None:
    """The compiler's word on what was seen."""
    if row["reason"] != _NAME:
        return known.explain(row)
    reader = next((c for c in known.topology.cells if c.number == cell.number), None)
    try:
        target = ends.find(known.topology, row["remote"], reader)
        answers = explanations(known.topology, row["source"], target, reader=reader)
    except (KeyError, ValueError):
        return None
    # A name with several ports behind it is asked for without saying which is meant.
    return next((answer for answer in answers if answer.missing), answers[0])


def _add(opened: dict[tuple[str, str], Lesson], missing: Missing, row: dict[str, Any]) -> None:
    item = _item(missing)
    guess = row["reason"] == _NAME
    if guess and _has_host_or_component(opened, missing):
        return
    lesson = Lesson(missing.component, item, 0, row["last_at"])
    lesson = opened.setdefault((missing.component, lesson.id), lesson)
    lesson.packets += row["packets"]
    if row["last_at"] >= lesson.last_at:
        lesson.last_at, lesson.audited = row["last_at"], row["verdict"] == AUDIT
    lesson.note = _ASSUMED if guess and "external" in item else lesson.note


def _wrong(missing: Missing) -> str:
    """Why cytoplane.yaml couldn't say it: programs ask for names that nobody could declare."""
    if missing.external is None:
        return ""
    try:
        external(_item(missing)["external"], "", settings.CONFIG.apps_domain)
    except SpecificationError as error:
        return f"It can't be declared: {error.message}"
    return ""


def _has_host_or_component(opened: dict[tuple[str, str], Lesson], missing: Missing) -> bool:
    """Whether a call, with its port, already told where the name leads."""
    if not missing.to:
        return False
    start = missing.to.partition(".")[0]
    return any(
        lesson.component == missing.component and str(lesson.item.get("to", "")).partition(".")[0] == start
        for lesson in opened.values()
    )


def _item(missing: Missing) -> Item:
    outside = missing.external
    if outside is None:
        return {"to": missing.to}
    found: dict[str, Any] = {"cidr": outside.cidr} if outside.cidr else {"host": outside.host}
    if outside.protocol != "icmp":
        found["port"] = outside.port
    return {"external": found | {"protocol": outside.protocol}}


def _target(row: dict[str, Any], called: dict[int, str]) -> str:
    if row["reason"] == _NAME:
        return str(row["remote"])
    name = called.get(row["destination"], "unknown")
    if queries.is_others(row):
        return f"{name}, {queries.OTHERS}" if row["destination"] else queries.OTHERS
    # Whose address another tenant's is stays between that tenant and the platform.
    foreign = name == queries.OTHER_TENANT
    where = name if foreign or not row["remote"] or row["destination"] >= 256 else row["remote"]
    port = f" port {row['port']}" if row["port"] else ""
    return f"{where}{port}/{_PROTOCOLS.get(row['protocol'], row['protocol'])}"


def _named(cell: Cell, found: list[Lesson]) -> list[Lesson]:
    """With an ``as`` where two connections of a component would have one name."""
    taken: dict[str, set[str]] = defaultdict(set)
    if cell.serving_release is not None:
        serving = Specification.from_dict(cell.serving_release.specification)
        for name, component in serving.components.items():
            taken[name] |= {connection.name for connection in component.connections}
    for lesson in found:
        lesson.item = additions.named(lesson.item, taken[lesson.component])
        taken[lesson.component].add(additions.name_of(lesson.item))
    return found
