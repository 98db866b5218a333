"""What agents ask and report. Everything that they say is untrusted and checked against their plane."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from controlplane.errors import CytoplaneError, not_found
from dataplane.planes import actions, authority, enrolment, joining, polling, snapshots
from dataplane.planes.identity import node_of, node_view
from dataplane.planes.models import Node

LONGEST_WAIT = 30.0
#: Flows and lines of a report; the bounds of each cell are telemetry's.
MOST_ITEMS = 20000
_REPOSITORY = re.compile(r"/authz/v2/t([1-9][0-9]{0,17})/p([1-9][0-9]{0,17})/")
#: JSON can say what PostgreSQL's text can't hold: zero bytes and halves of surrogate pairs.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
#: What an agent asks of a repository: an image by its digest and the layers of it. No lists, no tags.
_PULLED = re.compile(r"(manifests|blobs)/(sha256:[0-9a-f]{64})")
#: Who gets a plane's desired state and reports.
_PLANES = (Node.Kind.AGENT, Node.Kind.CONTROLLER)
_READING, _WRITING = ("GET", "HEAD"), ("GET", "HEAD", "POST", "PATCH", "PUT")


def _storable(value: Any) -> Any:
    """A value of a document without what can't be stored; numbers out of range are None."""
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else None
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return value


def body(request: HttpRequest) -> dict[str, Any]:
    """The JSON object of a request, with nothing in it that couldn't be stored."""
    try:
        document = _storable(json.loads(request.body or b"{}"))
    except RequestDataTooBig:
        raise CytoplaneError("invalid", field="body", message="The body is too large.")
    except (ValueError, RecursionError):
        raise CytoplaneError("invalid", field="body", message="The body isn't JSON.")
    if not isinstance(document, dict):
        raise CytoplaneError("invalid", field="body", message="The body isn't a JSON object.")
    return document


def items(document: dict[str, Any], name: str, most: int) -> list[dict[str, Any]]:
    """A list of objects in a report, cut at ``most``."""
    found = document.get(name, [])
    if not isinstance(found, list):
        raise CytoplaneError("invalid", field=name, message=f"`{name}` isn't a list.")
    return [item for item in found[:most] if isinstance(item, dict)]


@require_GET
def authority_certificate(request: HttpRequest) -> HttpResponse:
    """The authority's certificate: public; a node compares its fingerprint with its token's."""
    return HttpResponse(authority.Authority().pem, content_type="application/x-pem-file")


@csrf_exempt
@require_POST
def enrol(request: HttpRequest) -> JsonResponse:
    """A one-time token for a certificate."""
    document = body(request)
    node, certificate, signer = enrolment.enrol(
        str(document.get("token", "")),
        str(document.get("csr_pem", "")),
        str(document.get("name", "")),
        document.get("facts") if isinstance(document.get("facts"), dict) else {},
    )
    return JsonResponse(
        {
            "certificate_pem": certificate,
            "authority_pem": signer,
            "node_id": node.pk,
            "plane_id": node.plane_id,
            "enrolment": node.enrolment,
        }
    )


@require_GET
def join_script(request: HttpRequest, kind: str) -> HttpResponse:
    """What the command of an invitation runs. For everybody: it holds no secret."""
    try:
        return HttpResponse(joining.script(kind), content_type="text/plain; charset=utf-8")
    except (KeyError, FileNotFoundError):
        raise not_found("page") from None


