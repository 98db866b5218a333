"""REST API of planes and nodes, for platform admins."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema

from controlplane.errors import not_found
from dataplane.planes import enrolment
from dataplane.planes.models import Node, Plane
from tenants.api import actor_of
from tenants.policy import authorise_platform

router = Router()


class NewToken(Schema):
    kind: str = "agent"


def node_out(node: Node) -> dict[str, Any]:
    return {
        "id": node.pk,
        "kind": node.kind,
        "name": node.name,
        "last_seen_at": node.last_seen_at,
        "acknowledged": node.acknowledged,
        "healthy": bool(node.health.get("healthy")) if node.kind == Node.Kind.AGENT else True,
        "problems": node.health.get("problems", []),
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
