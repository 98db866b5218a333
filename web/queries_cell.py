"""The cell as its page shows it: components with their state, declared and seen edges, the timeline."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Max, Q, Sum
from django.utils import timezone
from django.utils.http import urlencode

from autoscaling import queries as autoscaling
from bpf.reasons import REASONS
from cells.boundary.model import ALLOW, AUDIT, DENY, EGRESS, PROTOCOLS
from dataplane.addresses import IDENTITY_NODE, IDENTITY_RESOLVER
from delivery.models import Deployment, Release, Replica
from projects.models import Cell, Component, Connection, Host, Workload
from telemetry.models import Edge
from telemetry.outside import declared_targets
from web import formats, specification
from web.access import Place
from web.identities import Names
from web.picture import INSIDE, NORTH, SOUTH, EdgeView, End, Node
from web.picture import Cell as Picture

#: Edges seen within this time are drawn; the figures on them are means over ``RATE_MINUTES``.
SEEN = timedelta(minutes=30)
RATE_MINUTES = 3
NAME = "NAME"
#: Protocols that a verdict can be asked about, as edges and as the question have them.
_SPOKEN = {"tcp": "tcp", "udp": "udp", "icmp": "icmp", "icmpv6": "icmp"}
STRANGER = (
    "Cells of different tenants never talk directly. Call the other one's public host name "
    "through an `external` connection, if it has one."
)
STRANGER_CALLS = "Another tenant tried to call it; only its public endpoints are open to others."
REASON_SENTENCES = {reason.code: reason.sentence for reason in REASONS.values()}


#: Kinds of what runs and ends → what is said in place of how it serves.
ENDING = {"cron": "Runs by its schedule", "job": "Runs in deployments"}


@dataclass
class ComponentRow:
    """A component with what runs of it and where it is reached."""

    name: str
    kind: str
    tone: str
    word: str
    serving: int
    wanted: int
    identity: int
    hosts: list[str]
    spec: specification.Component | None
    replicas: list[Replica]
    #: How its number follows its load, if it does.
    following: autoscaling.State | None = None

    @property
    def ends(self) -> bool:
        """Whether it runs and ends, so that nothing of it goes on."""
        return self.kind in ENDING

    @property
    def urls(self) -> list[str]:
        return [host_url(host) for host in self.hosts]


def host_url(name: str) -> str:
    """The address of a claimed host name, as a browser takes it."""
    config = settings.CONFIG
    host = name if name.endswith(f".{config.apps_domain}") else f"{name}.{config.apps_domain}"
    port = "" if config.apps_port in (80, 443) else f":{config.apps_port}"
    return f"{'https' if settings.TLS else 'http'}://{host}{port}/"


def component_rows(place: Place) -> list[ComponentRow]:
    """The cell's components: those of the serving release, and any of which something still runs."""
    cell = place.cell
    assert cell is not None
    release: Release | None = cell.serving_release
    specs = specification.components(release.specification if release else None)
    states = autoscaling.states(cell)
    workloads = {w.component.name: w for w in Workload.objects.filter(cell=cell).select_related("component")}
    replicas: dict[str, list[Replica]] = defaultdict(list)
    apart = (Replica.Wanted.STOP, Replica.Wanted.ONCE)
    found = Replica.objects.filter(workload__cell=cell).exclude(wanted__in=apart)
    for replica in found.select_related("workload__component", "release").order_by("number", "id"):
        replicas[replica.workload.component.name].append(replica)
    hosts: dict[str, list[str]] = defaultdict(list)
    for name, component in Host.objects.filter(endpoint__workload__cell=cell).values_list(
        "name", "endpoint__workload__component__name"
    ):
        hosts[component].append(name)
    kinds = dict(Component.objects.filter(project=place.project).values_list("name", "kind"))
    rows = []
    for name in sorted(set(specs) | set(replicas)):
        spec = specs.get(name)
        mine = replicas[name]
        current = [r for r in mine if r.wanted != Replica.Wanted.DRAIN]
        wanted = int(cell.scale.get(name, spec.replicas if spec else len(current)))
        if following := states.get(name):
            wanted = min(max(wanted, following.scaling.least), following.scaling.most)
        serving = sum(
            1 for r in mine if r.wanted == Replica.Wanted.SERVE and r.phase == Replica.Phase.HEALTHY
        )
        tone, word = _component_state(spec.kind if spec else "", serving, wanted, current)
        workload = workloads.get(name)
        rows.append(
            ComponentRow(
                name=name,
                kind=spec.kind if spec else kinds.get(name, "service"),
                tone=tone,
                word=word,
                serving=serving,
                wanted=wanted,
                identity=workload.identity if workload else 0,
                hosts=sorted(hosts[name]),
                spec=spec,
                replicas=mine,
                following=following,
            )
        )
    return rows


