"""REST API of planes and nodes, for platform admins."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema

from cells.provisioning import actions as provisioning
from cells.provisioning import queries as places
from cells.provisioning.models import Place
from controlplane.errors import not_found
from dataplane.planes import edge, enrolment, kubernetes
from dataplane.planes.models import DeniedNetwork, Node, Plane
from tenants import signin
from tenants.api import actor_of
from tenants.policy import authorise_platform

router = Router()


class NewToken(Schema):
    kind: str = "agent"


class NewPlane(Schema):
    """A cluster that workers drive directly. ``owner``: a tenant's slug for a private one."""

    name: str
    kubeconfig: str
    owner: str = ""


class NewKubeconfig(Schema):
    kubeconfig: str


class Binding(Schema):
    plane: str


class Denial(Schema):
    """``seconds``: how long, none for ever. ``force``: even if it may not be what is meant."""

    network: str
    reason: str
    seconds: int | None = None
    force: bool = False


def denied_out(row: DeniedNetwork) -> dict[str, Any]:
    return {
        "network": row.network,
        "reason": row.reason,
        "by": row.created_by,
        "since": row.created_at,
        "until": row.expires_at,
    }


def place_out(place: Place) -> dict[str, Any]:
    return {
        "location": place.location,
        "tenant": place.tenant,
        "project": place.project,
        "environment": place.environment,
        "wanted": place.wanted,
        "state": place.state,
        "state_since": place.state_since,
        "revision": place.revision,
        "problems": place.problems,
        "error": place.error_code or None,
        "checked_at": place.checked_at,
        "next_at": place.next_at,
    }


def node_out(node: Node) -> dict[str, Any]:
    return {
        "id": node.pk,
        "kind": node.kind,
        "name": node.name,
        "last_seen_at": node.last_seen_at,
        "acknowledged": node.acknowledged,
        "healthy": bool(node.health.get("healthy")) if node.kind == Node.Kind.AGENT else True,
        "problems": node.health.get("problems", []),
        "edge": node.health.get("edge"),
        "facts": node.facts,
    }


def plane_out(plane: Plane) -> dict[str, Any]:
    return {
        "name": plane.name,
        "engine": plane.engine,
        "owner": plane.owner.slug if plane.owner else None,
        "generation": plane.generation,
        "nodes": [node_out(node) for node in plane.nodes.all()],
    }


@router.get("/planes", operation_id="list_planes", summary="Data planes and their nodes (platform admins)")
def list_planes(request: HttpRequest) -> list[dict[str, Any]]:
    authorise_platform(actor_of(request))
    return [
        plane_out(p) for p in Plane.objects.select_related("owner").prefetch_related("nodes").order_by("name")
    ]


@router.post(
    "/planes/{name}/enrolment-tokens", operation_id="create_enrolment_token", summary="A one-time token"
)
def create_enrolment_token(request: HttpRequest, name: str, body: NewToken) -> dict[str, Any]:
    authorise_platform(actor_of(request))
    plane = Plane.objects.filter(name=name).first()
    if plane is None or body.kind not in Node.Kind.values:
        raise not_found("plane")
    return {"token": enrolment.create_token(body.kind, plane if body.kind == Node.Kind.AGENT else None)}


@router.post("/nodes/{number}/revoke", operation_id="revoke_node", summary="Close a node's certificates")
def revoke_node(request: HttpRequest, number: int) -> dict[str, Any]:
    actor = actor_of(request)
    authorise_platform(actor)
    node = Node.objects.filter(pk=number).first()
    if node is None:
        raise not_found("node")
    enrolment.revoke(actor.name, node)
    return {}


@router.post(
    "/planes", operation_id="create_kubernetes_plane", summary="A Kubernetes plane from a kubeconfig"
)
def create_kubernetes_plane(request: HttpRequest, body: NewPlane) -> dict[str, Any]:
    plane, version = kubernetes.create_plane(
        acting_user=actor_of(request), name=body.name, kubeconfig=body.kubeconfig, owner=body.owner
    )
    return plane_out(plane) | {"version": version}


@router.put(
    "/planes/{name}/kubeconfig", operation_id="replace_kubeconfig", summary="Other credentials for a cluster"
)
def replace_kubeconfig(request: HttpRequest, name: str, body: NewKubeconfig) -> dict[str, Any]:
    plane, version = kubernetes.replace_kubeconfig(
        acting_user=actor_of(request), name=name, kubeconfig=body.kubeconfig
    )
    return plane_out(plane) | {"version": version}


@router.get("/planes/{name}/places", operation_id="list_places", summary="Cells' places on a plane")
def list_places(request: HttpRequest, name: str) -> list[dict[str, Any]]:
    return [place_out(place) for place in places.places(actor_of(request), name)]


@router.get(
    "/admin/denied", operation_id="list_denied", summary="Networks that may not come (platform admins)"
)
def list_denied(request: HttpRequest) -> list[dict[str, Any]]:
    return [denied_out(row) for row in edge.listing(actor_of(request))]


@router.post("/admin/denied", operation_id="deny_network", summary="Deny a network the public ports")
def deny_network(request: HttpRequest, body: Denial) -> dict[str, Any]:
    row = edge.add(acting_user=actor_of(request), client=signin.address_of(request), **body.dict())
    return denied_out(row)


@router.delete("/admin/denied", operation_id="allow_network", summary="Let a network come again")
def allow_network(request: HttpRequest, network: str) -> dict[str, Any]:
    edge.remove(acting_user=actor_of(request), network=network)
    return {}


@router.put(
    "/tenants/{tenant}/environments/{environment}/plane",
    operation_id="bind_environment",
    summary="Which plane an environment's cells are on",
)
def bind_environment(request: HttpRequest, tenant: str, environment: str, body: Binding) -> dict[str, Any]:
    row = provisioning.bind_environment(
        acting_user=actor_of(request), tenant=tenant, environment=environment, plane=body.plane
    )
    return {"environment": row.name, "plane": row.plane.name if row.plane else None}
