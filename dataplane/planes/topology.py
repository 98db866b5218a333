"""From rows to the boundary compiler's input."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from cells.boundary import model
from cells.specification import Component, Specification
from dataplane import addresses
from dataplane.planes import network, reading
from dataplane.planes.models import Plane
from dataplane.planes.ranges import config_of
from dataplane.planes.reading import Rows
from delivery.models import Replica
from infra.config import Config
from projects.models import Cell, Workload

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: What no declaration opens on any node; the node adds its own addresses.
FLOOR: tuple[tuple[str, str], ...] = tuple(
    (network, "FLOOR")
    for network in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/127",
        "fe80::/10",
        "ff00::/8",
        # Ways to write an IPv4 address in an IPv6 one, which something on the way may translate back.
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
    )
)

#: Networks that nobody's internet is: the operator's own, carriers', and where clouds answer who one is.
#: An operator may open some of them (``open_networks``); what isn't opened is floor.
PRIVATE: tuple[str, ...] = (
    "10.0.0.0/8",
    "100.64.0.0/10",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "192.0.0.0/24",
    "168.63.129.16/32",
    "fc00::/7",
)
#: Never, whatever is opened: metadata services inside private ranges.
METADATA: tuple[str, ...] = ("100.100.100.200/32", "fd00:ec2::254/128", "fd20:ce::254/128")


def _parse(document: dict) -> Specification:
    return Specification.from_dict(document)


@dataclass(frozen=True)
class _InForce:
    """What a cell's releases declare: the one that serves, the one on its way, those that drain."""

    serving: Specification
    coming: dict[str, Component]
    leaving: dict[str, Component]

    def component(self, name: str) -> Component | None:
        """A component as it is now. One that nothing replaces is there until it has drained."""
        declared = self.serving.components.get(name) or self.coming.get(name)
        old = self.leaving.get(name)
        if declared is None or old is None:
            return declared or old
        # Requests are on their way to what was public, while the gateway moves its host elsewhere.
        kept = {}
        for key, before in old.endpoints.items():
            now = declared.endpoints.get(key)
            if now and before == replace(now, visibility="public", host=before.host):
                kept[key] = replace(now, visibility="public")
        return replace(declared, endpoints={**declared.endpoints, **kept})


def _in_force(cell: Cell, incoming: dict[int, dict], leaving: dict[str, Component]) -> _InForce:
    serving = _parse(cell.serving_release.specification) if cell.serving_release else None
    coming = _parse(incoming[cell.pk]) if cell.pk in incoming else None
    if serving is None:
        return _InForce(coming or Specification(components={}), {}, leaving)
    return _InForce(serving, coming.components if coming else {}, leaving)


def _draining(rows: Rows) -> dict[int, dict[str, Component]]:
    """Cell → the components whose replicas finish what they still answer, as their release declares them."""
    found: dict[int, dict[str, Component]] = defaultdict(dict)
    leaving = {
        (replica.release.number, replica.workload_id): replica
        for replica in rows.replicas
        if replica.wanted == Replica.Wanted.DRAIN
    }
    for _, replica in sorted(leaving.items()):
        name = replica.workload.component.name
        component = _parse(replica.release.specification).components.get(name)
        if component:
            found[replica.workload.cell_id][name] = component
    return found


def build(plane: Plane, config: Config | None = None) -> model.Topology:
    """All cells of the plane as they are meant to be now."""
    config = config or config_of(plane)
    return replace(platform(config), cells=tuple(declared(rows(plane), config)))


def rows(plane: Plane, numbers: Collection[int] | None = None) -> Rows:
    """Cells of the plane, those with the numbers if given, with all that is theirs."""
    return reading.read(plane, numbers)


def declared(rows: Rows, config: Config, known: Iterable[model.Cell] = ()) -> list[model.Cell]:
    """Cells as they are meant to be now. They may be connected to each other and to those ``known``."""
    cells = rows.cells
    replicas: dict[int, list[model.Replica]] = defaultdict(list)
    for replica in rows.replicas:
        pair = addresses.workload(config, replica.address_index)
        serving = replica.wanted == Replica.Wanted.SERVE
        replicas[replica.workload_id].append(
            model.Replica(f"r{replica.pk}", pair.v4, pair.v6, serving, network.weight(replica))
        )
    leaving = _draining(rows)
    specifications = {cell.pk: _in_force(cell, rows.incoming, leaving.get(cell.pk, {})) for cell in cells}
    targets = _known(known) | _targets(rows, specifications)
    compiled = []
    for cell in cells:
        gateway = addresses.cell_gateway(config, cell.gateway_index)
        compiled.append(
            model.Cell(
                number=cell.number,
                tenant=cell.project.tenant_id,
                tenant_name=cell.project.tenant.slug,
                project=cell.project.slug,
                environment=cell.environment.name,
                rule=cell.rule,
                gateway_identity=cell.gateway_identity,
                gateway4=gateway.v4,
                gateway6=gateway.v6,
                strict=cell.project.strict or specifications[cell.pk].serving.strict,
                audit=cell.project.audit,
                workloads=tuple(
                    made
                    for row in sorted(rows.workloads[cell.pk], key=lambda w: w.identity)
                    if (made := _workload(config, rows, row, specifications[cell.pk], targets, replicas))
                ),
            )
        )
    return compiled


