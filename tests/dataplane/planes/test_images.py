"""Who may pull and push which image: asked by the control gateway for each request to the registry."""

from __future__ import annotations

import pytest
from django.test import override_settings

from dataplane.planes.models import Plane
from delivery import actions, machine
from delivery.models import Build, Release
from projects.models import Cell
from tests import factories
from tests.factories import NodeClient, World, surface

TRICKS = [
    "{0}",
    "{0}x/manifests/x",
    "x{0}/manifests/x",
    "library/{0}/manifests/x",
    "{0}/../t999/p999/manifests/x",
    "{0}/%2e%2e/t999/p999/manifests/x",
    "{0}/..%2ft999/p999/manifests/x",
    "t0/p0/manifests/x",
    "t01/p1/manifests/x",
    "t1/p-1/manifests/x",
    "t\u0661/p1/manifests/x",
    "t" + "9" * 5000 + "/p1/manifests/x",
    "t999999999999999999/p999999999999999999/manifests/x",
    "_catalog",
    "../../agent/report",
]


@pytest.fixture
def cell(world: World) -> Cell:
    return world.cell()


def repository(cell: Cell) -> str:
    return actions.image_prefix(cell)


def ask(node: NodeClient, method: str, path: str, kind: str = "") -> int:
    """The answer to a request of ``kind``, its content type, as the control gateway passes it on."""
    headers = {"X-Forwarded-Client-Cert": f"Hash={node.certificate.fingerprint}"}
    with override_settings(ROOT_URLCONF="dataplane.planes.agent_urls"):
        answer = factories.client().generic(method, f"/authz/v2/{path}", headers=headers, CONTENT_TYPE=kind)
    return answer.status_code


def holding(world: World, cell: Cell) -> tuple[NodeClient, Build]:
    """A builder with a claimed build of the cell's project."""
    deployment = world.push(cell)
    machine.advance(deployment.pk)
    builder = world.builder()
    build = actions.claim_build(builder.node)
    assert build is not None and build.deployment == deployment
    return builder, build


def image_of(release: Release) -> str:
    """The path of a release's image at the registry."""
    name, _, digest = release.images["web"].partition("@")
    return f"{name}/manifests/{digest}"


def test_an_agent_pulls_only_what_its_plane_runs(world: World, cell: Cell) -> None:
    own = world.agent()
    other = world.agent(Plane.objects.create(name="other", engine="machine"), "node-2")
    image = image_of(world.deploy(cell))
    layer = f"{repository(cell)}/blobs/sha256:{'a' * 64}"
    for path in (image, layer):
        assert ask(own, "GET", path) == ask(own, "HEAD", path) == 200
        assert ask(other, "GET", path) == 404
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert ask(own, method, path) == 404


def test_an_agent_pulls_no_image_of_an_environment_that_is_elsewhere(world: World, cell: Cell) -> None:
    own, elsewhere = world.agent(), Plane.objects.create(name="other", engine="machine")
    staging = world.cell(cell.project, "staging")
    other = world.agent(elsewhere, "node-2")
    staging.environment.plane = elsewhere
    staging.environment.save()
    here = image_of(world.deploy(cell))
    deployment = world.push(staging)
    machine.advance(deployment.pk)
    factories.built(deployment)
    machine.advance(deployment.pk)
    there = image_of(Release.objects.get(cell=staging))
    assert (ask(own, "GET", here), ask(own, "GET", there)) == (200, 404)
    assert (ask(other, "GET", there), ask(other, "GET", here)) == (200, 404)


def test_an_agent_pulls_nothing_that_is_over_and_nothing_by_name(world: World, cell: Cell) -> None:
    own = world.agent()
    old = image_of(world.deploy(cell))
    new = image_of(world.deploy(cell))
    assert (ask(own, "GET", new), ask(own, "GET", old)) == (200, 404)
    actions.rollback(acting_user=world.actor(), cell=world.cell(cell.project), number=1)
    assert ask(own, "GET", old) == 200
    for path in ("tags/list", "manifests/latest", "manifests/sha256:", f"referrers/sha256:{'a' * 64}"):
        assert ask(own, "GET", f"{repository(cell)}/{path}") == 404, path


def test_a_builder_pushes_only_while_it_holds_a_build_of_the_project(world: World, cell: Cell) -> None:
    foreign = world.cell(world.project("shop", "globex"), tenant="globex")
    builder, build = holding(world, cell)
    upload = f"{repository(cell)}/blobs/uploads/"
    assert ask(builder, "POST", upload) == ask(builder, "PUT", upload) == 200
    assert ask(builder, "POST", f"{repository(foreign)}/blobs/uploads/") == 404
    assert ask(builder, "GET", f"{repository(foreign)}/manifests/x") == 404
    assert ask(builder, "DELETE", f"{repository(cell)}/manifests/x") == 404, "releases rely on images"
    other = world.builder("builder-2")
    assert ask(other, "POST", upload) == 404
    Build.objects.filter(pk=build.pk).update(state=Build.State.DONE)
    assert ask(builder, "POST", upload) == 404


def test_a_builder_mounts_no_layer_of_another_project(world: World, cell: Cell) -> None:
    """The registry would take any layer over whose digest is known."""
    foreign = world.cell(world.project("shop", "globex"), tenant="globex")
    builder, _ = holding(world, cell)
    mount = f"{repository(cell)}/blobs/uploads/?mount=sha256:{'a' * 64}"
    own, theirs = repository(cell), repository(foreign)
    assert ask(builder, "POST", f"{mount}&from={own}") == 200
    for query in (f"&from={theirs}", f"&from={own}&from={theirs}", f"&fr%6Fm={theirs}", "&from=", "&from=x"):
        assert ask(builder, "POST", mount + query) == 404, query
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert ask(builder, "POST", mount, kind) == 404, kind


def test_paths_that_mean_something_else_are_refused(world: World, cell: Cell) -> None:
    builder, _ = holding(world, cell)
    agent = world.agent()
    for path in TRICKS:
        for node in (agent, builder):
            assert ask(node, "GET", path.format(repository(cell))) == 404, path


def test_the_registrys_greeting_needs_a_certificate_and_nothing_else(world: World) -> None:
    assert ask(world.agent(), "GET", "") == ask(world.builder(), "GET", "") == 200
    assert surface(factories.client(), "GET", "/authz/v2/").status_code == 401
