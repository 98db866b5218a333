"""Certificates with which the gateways of a plane's nodes know each other, and whose are believed.

They are others than the nodes' own: a gateway that was taken over can't ask the control plane for anything
as its node. Plane and enrolment are in the name, and desired state names who may take part: who is revoked
or enrols again is out with what it had from the next generation on, without anybody having to ask.
"""

from __future__ import annotations

from datetime import timedelta

from cryptography import x509
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_POST

from cells.boundary.incremental import PLATFORM
from controlplane.errors import CytoplaneError
from dataplane.gateway.between import name
from dataplane.planes import actions, authority
from dataplane.planes.identity import node_view
from dataplane.planes.models import Node, Plane

#: Long, so that nodes go on talking while the control plane is away; what ends it early is the list.
LIFETIME = timedelta(days=90)


def meet(plane: Plane) -> bool:
    """Whether the plane may have several nodes."""
    return plane.engine == Plane.Engine.KUBERNETES


def changed(plane: Plane | None) -> None:
    """A node has come or was revoked: the others are told by desired state."""
    if plane is not None and meet(plane):
        actions.touch(plane, [PLATFORM])


def peers(plane: Plane) -> list[str]:
    """Names of the gateways that may take part: of nodes with a certificate that wasn't revoked."""
    found = plane.nodes.filter(
        kind=Node.Kind.AGENT, certificates__revoked_at=None, certificates__isnull=False
    )
    return [
        name(plane.pk, *which) for which in found.order_by("pk").values_list("pk", "enrolment").distinct()
    ]


def certificate(
    signer: authority.Authority, csr_pem: str, plane_id: int, node_id: int, enrolment: int = 1
) -> str:
    """PEM, for the key of a request. Raises ``ValueError`` for one that can't be taken."""
    uri = x509.UniformResourceIdentifier(name(plane_id, node_id, enrolment))
    made = signer.sign_gateway(csr_pem, f"gateway of node {node_id}", uri, LIFETIME)
    return authority.pem(made)


@require_POST
@node_view(kind=Node.Kind.AGENT)
def issue(request: HttpRequest, node: Node) -> JsonResponse:
    """A certificate for the gateway of the node that asks."""
    from dataplane.planes.agent_views import body

    signer, csr = authority.Authority(), str(body(request).get("csr_pem", ""))
    assert node.plane_id is not None
    try:
        made = certificate(signer, csr, node.plane_id, node.pk, node.enrolment)
    except ValueError as error:
        raise CytoplaneError("invalid", field="csr_pem", message=f"{error}.") from error
    return JsonResponse({"certificate_pem": made, "authority_pem": signer.pem})
