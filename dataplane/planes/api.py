"""REST API of planes and nodes: tenants' owners for their own planes, platform admins for all."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema

from cells.provisioning import actions as provisioning
from cells.provisioning import queries as places
from cells.provisioning.models import Place
from dataplane.planes import edge, kubernetes, presence, private
from dataplane.planes.models import DeniedNetwork, Node, Plane
from tenants import signin
from tenants.api import actor_of

router = Router()


class NewToken(Schema):
    """``kind``: none for what the plane is joined with."""

    kind: str = ""


class NewPlane(Schema):
    """``owner``: a tenant's slug for a private plane.

    With a kubeconfig it is a cluster that workers drive (platform admins only), else one that dials in.
    ``net`` selects its address ranges, 0 to 15; none: the installation's.
    """

    name: str
    engine: str = "kubernetes"
    kubeconfig: str = ""
    owner: str = ""
    net: int | None = None


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
    reports = node.kind in (Node.Kind.AGENT, Node.Kind.CONTROLLER)
    return {
        "id": node.pk,
        "kind": node.kind,
        "name": node.name,
        "last_seen_at": node.last_seen_at,
        "acknowledged": node.acknowledged,
        "online": not presence.silent(node),
        "healthy": bool(node.health.get("healthy")) if reports else True,
        "problems": node.health.get("problems", []),
        "edge": node.health.get("edge"),
        "facts": node.facts,
    }


def plane_out(plane: Plane) -> dict[str, Any]:
    return {
        "name": plane.name,
        "engine": plane.engine,
        "owner": plane.owner.slug if plane.owner else None,
        "driven": "direct" if plane.direct else "pulled",
        "net": plane.net,
        "generation": plane.generation,
        "offline_since": presence.offline_since(plane),
        "nodes": [node_out(node) for node in plane.nodes.all()],
    }


def invitation_out(invitation: private.Invitation) -> dict[str, Any]:
    """Shown once: the token is kept as a digest."""
    return {
        "token": invitation.token,
        "command": invitation.command,
        "expires_at": invitation.expires_at,
        "local": invitation.local,
    }


@router.get("/planes", operation_id="list_planes", summary="Data planes that you can see, and their nodes")
def list_planes(request: HttpRequest) -> list[dict[str, Any]]:
    return [plane_out(p) for p in private.visible(actor_of(request)).prefetch_related("nodes")]


@router.get("/planes/{name}", operation_id="get_plane", summary="A data plane and its nodes")
def get_plane(request: HttpRequest, name: str) -> dict[str, Any]:
    return plane_out(private.owned(actor_of(request), name, "read"))


@router.post(
    "/planes/{name}/enrolment-tokens", operation_id="create_enrolment_token", summary="A one-time token"
)
def create_enrolment_token(request: HttpRequest, name: str, body: NewToken) -> dict[str, Any]:
    return invitation_out(private.invite(acting_user=actor_of(request), name=name, kind=body.kind))


@router.post("/nodes/{number}/revoke", operation_id="revoke_node", summary="Close a node's certificates")
def revoke_node(request: HttpRequest, number: int) -> dict[str, Any]:
    private.revoke_node(acting_user=actor_of(request), number=number)
    return {}


@router.post(
    "/planes/{name}/revoke", operation_id="revoke_plane", summary="Close all certificates of a plane"
)
def revoke_plane(request: HttpRequest, name: str) -> dict[str, Any]:
    return plane_out(private.revoke(acting_user=actor_of(request), name=name))


@router.delete("/planes/{name}", operation_id="remove_plane", summary="Forget a plane where nothing is left")
def remove_plane(request: HttpRequest, name: str, confirm: str = "") -> dict[str, Any]:
    private.remove(acting_user=actor_of(request), name=name, confirm=confirm)
    return {}


@router.post(
    "/planes",
    operation_id="create_plane",
    summary="A plane: one that dials in, with the command that joins it, or a cluster from a kubeconfig",
)
def create_plane(request: HttpRequest, body: NewPlane) -> dict[str, Any]:
    actor = actor_of(request)
    if body.kubeconfig:
        plane, version = kubernetes.create_plane(
            acting_user=actor, name=body.name, kubeconfig=body.kubeconfig, owner=body.owner
        )
        return plane_out(plane) | {"version": version}
    invitation = private.create(
        acting_user=actor, name=body.name, engine=body.engine, owner=body.owner, net=body.net
    )
    return plane_out(invitation.plane) | {"join": invitation_out(invitation)}


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