def _component_state(kind: str, serving: int, wanted: int, replicas: list[Replica]) -> tuple[str, str]:
    """Tone and word of a component."""
    if kind in ENDING:
        return "idle", ENDING[kind]
    if wanted == 0:
        return "idle", "Scaled to none"
    if serving >= wanted:
        return "ok", f"{serving} of {wanted} serving"
    phases = {replica.phase for replica in replicas}
    if serving:
        return "warn", f"{serving} of {wanted} serving"
    if phases & {Replica.Phase.PENDING, Replica.Phase.STARTING} and Replica.Phase.FAILED not in phases:
        return "busy", "Starting"
    return "bad", "Down"


def cell_state(rows: list[ComponentRow], cell: Cell, newest: Deployment | None) -> str:
    """One word for a cell, a key of the looks of kind ``cell``."""
    if cell.serving_release_id is None:
        if newest is None:
            return "empty"
        return "deploying" if newest.state not in Deployment.ENDED else "failed"
    tones = {row.tone for row in rows}
    if "bad" in tones:
        return "down"
    return "degraded" if tones & {"warn", "busy"} else "serving"


def is_strict(place: Place) -> bool:
    """Whether only declared connections pass within the cell: by the project's setting or what serves."""
    assert place.cell is not None
    release = place.cell.serving_release
    return place.project.strict or bool(release and release.specification.get("strict"))  # type: ignore[union-attr]


def _traffic(cell: Cell, now: datetime) -> list[dict]:
    """What was seen lately, summed over minutes for each pair of ends."""
    keys = ("source", "destination", "remote", "port", "protocol", "direction", "verdict", "reason")
    seen = Edge.objects.filter(cell=cell, last_at__gte=now - SEEN)
    rows = seen.values(*keys).annotate(
        packets=Sum("packets"), bytes=Sum("bytes"), last_at=Max("last_at"), rule=Max("rule")
    )
    recent = {
        tuple(row[key] for key in keys): row["recent"]
        for row in seen.filter(minute__gte=now - timedelta(minutes=RATE_MINUTES))
        .values(*keys)
        .annotate(recent=Sum("packets"))
    }
    found = list(rows)
    for row in found:
        row["rate"] = recent.get(tuple(row[key] for key in keys), 0) / (RATE_MINUTES * 60)
    return found


