"""Deployments and releases as their pages show them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from bpf.reasons import CODES, REASONS
from cells.boundary.model import ALLOW, AUDIT
from delivery.models import Deployment, DeploymentStep, Release
from projects.models import Cell
from web import specification

#: The way of a push; others begin later.
STEPS = ("build", "start", "switch", "drain")
STEP_WORDS = {
    "build": "Build",
    "start": "Start and check new replicas",
    "switch": "Switch traffic",
    "drain": "Drain the old release",
}
STEP_DETAILS = {
    "build": "Source becomes images, in an enclosure without a way to anything but the package index.",
    "start": "Each replica gets its identity and policy before its first instruction.",
    "switch": "Only now do callers reach the new release.",
    "drain": "The old replicas finish what they were doing.",
}
KIND_WORDS = {
    "push": "Push",
    "rollback": "Rollback",
    "config": "Configuration change",
    "scale": "Scaling",
    "promotion": "Promotion",
}


VERB_WORDS = {
    "project.create": "Project created",
    "project.strict": "What is open within the cells changed",
    "project.audit": "Audit was turned on or off",
    "config.change": "Configuration changed",
}


@dataclass
class StepRow:
    """A step: key, words, state (waiting, running, done, failed) and how long it took."""

    name: str
    word: str
    detail: str
    state: str
    started_at: datetime | None = None
    took: timedelta | None = None


def step_rows(deployment: Deployment) -> list[StepRow]:
    """All steps of the deployment, those ahead included."""
    done: list[DeploymentStep] = list(deployment.steps.all())
    rows = []
    for step in done:
        running = step.ended_at is None and deployment.state not in Deployment.ENDED
        failed = step.ok is False or (step.ended_at is None and deployment.state == Deployment.State.FAILED)
        state = "running" if running else "failed" if failed else "done"
        end = step.ended_at or deployment.ended_at
        took = end - step.started_at if end else None
        word = STEP_WORDS.get(step.name, step.name.replace("_", " ").capitalize())
        detail = STEP_DETAILS.get(step.name, "") if running else ""
        rows.append(StepRow(step.name, word, detail, state, step.started_at, took))
    if deployment.state not in Deployment.ENDED:
        seen = {row.name for row in rows}
        ahead = STEPS if deployment.kind == Deployment.Kind.PUSH else STEPS[1:]
        last = max([ahead.index(name) for name in seen if name in ahead], default=-1)
        rows += [StepRow(n, STEP_WORDS[n], "", "waiting") for n in ahead[last + 1 :] if n not in seen]
    return rows


@dataclass(frozen=True)
class Change:
    """A line of what a release changed: ``plus``, ``minus`` or ``same``."""

    style: str
    text: str


def changes(release: Release | None, before: Release | None) -> list[Change]:
    """What differs between two releases: commit, components, configuration names."""
    if release is None:
        return []
    found: list[Change] = []
    if before is None or before.commit != release.commit:
        if before is not None and before.commit:
            found.append(Change("minus", f"commit {before.commit[:8]} {before.summary}".rstrip()))
        found.append(Change("plus", f"commit {release.commit[:8]} {release.summary}".rstrip()))
    new = specification.components(release.specification)
    old = specification.components(before.specification) if before else {}
    for name in sorted(set(new) | set(old)):
        found += _component_changes(name, old.get(name), new.get(name))
    names = {str(n) for n in release.variable_names or []}
    names_before = {str(n) for n in before.variable_names or []} if before else set()
    found += [Change("minus", f"variable {n}") for n in sorted(names_before - names)]
    found += [Change("plus", f"variable {n}") for n in sorted(names - names_before)]
    if before and release.config_version != before.config_version and names == names_before:
        found.append(Change("plus", f"configuration {release.config_version} (values changed)"))
    return found


def _component_changes(
    name: str, old: specification.Component | None, new: specification.Component | None
) -> list[Change]:
    if old == new:
        return []
    if old is None:
        return [Change("plus", f"component {name}")]
    if new is None:
        return [Change("minus", f"component {name}")]
    found = []
    for word, before, after in (
        ("command", old.command, new.command),
        ("memory", old.memory, new.memory),
        ("CPU", old.cpu, new.cpu),
        ("check", old.probe, new.probe),
        ("replicas", str(old.replicas), str(new.replicas)),
    ):
        if before != after:
            found += [Change("minus", f"{name}: {word} {before or 'default'}"),
                      Change("plus", f"{name}: {word} {after or 'default'}")]  # fmt: skip
    pairs = (("endpoint", old.endpoints, new.endpoints), ("connection", old.connections, new.connections))
    for word, earlier, later in pairs:

        def words(item: specification.Endpoint | specification.Connection) -> str:
            if isinstance(item, specification.Endpoint):
                return f"{item.name} :{item.port}/{item.protocol} {item.visibility}"
            return f"{item.name} → {item.target}"

        found += [Change("minus", f"{name}: {word} {words(i)}") for i in earlier if i not in later]
        found += [Change("plus", f"{name}: {word} {words(i)}") for i in later if i not in earlier]
    return found


def previous_release(release: Release) -> Release | None:
    """The release before this one in its cell."""
    return (
        Release.objects.filter(cell_id=release.cell_id, number__lt=release.number).order_by("-number").first()
    )


def took(deployment: Deployment) -> timedelta | None:
    """How long a deployment took, or has taken so far."""
    start = deployment.started_at or deployment.created_at
    return (deployment.ended_at or timezone.now()) - start


@dataclass
class Event:
    """Something that happened in a cell, on its timeline."""

    at: datetime
    icon: str
    tone: str
    text: str
    detail: str = ""
    url: str = ""


def timeline(cell: Cell, url: str, limit: int = 20) -> list[Event]:
    """Deployments, releases, configuration, refused calls and restarts of a cell, newest first."""
    from delivery.models import Replica
    from telemetry import queries as telemetry
    from telemetry.models import Edge
    from tenants.models import AuditEvent
    from web.states import look

    events: list[Event] = []
    for d in cell.deployments.select_related("release")[:limit]:
        seen = look("deployment", d.state)
        version = f" (v{d.release.number})" if d.release else ""
        text = f"{KIND_WORDS.get(d.kind, d.kind)}{version}: {seen.word.lower()}"
        detail = d.error.get("message") or d.summary or f"by {d.created_by}"
        events.append(
            Event(d.ended_at or d.created_at, seen.icon, seen.tone, text, detail, f"{url}/deployments/{d.pk}")
        )
    shown = ("config", "project.", "cell.", "component.scale")
    own = Q(object_type="cell", object_id=str(cell.pk)) | Q(
        object_type="project", object_id=str(cell.project_id)
    )
    for a in AuditEvent.objects.filter(own, tenant_id=cell.project.tenant_id)[:limit]:
        if a.verb.startswith(shown):
            word = VERB_WORDS.get(a.verb, a.verb.replace(".", ": ").replace("_", " ").capitalize())
            events.append(Event(a.at, "pencil", "idle", word, f"by {a.actor}"))
    denied = (
        Edge.objects.filter(cell=cell, last_at__gte=timezone.now() - timedelta(days=1))
        .exclude(verdict=ALLOW)
        .order_by("verdict", "reason", "destination", "port", "-last_at")
        .distinct("verdict", "reason", "destination", "port")
    )
    seen_edges = list(denied[:8])
    called = telemetry.names(cell, {end for edge in seen_edges for end in (edge.source, edge.destination)})
    for edge in seen_edges:
        foreign = telemetry.OTHER_TENANT in (called.get(edge.source), called.get(edge.destination))
        remote = telemetry.OTHER_TENANT.capitalize() if foreign else edge.remote
        named = edge.reason == "NAME"
        text = "A name was asked for in vain" if named else "Calls were refused"
        if edge.verdict == AUDIT:
            text = "A name was answered in audit" if named else "Calls passed in audit"
        where = ", ".join(
            part for part in (remote, f"port {edge.port}" if edge.port and not named else "") if part
        )
        sentence = REASONS[CODES[edge.reason]].sentence if edge.reason in CODES else edge.reason
        detail = f"{where}: {sentence}" if where else sentence
        icon, tone = ("shield-alert", "warn") if edge.verdict == AUDIT else ("shield-x", "bad")
        events.append(Event(edge.last_at, icon, tone, text, detail, f"{url}#edges"))
    restarted = Replica.objects.filter(workload__cell=cell, restarts__gt=0).exclude(wanted="stop")
    for replica in restarted.select_related("workload__component")[:6]:
        name = replica.workload.component.name
        text = (
            f"{name}.{replica.number} restarted {replica.restarts} time{'s' if replica.restarts != 1 else ''}"
        )
        events.append(
            Event(replica.phase_since, "refresh-cw", "warn", text, replica.phase, f"{url}/components/{name}")
        )
    return sorted(events, key=lambda e: e.at, reverse=True)[:limit]