@require_GET
def join_code(request: HttpRequest, kind: str) -> HttpResponse:
    """What the script fetches: the node's code or the chart, for a token that is still good.

    Doesn't use it up. The token is in a header: addresses are logged.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    plane = enrolment.redeemable(token.strip()) if scheme.lower() == "bearer" else None
    if plane is None:
        raise CytoplaneError("enrolment-refused")
    if kind != joining.KINDS[plane.engine]:
        raise not_found("page")
    return HttpResponse(joining.archive(kind), content_type="application/gzip")


@require_POST
@node_view(expired=True)
def renew(request: HttpRequest, node: Node) -> JsonResponse:
    """A fresh certificate; the only thing that an expired one still opens."""
    certificate, signer = enrolment.renew(node, str(body(request).get("csr_pem", "")))
    return JsonResponse({"certificate_pem": certificate, "authority_pem": signer})


@require_GET
async def desired(request: HttpRequest) -> HttpResponse:
    """What a node lacks as soon as there is more than ``generation`` (``mark``); 304 when nothing came.

    Its certificate is looked up at each look, not only at the first: revoking it ends the poll.
    """
    node = await polling.query(lambda: node_of(request, kind=_PLANES))
    try:
        after = int(request.GET.get("generation", "0"))
        # In this order something that isn't a number waits for nothing instead of for ever.
        wait = min(LONGEST_WAIT, max(0.0, float(request.GET.get("wait", "0"))))
    except ValueError:
        raise CytoplaneError("invalid", field="generation", message="`generation` and `wait` are numbers.")
    joins_as = node.plane.joins_as if node.plane else node.kind
    channel, mark = snapshots.channel(node.plane_id), request.GET.get("mark", "")[:32]

    def look() -> dict[str, Any] | None:
        node_of(request, kind=_PLANES)
        found = snapshots.newest(node.plane_id, after, mark)
        return found if found is None or node.kind == joins_as else _without_secrets(found)

    with polling.seat(node.pk, node.name):
        document = await polling.answer(channel, wait, look)
    return HttpResponse(status=304) if document is None else JsonResponse(document)


def _without_secrets(document: dict[str, Any]) -> dict[str, Any]:
    """Desired state for agents of a cluster: they start nothing, so they get no environment and no words."""
    for unit in document["units"].values():
        for endpoint in unit["endpoints"]:
            process = endpoint["process"]
            process["environment"] = {}
            if process.get("sealed"):
                process["command"] = None
    return document


@require_POST
@node_view(kind=Node.Kind.AGENT)
def acknowledge(request: HttpRequest, node: Node) -> JsonResponse:
    """A generation is applied, completely or with errors."""
    document = body(request)
    if document.get("applied") is True and type(document.get("generation")) is int:
        actions.acknowledge(node, document["generation"], document.get("errors") or [])
    return JsonResponse({})


@require_POST
@node_view(kind=_PLANES)
def report(request: HttpRequest, node: Node) -> JsonResponse:
    """Health of the node, phases of its replicas, what the kernel saw, what processes wrote."""
    from autoscaling import load
    from delivery.actions import record_replica_reports
    from telemetry.actions import record_flows, record_logs

    document = body(request)
    # On a cluster the controller, or a worker, asks the API for phases; one node can't speak for others.
    if node.kind == node.plane.joins_as:
        record_replica_reports(node.plane, items(document, "replicas", 2000))
    if node.kind == Node.Kind.AGENT:
        # Whatever the engine, who counts is who is beside it: the node's agent.
        load.record(node.plane, items(document, "load", 2000))
    record_flows(node.plane, items(document, "flows", MOST_ITEMS))
    record_logs(node.plane, items(document, "logs", MOST_ITEMS))
    # Last: a node whose reports can't be taken must look silent, not healthy.
    if isinstance(document.get("node"), dict):
        actions.record_health(node, document["node"])
    return JsonResponse({})


@csrf_exempt
def authorise_image(request: HttpRequest, rest: str = "") -> HttpResponse:
    """The control gateway asks before it lets a request through to the image registry.

    Agents may pull what runs on their plane; builders may push to the project whose build they
    hold.
    """
    from delivery.queries import builder_holds

    node = node_of(request)
    if request.path.rstrip("/") == "/authz/v2":
        return HttpResponse()
    match = _REPOSITORY.match(request.path)
    if match is None or ".." in request.path.split("/") or not _own_layers(request, match):
        raise CytoplaneError("not-found", kind="image")
    tenant, project = int(match.group(1)), int(match.group(2))
    agent, builder = node.kind == Node.Kind.AGENT, node.kind == Node.Kind.BUILDER
    rest = request.path[match.end() :]
    if agent and request.method in _READING and _may_pull(node, tenant, project, rest):
        return HttpResponse()
    if builder and request.method in _WRITING and builder_holds(node, tenant, project):
        return HttpResponse()
    raise CytoplaneError("not-found", kind="image")


def _may_pull(node: Node, tenant: int, project: int, rest: str) -> bool:
    """Images that the plane needs; layers of any image of a project that has a cell there.

    Which layers an image has is known to the registry alone.
    """
    from delivery.queries import plane_needs, plane_runs

    match = _PULLED.fullmatch(rest)
    if match is None:
        return False
    if match.group(1) == "manifests":
        return plane_needs(node.plane_id, tenant, project, match.group(2))
    return plane_runs(node.plane_id, tenant, project)


def _own_layers(request: HttpRequest, match: re.Match[str]) -> bool:
    """Whether an upload takes layers over from no other project.

    The registry would mount any repository's layer whose digest is known. It reads ``from`` out of a
    form in the body too, which isn't seen here, so no upload may have one.
    """
    own = f"t{match.group(1)}/p{match.group(2)}"
    form = request.method == "POST" and request.content_type not in ("", "application/octet-stream")
    return not form and all(name == own for name in request.GET.getlist("from"))
