"""What a cluster's controller asks and says, beside what every node does. Its own plane alone."""

from __future__ import annotations

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from cells.provisioning import reports
from dataplane.planes import enrolment, presence
from dataplane.planes.agent_views import body, items
from dataplane.planes.identity import node_view
from dataplane.planes.models import Node
from tenants import audit

#: Names of a cluster's nodes.
MOST_NODES = 10000


@csrf_exempt
@require_POST
@node_view(kind=Node.Kind.CONTROLLER)
def node_token(request: HttpRequest, node: Node) -> JsonResponse:
    """A one-time token for the agent of a node of the controller's own plane."""
    name = body(request).get("name")
    return JsonResponse({"token": enrolment.create_node_token(node, name if isinstance(name, str) else "")})


@csrf_exempt
@require_POST
@node_view(kind=Node.Kind.CONTROLLER)
def plane(request: HttpRequest, node: Node) -> JsonResponse:
    """What belongs on the cluster: places of cells, and which of its nodes' agents are heard of.

    ``nodes`` are the names of the nodes that the cluster has. Agents of others, silent, are forgotten.
    """
    document = body(request)
    assert node.plane is not None
    names = document.get("nodes")
    if isinstance(names, list):
        _forget(node, {name for name in names[:MOST_NODES] if isinstance(name, str)})
    agents = node.plane.nodes.filter(kind=Node.Kind.AGENT)
    return JsonResponse(
        {
            "places": reports.wanted(node.plane),
            "agents": [agent.name for agent in agents if not presence.silent(agent)],
        }
    )


@transaction.atomic
def _forget(controller: Node, names: set[str]) -> None:
    """Nodes that left the cluster are no part of the plane. One that speaks is: its controller may be wrong."""
    plane = controller.plane
    assert plane is not None
    for agent in plane.nodes.filter(kind=Node.Kind.AGENT).exclude(name__in=names):
        if presence.silent(agent):
            audit.record(f"controller of {plane.name}", "node.forget", agent, tenant=plane.owner)
            agent.delete()


@csrf_exempt
@require_POST
@node_view(kind=Node.Kind.CONTROLLER)
def places(request: HttpRequest, node: Node) -> JsonResponse:
    """How the places are."""
    assert node.plane is not None
    reports.record(node.plane, items(body(request), "places", reports.MOST))
    return JsonResponse({})
