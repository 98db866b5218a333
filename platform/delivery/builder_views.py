"""What builders ask and report. A builder sees only the builds that it has claimed."""

from __future__ import annotations

from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from controlplane.errors import not_found
from dataplane.planes import polling
from dataplane.planes.agent_views import LONGEST_WAIT, body
from dataplane.planes.identity import node_of, node_view
from dataplane.planes.models import Node
from delivery import actions, log, publish
from delivery.git import repository
from delivery.models import Build

LIMITS = {"memory": 2 * 2**30, "cpu": 2.0, "pids": 1024, "seconds": 600, "disk": 6 * 2**30}


def _claim(node: Node) -> dict | None:
    node.last_seen_at = timezone.now()
    node.save(update_fields=["last_seen_at"])
    build = actions.claim_build(node)
    if build is None:
        return None
    cell = build.deployment.cell
    return {
        "build": build.pk,
        "tenant": cell.project.tenant_id,
        "project": cell.project.slug,
        "domain": settings.CONFIG.apps_domain,
        "repository": actions.image_prefix(cell),
        "commit": build.deployment.commit,
        "limits": LIMITS,
    }


@require_GET
async def following(request: HttpRequest) -> HttpResponse:
    """The next build, as soon as there is one; 204 when none came."""
    node = await polling.query(lambda: node_of(request, kind=Node.Kind.BUILDER))
    with polling.seat(node.pk, node.name):
        job = await polling.answer(publish.BUILDS, LONGEST_WAIT - 5, _claim, node)
    return HttpResponse(status=204) if job is None else JsonResponse(job)


def _held(node: Node, number: int) -> Build:
    build = (
        Build.objects.select_related("deployment__cell__project")
        .filter(pk=number, node=node, state=Build.State.CLAIMED)
        .first()
    )
    if build is None:
        raise not_found("build")
    return build


@require_GET
@node_view(kind=Node.Kind.BUILDER)
def source(request: HttpRequest, node: Node, number: int) -> FileResponse:
    """The source archive (tar) of a claimed build."""
    build = _held(node, number)
    return FileResponse(repository.archive_path(build.archive).open("rb"), content_type="application/x-tar")


@require_POST
@node_view(kind=Node.Kind.BUILDER)
def log_lines(request: HttpRequest, node: Node, number: int) -> JsonResponse:
    """A part of the build's output."""
    build = _held(node, number)
    log.output(build.deployment, str(body(request).get("text", "")))
    return JsonResponse({})


@require_POST
@node_view(kind=Node.Kind.BUILDER)
def heartbeat(request: HttpRequest, node: Node, number: int) -> JsonResponse:
    """The builder lives; a build that isn't its own any more must be stopped."""
    live = Build.objects.filter(pk=number, node=node, state=Build.State.CLAIMED)
    going = live.update(heartbeat_at=timezone.now()) == 1
    return JsonResponse({"continue": going and not live.filter(deployment__cancel_requested=True).exists()})


@require_POST
@node_view(kind=Node.Kind.BUILDER)
def result(request: HttpRequest, node: Node, number: int) -> JsonResponse:
    """Images and specification, or an error of the catalogue."""
    actions.finish_build(_held(node, number), body(request))
    return JsonResponse({})