def component_traffic(cell: Cell, identity: int, now: datetime | None = None) -> tuple[list[int], list[int]]:
    """Packets of each of the last minutes to and from a component, allowed and refused, oldest first."""
    now = (now or timezone.now()).replace(second=0, microsecond=0)
    minutes = int(SEEN.total_seconds() // 60)
    start = now - timedelta(minutes=minutes - 1)
    rows = (
        Edge.objects.filter(cell=cell, minute__gte=start)
        .filter(Q(source=identity) | Q(destination=identity))
        .values("minute", "verdict")
        .annotate(packets=Sum("packets"))
    )
    allowed, refused = [0] * minutes, [0] * minutes
    for row in rows:
        index = int((row["minute"] - start).total_seconds() // 60)
        if 0 <= index < minutes:
            (refused if row["verdict"] == DENY else allowed)[index] += row["packets"]
    return allowed, refused


def picture(place: Place, rows: list[ComponentRow] | None = None, now: datetime | None = None) -> Picture:
    """The cell with all its edges, ready to be laid out."""
    cell = place.cell
    assert cell is not None
    rows = component_rows(place) if rows is None else rows
    now = now or timezone.now()
    traffic = _traffic(cell, now)
    identities = {row["source"] for row in traffic} | {row["destination"] for row in traffic}
    names = Names(cell, place.tenant.pk, place.url, identities | {row.identity for row in rows})
    ends = {
        row.name: End(
            f"w{row.identity}",
            row.name,
            INSIDE,
            row.kind,
            url=f"{place.url}/components/{row.name}",
            ref=row.name,
        )
        for row in rows
    }
    edges: dict[tuple, EdgeView] = {}
    declared = _add_declared(edges, place, rows, ends)
    _add_seen(edges, cell, names, traffic, declared)
    for edge in edges.values():
        edge.why_url = _why_url(place, edge)
    known = {end.key for end in ends.values()}
    nodes = [Node(ends[row.name], row.tone, row.word) for row in rows]
    for edge in edges.values():  # something that isn't in the release any more but was seen
        for end in (edge.source, edge.destination):
            if end.side == INSIDE and end.key not in known:
                known.add(end.key)
                nodes.append(Node(end, "idle", "Gone"))
    order = sorted(
        edges.values(), key=lambda e: (not e.denied, not e.audited, e.source.name, e.destination.name, e.port)
    )
    name = f"{place.project} · {place.environment}"
    return Picture(name, nodes, order)


def _add_declared(
    edges: dict, place: Place, rows: list[ComponentRow], ends: dict[str, End]
) -> dict[tuple[str, str], EdgeView]:
    """Edges that a declaration opens, whether or not anything has used them.

    Returns those to other components by source and target (``project/component``).
    """
    declared: dict[tuple[str, str], EdgeView] = {}
    internet = End("north", "Internet", NORTH, "internet")
    for row in rows:
        if row.spec is None:
            continue
        for endpoint in row.spec.endpoints:
            if endpoint.visibility == "public":
                _put(edges, EdgeView(
                    internet, ends[row.name], endpoint.port, "tcp", declared=True,
                    sentence=f"Public as {', '.join(row.hosts) or 'a host name'}, through the north gateway.",
                ))  # fmt: skip
        for connection in row.spec.connections:
            if connection.external:
                end = End(
                    f"declared:{connection.external}", connection.external, SOUTH, "external", connection.name
                )
                _put(edges, EdgeView(
                    ends[row.name], end, connection.port, connection.protocol, declared=True,
                    sentence=f"Declared as the external connection {connection.name}.",
                ))  # fmt: skip
                continue
            target = _target(connection.to, place, rows)
            if target is None:
                continue
            name, project, port, protocol = target
            if project == place.project.slug and name in ends:  # type: ignore[union-attr]
                end = ends[name]
            else:
                end = _neighbour(place, project, name)
            declared[(ends[row.name].key, f"{project}/{name}:{port}")] = _put(edges, EdgeView(
                ends[row.name], end, port, protocol, declared=True,
                sentence=f"Declared as the connection {connection.name or connection.to}.",
            ))  # fmt: skip
    return declared


def _target(to: str, place: Place, rows: list[ComponentRow]) -> tuple[str, str, int, str] | None:
    """Component, project, port and protocol of ``project/component.endpoint`` as far as it is known."""
    path, _, endpoint = to.partition(".")
    project, _, name = path.rpartition("/")
    project = project or place.project.slug  # type: ignore[union-attr]
    specs = {row.name: row.spec for row in rows}
    if project != place.project.slug:  # type: ignore[union-attr]
        cell = (
            Cell.objects.filter(
                project__tenant=place.tenant, project__slug=project, environment=place.environment
            )
            .select_related("serving_release")
            .first()
        )
        if cell is None or cell.serving_release is None:
            return name, project, 0, "tcp"
        specs = dict(specification.components(cell.serving_release.specification))
    spec = specs.get(name)
    for candidate in spec.endpoints if spec else ():
        if not endpoint or candidate.name == endpoint:
            number = PROTOCOLS.get(candidate.protocol, 6)
            return name, project, candidate.port, formats.protocol(number)
    return (name, project, 0, "tcp") if spec or project != place.project.slug else None  # type: ignore[union-attr]


def _neighbour(place: Place, project: str, name: str) -> End:
    """A component of another cell of the same tenant and environment."""
    workload = Workload.objects.filter(
        cell__project__tenant=place.tenant,
        cell__project__slug=project,
        cell__environment=place.environment,
        component__name=name,
    ).first()
    key = f"w{workload.identity}" if workload else f"declared:{project}/{name}"
    url = f"{place.tenant_url}/{project}/{place.environment}/components/{name}" if workload else ""
    return End(key, name, "east", "service", project, url)


def _why_url(place: Place, edge: EdgeView) -> str:
    """The page that explains a refused or audited edge; none where the other end is another tenant's."""
    source, destination = edge.source.ref, edge.destination.ref
    if edge.verdict == "allowed" or not source or not destination or edge.source.kind == "external":
        return ""
    asked = {
        "cell": f"{place.project}/{place.environment}",
        "source": source,
        "destination": destination,
        "port": "" if edge.reason == NAME else edge.port or "",
        # Of a name that was asked for, neither port nor protocol is known.
        "protocol": "" if edge.reason == NAME else _SPOKEN.get(edge.protocol, ""),
    }
    return f"{place.tenant_url}/-/why?{urlencode(asked)}"


def _put(edges: dict, edge: EdgeView) -> EdgeView:
    """Add an edge, or give back the one that is there for the same ends, port and verdict."""
    key = (edge.source.key, edge.destination.key, edge.port, edge.protocol, edge.verdict)
    return edges.setdefault(key, edge)


def _add_seen(
    edges: dict, cell: Cell, names: Names, traffic: list[dict], declared: dict[tuple[str, str], EdgeView]
) -> None:
    """Edges that the kernel saw. A call through the gateway counts for the connection that it is."""
    listeners = dict(Connection.objects.filter(workload__cell=cell).values_list("listener_port", "key"))
    declared_networks = {
        e.destination.name: e.destination for e in edges.values() if e.destination.side == SOUTH
    }
    targets = declared_targets(cell, {row["rule"] for row in traffic})
    for row in traffic:
        allowed = row["verdict"] == ALLOW
        quiet_ends = {IDENTITY_RESOLVER, IDENTITY_NODE}
        if allowed and quiet_ends & {row["source"], row["destination"]}:
            continue  # name look-ups and the agent's own health checks
        if allowed and row["source"] == cell.gateway_identity:
            continue  # already counted where the consumer entered the gateway
        port, through = row["port"], ""
        if row["destination"] == cell.gateway_identity:
            through = listeners.get(port, "")
        outgoing = bool(names.component(row["source"])) or row["direction"] == EGRESS
        source = names.end(row["source"], "" if outgoing else row["remote"], outgoing=False)
        destination = names.end(row["destination"], row["remote"] if outgoing else "", outgoing=True)
        protocol = formats.protocol(row["protocol"])
        if through:
            target = through.partition(".")[0]
            for (key, where), edge in declared.items():
                if key == source.key and where.rpartition(":")[0] == target:
                    destination, port, protocol = edge.destination, edge.port, edge.protocol
        known = declared_networks.get(targets.get(row["rule"], "")) if outgoing else None
        if allowed and known is not None:
            destination = known
        elif destination.kind == "external" and allowed:
            destination = _network_of(destination, declared_networks)
        denied, audited = row["verdict"] == DENY, row["verdict"] == AUDIT
        edge = _put(edges, EdgeView(source, destination, port, protocol, denied=denied, audited=audited))
        edge.via_gateway = edge.via_gateway or bool(through)
        # Both ends of an edge inside the cell count it: take the larger, don't add.
        inside = source.side == INSIDE and destination.side == INSIDE
        if inside and edge.packets:
            edge.rate, edge.packets = max(edge.rate, row["rate"]), max(edge.packets, row["packets"])
            edge.bytes = max(edge.bytes, row["bytes"])
        else:
            edge.rate += row["rate"]
            edge.packets += row["packets"]
            edge.bytes += row["bytes"]
        edge.last_at = max(filter(None, (edge.last_at, row["last_at"])))
        edge.rule = row["rule"] or edge.rule
        if not allowed:
            edge.reason = edge.reason or row["reason"]
            edge.sentence = REASON_SENTENCES.get(edge.reason, edge.reason)
            if audited:
                edge.sentence = f"{edge.sentence} It passed, since the project is in audit."
            if "stranger" in (source.kind, destination.kind):
                edge.sentence = STRANGER if destination.kind == "stranger" else STRANGER_CALLS


def _network_of(end: End, declared: dict[str, End]) -> End:
    """The declared network that an address belongs to, so that both are one end of the picture."""
    try:
        address = ipaddress.ip_address(end.name)
    except ValueError:
        return end
    for name, network_end in declared.items():
        try:
            if address in ipaddress.ip_network(name, strict=False):
                return network_end
        except ValueError:
            continue
    return end
