"""Everything that desired state of some cells is made of, by one question to the database.

A change waits for each answer of the database, and on a busy machine each is another turn to wait for.
So the rows of a cell come together, as JSON, and become the same model instances that one question for
each table would give. What JSON can't carry as it is (times, bytes) is deferred in them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from django.db import connection, models

from dataplane.planes.asking import ask
from dataplane.planes.models import Plane
from delivery.models import Deployment, Release, Replica
from projects.models import Cell, Component, Connection, Endpoint, Environment, Host, Project, Workload
from tenants.models import Plan, Tenant

M = TypeVar("M", bound=models.Model)
RUNNING = ("run", "serve", "drain", "once")
UNDERWAY = ("building", "starting", "switching", "draining")
#: Cells in one question, where it is about all.
_AT_ONCE = 200

_CELLS = """
SELECT json_build_object(
  'cell', row_to_json(c), 'project', row_to_json(p), 'environment', row_to_json(e),
  'tenant', row_to_json(t), 'plan', row_to_json(l),
  'location', (SELECT z.location FROM provisioning_place z
    WHERE z.cell_id = c.id AND z.plane_id = e.plane_id AND z.wanted),
  'workloads', (SELECT json_agg(row_to_json(w)) FROM projects_workload w WHERE w.cell_id = c.id),
  'components', (SELECT json_agg(row_to_json(k)) FROM projects_component k WHERE k.project_id = p.id),
  'endpoints', (SELECT json_agg(row_to_json(o)) FROM projects_endpoint o
    JOIN projects_workload w ON w.id = o.workload_id WHERE w.cell_id = c.id),
  'hosts', (SELECT json_agg(row_to_json(h)) FROM projects_host h WHERE h.cell_id = c.id),
  'connections', (SELECT json_agg(row_to_json(k)) FROM projects_connection k
    JOIN projects_workload w ON w.id = k.workload_id WHERE w.cell_id = c.id),
  'replicas', (SELECT json_agg(row_to_json(r) ORDER BY r.id) FROM delivery_replica r
    JOIN projects_workload w ON w.id = r.workload_id WHERE w.cell_id = c.id AND r.wanted = ANY(%(running)s::text[])),
  'deployments', (SELECT json_agg(row_to_json(d) ORDER BY d.id DESC) FROM delivery_deployment d
    WHERE d.cell_id = c.id AND d.state = ANY(%(underway)s::text[]) AND d.release_id IS NOT NULL),
  'releases', (SELECT json_agg(json_build_object('id', r.id, 'cell_id', r.cell_id, 'number', r.number,
      'specification', r.specification, 'images', r.images)) FROM delivery_release r
    WHERE r.id = c.serving_release_id
      OR r.id IN (SELECT d.release_id FROM delivery_deployment d
        WHERE d.cell_id = c.id AND d.state = ANY(%(underway)s::text[]))
      OR r.id IN (SELECT s.release_id FROM delivery_replica s JOIN projects_workload w ON w.id = s.workload_id
        WHERE w.cell_id = c.id AND s.wanted = ANY(%(running)s::text[])))
)::text
FROM projects_cell c JOIN projects_project p ON p.id = c.project_id
JOIN projects_environment e ON e.id = c.environment_id
JOIN tenants_tenant t ON t.id = p.tenant_id JOIN tenants_plan l ON l.id = t.plan_id
WHERE e.plane_id = %(plane)s::bigint AND c.number = ANY(%(numbers)s::bigint[])
ORDER BY c.number
"""

#: Of changed cells: their units, and the facts of those that they may call, that may call them (by what
#: was ever declared: of more, never of fewer), and, where one is in audit, of those that it could reach.
_SURROUNDINGS = """
WITH own AS (
  SELECT c.id, c.number, c.environment_id, p.slug, p.audit, p.tenant_id, e.name
  FROM projects_cell c JOIN projects_project p ON p.id = c.project_id
  JOIN projects_environment e ON e.id = c.environment_id
  WHERE e.plane_id = %(plane)s::bigint AND c.number = ANY(%(numbers)s::bigint[])
), beside AS (
  SELECT unnest(%(numbers)s::bigint[]) AS number
  UNION SELECT c.number FROM own JOIN projects_workload w ON w.cell_id = own.id
    JOIN projects_connection k ON k.workload_id = w.id
    JOIN projects_project p ON p.tenant_id = own.tenant_id AND p.slug = split_part(k.key, '/', 1)
    JOIN projects_cell c ON c.project_id = p.id AND c.environment_id = own.environment_id
  UNION SELECT c.number FROM own JOIN projects_cell c ON c.environment_id = own.environment_id
    JOIN projects_workload w ON w.cell_id = c.id
    JOIN projects_connection k ON k.workload_id = w.id AND split_part(k.key, '/', 1) = own.slug
  UNION SELECT u.number FROM own JOIN planes_unit u
    ON u.plane_id = %(plane)s::bigint AND u.tenant = own.tenant_id AND u.environment = own.name
    AND (u.audit OR own.audit)
)
SELECT u.number, u.facts::text, u.number = ANY(%(numbers)s::bigint[]),
  CASE WHEN u.number = ANY(%(numbers)s::bigint[]) THEN u.document::text END