def platform(config: Config) -> model.Topology:
    """A plane without cells: what is the installation's own."""
    north = addresses.workload(config, addresses.GATEWAY_NORTH)
    resolver = addresses.workload(config, addresses.RESOLVER)
    index = addresses.workload(config, addresses.INDEX_PROXY)
    door = addresses.service(config, addresses.PUBLIC_DOOR_SERVICE)
    own = tuple(
        (str(network), "FLOOR")
        for network in (config.workloads4, config.services4, config.workloads6, config.services6)
    )
    return model.Topology(
        cells=(),
        north4=north.v4,
        north6=north.v6,
        north_port=addresses.NORTH_HTTP_PORT,
        public_ports=tuple(sorted({80, config.apps_port})),
        door4=door.v4,
        door6=door.v6,
        resolver4=resolver.v4,
        resolver6=resolver.v6,
        index4=index.v4,
        index6=index.v6,
        index_port=addresses.INDEX_PROXY_PORT,
        apps_domain=config.apps_domain,
        floor=FLOOR + floor_of_private(config) + own,
    )


def floor_of_private(config: Config) -> tuple[tuple[str, str], ...]:
    """Private networks as floor entries, but for those that the operator opened, as a whole or in parts."""
    found: list[str] = list(METADATA)
    for text in PRIVATE:
        rest = [ipaddress.ip_network(text)]
        for opened in config.opened:
            rest = [part for network in rest for part in _without(network, opened)]
        found += map(str, rest)
    return tuple((text, "FLOOR") for text in found)


def _without(network: Network, opened: Network) -> list[Network]:
    if network.version != opened.version or not network.overlaps(opened):
        return [network]
    if network.subnet_of(opened):  # type: ignore[arg-type]
        return []
    return list(network.address_exclude(opened))  # type: ignore[arg-type]


def _known(cells: Iterable[model.Cell]) -> dict[tuple, tuple[int, list[str]]]:
    return {
        (cell.tenant, cell.environment, cell.project, workload.name): (
            workload.identity,
            [endpoint.name for endpoint in workload.endpoints],
        )
        for cell in cells
        for workload in cell.workloads
    }


def _targets(rows: Rows, specifications: dict) -> dict[tuple, tuple[int, list[str]]]:
    """(tenant, environment, project, component) → (identity, names of its endpoints)."""
    found = {}
    for cell in rows.cells:
        for row in rows.workloads[cell.pk]:
            name = row.component.name
            declared = specifications[cell.pk].component(name)
            if declared:
                key = (cell.project.tenant_id, cell.environment.name, cell.project.slug, name)
                numbered = {endpoint.name for endpoint in rows.endpoints[row.pk]}
                found[key] = (row.identity, [key for key in declared.endpoints if key in numbered])
    return found


def _workload(
    config: Config,
    rows: Rows,
    row: Workload,
    specification: _InForce,
    targets: dict,
    replicas: dict[int, list[model.Replica]],
) -> model.Workload | None:
    cell, name = row.cell, row.component.name
    declared = specification.component(name)
    if declared is None:
        return None
    pair = addresses.service(config, row.service_index)
    known = {endpoint.name: endpoint for endpoint in rows.endpoints[row.pk]}
    endpoints = []
    for key, endpoint in declared.endpoints.items():
        if key not in known:
            continue
        hosts = tuple(sorted(host.name for host in rows.hosts[known[key].pk]))
        endpoints.append(
            model.Endpoint(
                rule=known[key].rule,
                name=key,
                port=endpoint.port,
                protocol=endpoint.protocol,
                visibility=endpoint.visibility,
                hosts=hosts if endpoint.visibility == "public" else (),
                callers=endpoint.callers,
                balance=endpoint.balance,
                affinity=endpoint.affinity,
            )
        )
    numbers = {connection.key: connection for connection in rows.connections[row.pk]}
    connections = {}
    # What starts may call what it declares before it serves; the union goes back with the switch.
    for component in (declared, specification.coming.get(name)):
        for connection in component.connections if component else ():
            if connection.key in numbers:
                made = _connection(cell, row, connection, numbers[connection.key], targets)
                if made is not None:
                    connections[connection.key] = made
    return model.Workload(
        identity=row.identity,
        name=name,
        service4=pair.v4,
        service6=pair.v6,
        endpoints=tuple(endpoints),
        connections=tuple(connections.values()),
        replicas=tuple(_running(specification, name, replicas.get(row.pk, []))),
        limits=network.limits(declared, cell.project.tenant.plan),
        ping=declared.ping,
    )


def _running(specification: _InForce, name: str, known: list[model.Replica]) -> list[model.Replica]:
    """Who answers: what drains too where nobody takes its place, so that the gateway can move first."""
    if name in specification.serving.components or any(replica.serving for replica in known):
        return known
    if name not in specification.leaving:
        return known
    return [replace(replica, serving=True) for replica in known]


def _connection(cell: Cell, row: Workload, connection, number, targets: dict) -> model.Connection | None:  # type: ignore[no-untyped-def]
    if connection.external is not None:
        e = connection.external
        external = model.External(port=e.port, protocol=e.protocol, cidr=e.cidr, host=e.host)
        return model.Connection(
            rule=number.rule,
            name=connection.name,
            external=external,
            listener_port=row.door_port or 0,
        )
    project, _, rest = connection.to.partition("/")
    component, _, endpoint = rest.partition(".")
    found = targets.get((cell.project.tenant_id, cell.environment.name, project, component))
    if found is None or not found[1]:
        return None
    return model.Connection(
        rule=number.rule,
        name=connection.name,
        provider=found[0],
        endpoint=endpoint or found[1][0],
        listener_port=number.listener_port,
    )
