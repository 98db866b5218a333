"""Reads of what the kernel saw and what processes wrote; and explanations."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.db.models import Max, QuerySet, Sum
from django.utils import timezone

from bpf.reasons import CODES, REASONS
from cells.boundary import Explanation
from cells.boundary.ends import End, UnknownEndError, find
from cells.boundary.explain import SPOKEN, explanations
from cells.boundary.model import ALLOW, AUDIT, DENY
from controlplane.errors import CytoplaneError, not_found
from dataplane import addresses
from dataplane.planes import snapshots
from delivery.queries import replica_number
from projects.models import Cell, Workload
from telemetry import denials
from telemetry.models import Edge, LogLine
from telemetry.outside import declared_targets

#: Reserved identities as people call them.
PARTS = {
    addresses.IDENTITY_NODE: "the node",
    addresses.IDENTITY_WORLD: "internet",
    addresses.IDENTITY_GATEWAY_NORTH: "gateway",
    addresses.IDENTITY_RESOLVER: "resolver",
    **dict.fromkeys(addresses.IDENTITY_BUILDS, "a build"),
    addresses.IDENTITY_INDEX_PROXY: "package index",
}
OTHER_TENANT = "another tenant"
#: Of rows that stand for flows which have none of their own.
OTHERS = "others"
VERDICTS = {ALLOW: "allowed", DENY: "denied", AUDIT: "audited"}


def names(cell: Cell, identities: Iterable[int]) -> dict[int, str]:
    """What this cell's tenant may know about identities."""
    wanted = set(identities)
    found = {identity: PARTS[identity] for identity in wanted & set(PARTS)}
    found |= dict.fromkeys(wanted - set(PARTS), OTHER_TENANT)
    tenant = cell.project.tenant_id
    rows = Workload.objects.filter(identity__in=wanted, cell__project__tenant=tenant).select_related(
        "component", "cell__project", "cell__environment"
    )
    for row in rows:
        if row.cell_id == cell.pk:
            found[row.identity] = row.component.name
        elif row.cell.environment_id == cell.environment_id:
            found[row.identity] = f"{row.cell.project.slug}/{row.component.name}"
        else:
            found[row.identity] = (
                f"{row.cell.project.slug}/{row.component.name} in {row.cell.environment.name}"
            )
    gateways = Cell.objects.filter(gateway_identity__in=wanted, project__tenant=tenant).select_related(
        "project"
    )
    for other in gateways:
        found[other.gateway_identity] = (
            "gateway" if other.pk == cell.pk else f"gateway of {other.project.slug}"
        )
    found[0] = "unknown"
    return found


def edges(cell: Cell, minutes: int = 60, denied: bool | None = None) -> list[dict[str, Any]]:
    """Who talked to whom in the last minutes, by verdict and reason.

    ``denied``: what was denied or, in audit, would have been; False: the rest.
    """
    rows = Edge.objects.filter(cell=cell, last_at__gte=timezone.now() - timedelta(minutes=minutes))
    if denied is not None:
        rows = rows.exclude(verdict=ALLOW) if denied else rows.filter(verdict=ALLOW)
    grouped = (
        rows.values(
            "source", "destination", "remote", "port", "protocol", "direction", "verdict", "reason", "rule"
        )
        .annotate(packets=Sum("packets"), bytes=Sum("bytes"), last_at=Max("last_at"))
        .order_by("-last_at")[:500]
    )
    found = list(grouped)
    called = names(cell, {row[end] for row in found for end in ("source", "destination")})
    outside = declared_targets(cell, {row["rule"] for row in found})
    protocols = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmpv6"}
    answers = denials.explained(cell, found)
    return [
        {
            "source": called.get(row["source"], "unknown"),
            "destination": _destination(row, called, outside),
            "remote": _remote(row, called),
            "port": row["port"],
            "protocol": protocols.get(row["protocol"], str(row["protocol"])),
            "direction": "egress" if row["direction"] == 0 else "ingress",
            "verdict": VERDICTS[row["verdict"]],
            "reason": row["reason"],
            "sentence": _sentence(row, answers.get(number)),
            # Of a refused or audited call: the rule that would have had to allow it.
            "rule": answers[number].rule if number in answers else row["rule"],
            "fix": answers[number].fix if number in answers else "",
            "packets": row["packets"],
            "bytes": row["bytes"],
            "last_at": row["last_at"],
        }
        for number, row in enumerate(found)
    ]


def _destination(row: dict[str, Any], called: dict[int, str], outside: dict[int, str]) -> str:
    # Of a name that was asked for in vain, nobody is the owner: the name itself is the end.
    if row["reason"].startswith("NAME"):
        return row["remote"]
    if row["destination"] == addresses.IDENTITY_WORLD and row["rule"] in outside:
        return outside[row["rule"]]
    return called.get(row["destination"], "unknown")


def _remote(row: dict[str, Any], called: dict[int, str]) -> str:
    if is_others(row):
        return OTHERS
    # Whose address it is stays between the other tenant and the platform.
    foreign = OTHER_TENANT in (called.get(row["source"]), called.get(row["destination"]))
    return "" if foreign else row["remote"]


def is_others(row: dict[str, Any]) -> bool:
    """Whether a row stands for others: nothing that has ports is without one."""
    return not row["remote"] and not row["port"] and row["protocol"] in (6, 17)


def _sentence(row: dict[str, Any], answer: Explanation | None) -> str:
    return answer.sentence if answer is not None and answer.sentence else sentence(row)


def sentence(row: dict[str, Any]) -> str:
    """What the kernel's reason means."""
    return REASONS[CODES[row["reason"]]].sentence if row["reason"] in CODES else ""


def log_lines(
    cell: Cell, component: str = "", after: int = 0, limit: int = 200, replica: str = ""
) -> list[LogLine]:
    """The newest lines in order, or those after an id."""
    rows: QuerySet[LogLine] = LogLine.objects.filter(cell=cell)
    if component:
        rows = rows.filter(component=component)
    if replica:
        rows = rows.filter(replica=replica_number(replica) or 0)
    limit = max(1, min(limit, 5000))
    if after:
        return list(rows.filter(pk__gt=after).order_by("pk")[:limit])
    return list(rows.order_by("-pk")[:limit])[::-1]


def why(
    cell: Cell, source: str, destination: str, port: int = 0, protocol: str = ""
) -> tuple[End, End, list[Explanation]]:
    """Explain a call by calling the compiler: the two ends, and a verdict for each port that is asked about.

    What an end may be, ``cells.boundary.ends`` says. Raises ``end-unknown`` and ``invalid``.
    """
    plane = cell.environment.plane
    if plane is None:
        raise CytoplaneError("unavailable", part="a data plane for this environment")
    if protocol not in ("", "http", "grpc", *SPOKEN):
        raise CytoplaneError("invalid", field="protocol", message="The protocol is tcp, udp or icmp.")
    if not 0 <= port <= 65535:
        raise CytoplaneError("invalid", field="port", message="The port is a number up to 65535.")
    topology = snapshots.topology(plane)
    reader = next((c for c in topology.cells if c.number == cell.number), None)
    if reader is None:
        raise not_found("environment")
    try:
        start, target = find(topology, source, reader), find(topology, destination, reader)
        return start, target, explanations(topology, start, target, port, protocol, reader)
    except UnknownEndError as error:
        raise CytoplaneError("end-unknown", message=error.message, following=error.following)