FROM planes_unit u JOIN beside b ON b.number = u.number WHERE u.plane_id = %(plane)s::bigint
"""


@dataclass
class Rows:
    """Cells in the order of their numbers, with what was read beside them.

    Cells know their project (with tenant and plan), environment and serving release; workloads their
    cell and component; replicas their workload and release.
    """

    cells: list[Cell] = field(default_factory=list)
    #: Cell → its workloads.
    workloads: dict[int, list[Workload]] = field(default_factory=lambda: defaultdict(list))
    #: Workload → its endpoints and its connections; endpoint → its hosts.
    endpoints: dict[int, list[Endpoint]] = field(default_factory=lambda: defaultdict(list))
    connections: dict[int, list[Connection]] = field(default_factory=lambda: defaultdict(list))
    hosts: dict[int, list[Host]] = field(default_factory=lambda: defaultdict(list))
    #: Replicas that run, by their keys.
    replicas: list[Replica] = field(default_factory=list)
    #: Cell → the specification that is on its way into it.
    incoming: dict[int, dict[str, Any]] = field(default_factory=dict)
    #: Cell's number → the name of its place, on a plane where it has one.
    locations: dict[int, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.cells)


def read(plane: Plane, numbers: Collection[int] | None = None) -> Rows:
    """Cells of the plane, those with the numbers if given."""
    if numbers is None:
        known = Cell.objects.filter(environment__plane=plane).order_by("number")
        numbers = list(known.values_list("number", flat=True))
    rows, wanted = Rows(), sorted(numbers)
    for start in range(0, len(wanted), _AT_ONCE):
        for document in _asked(plane, wanted[start : start + _AT_ONCE]):
            _take(rows, document)
    rows.replicas.sort(key=lambda replica: replica.pk)
    return rows


def _asked(plane: Plane, numbers: list[int]) -> Iterator[dict[str, Any]]:
    parameters = {
        "plane": plane.pk,
        "numbers": numbers,
        "running": list(RUNNING),
        "underway": list(UNDERWAY),
    }
    for (text,) in ask(_CELLS, parameters):
        yield json.loads(text)


def surroundings(plane: Plane, numbers: Collection[int]) -> tuple[dict[int, Any], dict[int, Any]]:
    """Number → facts of the units of changed cells and of what may be beside them; → documents of their own."""
    found = ask(_SURROUNDINGS, {"plane": plane.pk, "numbers": sorted(numbers)})
    facts = {number: json.loads(text) if text else None for number, text, _, _ in found}
    return facts, {number: json.loads(text) if text else None for number, _, own, text in found if own}


def _take(rows: Rows, document: dict[str, Any]) -> None:
    """One cell with all that is its own."""
    cell = _instance(Cell, document["cell"])
    cell.project = _instance(Project, document["project"])
    cell.project.tenant = _instance(Tenant, document["tenant"])
    cell.project.tenant.plan = _instance(Plan, document["plan"])
    cell.environment = _instance(Environment, document["environment"])
    releases = _by_key(Release, document["releases"])
    if cell.serving_release_id is not None:
        cell.serving_release = releases[cell.serving_release_id]
    rows.cells.append(cell)
    if document["location"] is not None:
        rows.locations[cell.number] = document["location"]
    components = _by_key(Component, document["components"])
    workloads = _by_key(Workload, document["workloads"])
    for workload in workloads.values():
        workload.cell, workload.component = cell, components[workload.component_id]
        rows.workloads[cell.pk].append(workload)
    for endpoint in _by_key(Endpoint, document["endpoints"]).values():
        rows.endpoints[endpoint.workload_id].append(endpoint)
    for host in _by_key(Host, document["hosts"]).values():
        if host.endpoint_id is not None:
            rows.hosts[host.endpoint_id].append(host)
    for declared in _by_key(Connection, document["connections"]).values():
        rows.connections[declared.workload_id].append(declared)
    for replica in _by_key(Replica, document["replicas"]).values():
        replica.workload, replica.release = workloads[replica.workload_id], releases[replica.release_id]
        rows.replicas.append(replica)
    for deployment in _by_key(Deployment, document["deployments"]).values():
        rows.incoming[cell.pk] = releases[deployment.release_id].specification


def _by_key(kind: type[M], documents: list[dict[str, Any]] | None) -> dict[int, M]:
    return {document["id"]: _instance(kind, document) for document in documents or ()}


def _instance(kind: type[M], document: dict[str, Any]) -> M:
    # A class can be a key; mypy doubts it of one that is known by a variable.
    names = [name for name in _carried(kind) if name in document]  # type: ignore[arg-type]
    return kind.from_db(connection.alias, names, [document[name] for name in names])


@cache
def _carried(kind: type[models.Model]) -> tuple[str, ...]:
    """Columns whose values are in JSON what they are in Python."""
    apart = (models.DateTimeField, models.BinaryField)
    return tuple(f.attname for f in kind._meta.concrete_fields if not isinstance(f, apart))
