"""Planes of one's own: who may, who sees them, and what their certificates open."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from cells.provisioning import actions as provisioning
from cells.provisioning import reports
from cells.provisioning.models import Place
from controlplane.errors import CytoplaneError
from dataplane.planes import enrolment, joining, private, snapshots
from dataplane.planes.models import EnrolmentToken, Node, Plane
from tenants.models import AuditEvent
from tests import factories
from tests.factories import NodeClient, World


def refused(code: str, call: Any, *arguments: Any, **more: Any) -> None:
    with pytest.raises(CytoplaneError) as caught:
        call(*arguments, **more)
    assert caught.value.code == code


def made(world: World, name: str = "own", engine: str = "kubernetes") -> private.Invitation:
    return private.create(acting_user=world.actor("owner"), name=name, engine=engine, owner="acme")


def controller(world: World, plane: Plane) -> NodeClient:
    return NodeClient.enrolled(Node.Kind.CONTROLLER, plane, "controller")


# Who may.


def test_owners_and_platform_admins_make_them_and_nobody_else(world: World) -> None:
    for role, code in (("admin", "forbidden"), ("developer", "forbidden"), ("viewer", "forbidden")):
        refused(
            code, private.create, acting_user=world.actor(role), name="own", engine="machine", owner="acme"
        )
    foreign = world.actor("owner", "globex")
    refused("not-found", private.create, acting_user=foreign, name="own", engine="machine", owner="acme")
    refused("not-found", private.create, acting_user=world.actor("owner"), name="own", engine="machine")
    made(world)
    private.create(acting_user=world.root, name="more", engine="machine")
    refused("name-taken", made, world)


def test_nobody_learns_which_tenants_there_are_by_making_a_plane_for_them(world: World) -> None:
    told = [
        world.api("owner").post("/planes", {"name": "own", "owner": owner}).json()["error"]
        for owner in ("globex", "nobody")
    ]
    assert told[0]["message"] == told[1]["message"] == "There is no such tenant that you can see."


def test_only_the_owners_environments_are_on_it_and_others_cant_tell_that_it_is_there(world: World) -> None:
    made(world)
    foreign = world.actor("owner", "globex")
    for name in ("own", "nowhere"):
        with pytest.raises(CytoplaneError) as caught:
            provisioning.bind_environment(
                acting_user=foreign, tenant="globex", environment="production", plane=name
            )
        assert caught.value.as_dict() == {
            "error": {
                "id": "not-found",
                "message": "There is no such plane that you can see.",
                "next": "Check the name, or ask its owner for access.",
            }
        }
    # Not by an admin of the platform either.
    refused(
        "not-found",
        provisioning.bind_environment,
        acting_user=world.root,
        tenant="globex",
        environment="production",
        plane="own",
    )
    row = provisioning.bind_environment(
        acting_user=world.actor("owner"), tenant="acme", environment="production", plane="own"
    )
    assert row.plane is not None
    assert row.plane.name == "own"
    assert list(private.visible(foreign)) == []
    assert [plane.name for plane in private.visible(world.actor("viewer"))] == ["own"]


def test_what_is_in_use_isnt_removed(world: World) -> None:
    made(world)
    owner = world.actor("owner")
    provisioning.bind_environment(acting_user=owner, tenant="acme", environment="production", plane="own")
    refused("conflict", private.remove, acting_user=owner, name="own", confirm="own")
    refused("confirmation-missing", private.remove, acting_user=owner, name="own", confirm="")


# Tokens.


def test_the_token_is_shown_once_and_kept_as_a_digest(world: World) -> None:
    token = made(world).token
    secret = token.removeprefix("cye_").partition(".")[0]
    row = EnrolmentToken.objects.get()
    assert row.digest == hashlib.sha256(secret.encode()).hexdigest()
    assert row.expires_at - timezone.now() < timedelta(hours=1, seconds=5)
    stored = [*EnrolmentToken.objects.values(), *AuditEvent.objects.values()]
    assert secret not in str(stored)
    assert AuditEvent.objects.filter(tenant=world.acme, verb="plane.token").exists()


def test_the_command_carries_it_neither_in_an_address_nor_in_arguments(world: World) -> None:
    for engine, kind in (("machine", "machine"), ("kubernetes", "cluster")):
        invitation = made(world, engine, engine)
        fetch, _, run = invitation.command.partition(" | ")
        assert f"/join/{kind}" in fetch
        assert "--pinnedpubkey" in fetch
        assert "cye_" not in fetch
        words = run.split()
        assert words[-1] == "sh", "nothing follows the shell"
        assert sum("cye_" in word for word in words) == 1
        assert "cye_" not in joining.script("machine")


def test_code_is_given_to_a_good_token_and_to_nobody_else(world: World) -> None:
    invitation = made(world, engine="machine")
    client = factories.client()

    def asked(token: str, kind: str = "machine") -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return factories.surface(client, "GET", f"/join/{kind}/code", None, headers).status_code

    assert asked(invitation.token) == 200
    assert asked(invitation.token) == 200, "fetching doesn't use it up"
    assert asked(invitation.token, "cluster") == 404
    assert [asked(token) for token in ("", "cye_", f"x{invitation.token}")] == [403] * 3
    EnrolmentToken.objects.update(expires_at=timezone.now())
    assert asked(invitation.token) == 403


def test_a_machine_that_was_revoked_is_replaced_by_another(world: World) -> None:
    invitation = made(world, engine="machine")
    first = enrolment.enrol(invitation.token, factories.certificate_request(), "old", {})[0]
    again = private.invite(acting_user=world.actor("owner"), name="own").token
    refused("enrolment-refused", enrolment.enrol, again, factories.certificate_request(), "new", {})
    private.revoke(acting_user=world.actor("owner"), name="own")
    refused("enrolment-refused", enrolment.enrol, again, factories.certificate_request(), "new", {})
    fresh = private.invite(acting_user=world.actor("owner"), name="own").token
    second = enrolment.enrol(fresh, factories.certificate_request(), "new", {})[0]
    assert second.pk == first.pk
    assert second.name == "new"


# What a controller opens.


def test_a_controller_gets_tokens_for_nodes_of_its_own_plane_only(world: World) -> None:
    node = controller(world, made(world).plane)
    answer = node("POST", "/agent/node-token", {"name": "node-a", "plane": world.plane.pk, "kind": "builder"})
    assert answer.status_code == 200
    row = EnrolmentToken.objects.get(node_name="node-a")
    assert (row.plane, row.kind) == (node.node.plane, Node.Kind.AGENT)
    token = answer.json()["token"]
    refused("enrolment-refused", enrolment.enrol, token, factories.certificate_request(), "node-b", {})
    assert enrolment.enrol(token, factories.certificate_request(), "node-a", {})[0].plane == node.node.plane
    assert AuditEvent.objects.filter(verb="node.token", tenant=world.acme).count() == 1
    nonsense: list[Any] = ["", "../a", "a b", None, {}, "x" * 81]
    for name in nonsense:
        assert node("POST", "/agent/node-token", {"name": name}).status_code == 422


def test_it_cant_ask_for_them_without_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    node = controller(world, made(world).plane)
    monkeypatch.setattr(enrolment, "NODE_TOKENS_EACH", 2)
    monkeypatch.setattr(enrolment, "NODE_TOKENS", 3)
    statuses = [
        node("POST", "/agent/node-token", {"name": name}).status_code for name in ("a", "a", "a", "b", "c")
    ]
    assert statuses == [200, 200, 429, 200, 429]
    assert enrolment.unused(node.node.plane).filter(node_name="a").count() == 1, "the older one is no good"


def test_a_revoked_node_isnt_let_in_again_by_its_controller(world: World) -> None:
    node = controller(world, made(world).plane)
    agent = world.agent(node.node.plane, "node-a")
    private.revoke_node(acting_user=world.actor("owner"), number=agent.node.pk)
    answer = node("POST", "/agent/node-token", {"name": "node-a"})
    assert (answer.status_code, answer.json()["error"]["id"]) == (403, "node-revoked")


def test_a_controller_that_is_revoked_leaves_no_way_back_in(world: World) -> None:
    node = controller(world, made(world).plane)
    kept = node("POST", "/agent/node-token", {"name": "node-a"}).json()["token"]
    asking = Node.objects.get(pk=node.node.pk)  # its certificate was looked at
    private.revoke_node(acting_user=world.actor("owner"), number=node.node.pk)
    refused("enrolment-refused", enrolment.enrol, kept, factories.certificate_request(), "node-a", {})
    refused("certificate-refused", enrolment.create_node_token, asking, "node-b")
    assert not enrolment.unused(node.node.plane).exclude(node_name="").exists()


SCOPE = [
    ("POST", "/agent/report", {"controller", "agent"}),
    ("POST", "/agent/acknowledge", {"agent"}),
    ("POST", "/agent/node-token", {"controller"}),
    ("POST", "/controller/plane", {"controller"}),
    ("POST", "/controller/places", {"controller"}),
    ("POST", "/builder/builds/1/log", set()),
    ("GET", "/api/v1/planes", set()),
    ("GET", "/api/v1/tenants", set()),
    ("GET", "/admin/planes", set()),
    ("GET", "/git/acme/shop.git/info/refs", set()),
]


@pytest.mark.parametrize(("method", "path", "kinds"), SCOPE)
def test_a_planes_certificates_open_this_and_no_more(
    world: World, method: str, path: str, kinds: set[str]
) -> None:
    plane = made(world).plane
    for kind in ("controller", "agent", "builder"):
        node = NodeClient.enrolled(kind, None if kind == "builder" else plane, kind)
        status = node(method, path, {"name": "n"} if method == "POST" else None).status_code
        if kind in kinds:
            assert status in (200, 304), (kind, status)
        else:
            assert status in (401, 404), (kind, status)


def test_it_pulls_no_image_and_no_other_planes_agent_does(world: World) -> None:
    cell = world.cell()
    release = world.deploy(cell)
    repository, _, digest = next(iter(release.images.values())).partition("@")
    path = f"/authz/v2/{repository}/manifests/{digest}"
    assert world.agent()("GET", path).status_code == 200, "where it runs"
    plane = made(world).plane
    for kind in (Node.Kind.CONTROLLER, Node.Kind.AGENT):
        assert NodeClient.enrolled(kind, plane, kind)("GET", path).status_code == 404


def test_secrets_go_to_the_controller_and_not_to_the_agents(
    committed_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = committed_world
    plane = made(world).plane
    served = {"id": "r1", "process": {"environment": {"KEY": "hunter2"}, "command": ["serve"]}}
    # What a run is called with may be secret too.
    run = {"id": "r2", "process": {"environment": {}, "sealed": True, "command": ["login", "hunter3"]}}
    unit = {"endpoints": [served, run]}
    monkeypatch.setattr(snapshots, "newest", lambda *_: {"units": {"1": unit}, "generation": 1})
    assert world.builder()("GET", "/agent/desired").status_code == 401
    told = controller(world, plane)("GET", "/agent/desired").content
    assert b"hunter2" in told and b"hunter3" in told
    told = world.agent(plane)("GET", "/agent/desired").content
    assert b"hunter" not in told and b'"serve"' in told


def test_a_controller_speaks_of_its_own_places_only(world: World) -> None:
    owner = world.actor("owner")
    node = controller(world, made(world).plane)
    other = made(world, "other").plane
    for environment, plane in (("production", "own"), ("staging", "other")):
        provisioning.bind_environment(acting_user=owner, tenant="acme", environment=environment, plane=plane)
    world.project()
    mine, foreign = Place.objects.get(plane__name="own"), Place.objects.get(plane=other)
    told = node("POST", "/controller/plane", {"nodes": []}).json()["places"]
    assert [place["location"] for place in told] == [mine.location]
    said = [
        {"location": place.location, "state": "ready", "problems": ["x" * 900, 7], "revision": 2}
        for place in (mine, foreign)
    ]
    nonsense = [{"location": 7}, {"location": mine.location, "state": "absent"}, {}]
    assert node("POST", "/controller/places", {"places": [*nonsense, *said]}).status_code == 200
    mine.refresh_from_db()
    foreign.refresh_from_db()
    assert (mine.state, mine.revision, len(mine.problems[0])) == ("ready", 2, 500)
    assert (foreign.state, foreign.checked_at) == ("pending", None)


def test_a_controller_is_told_of_every_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are taken in one report."""
    monkeypatch.setattr(reports, "MOST", 1)
    node = controller(world, made(world).plane)
    provisioning.bind_environment(
        acting_user=world.actor("owner"), tenant="acme", environment="production", plane="own"
    )
    world.project("shop")
    world.project("blog")
    told = node("POST", "/controller/plane", {"nodes": []}).json()["places"]
    assert {place["project"] for place in told} == {"shop", "blog"}


@pytest.mark.parametrize("nonsense", [[], {}, None, 5, "gone", "unknown"])
def test_what_a_controller_says_of_a_place_is_taken_or_left(world: World, nonsense: Any) -> None:
    owner = world.actor("owner")
    node = controller(world, made(world).plane)
    provisioning.bind_environment(
        acting_user=owner, tenant="acme", environment="production", plane=node.node.plane.name
    )
    world.project()
    place = Place.objects.get()
    for report in ({"state": nonsense}, {"state": "ready", "problems": nonsense, "error": nonsense}):
        said = {"places": [{"location": place.location, **report}]}
        assert node("POST", "/controller/places", said).status_code == 200
    assert Place.objects.get().problems == []


def test_a_place_is_forgotten_when_its_controller_says_that_it_is_gone(world: World) -> None:
    node = controller(world, made(world).plane)
    provisioning.bind_environment(
        acting_user=world.actor("owner"), tenant="acme", environment="production", plane="own"
    )
    project = world.project()
    place = Place.objects.get()
    gone = {"places": [{"location": place.location, "state": "absent"}]}
    node("POST", "/controller/places", gone)
    assert Place.objects.filter(pk=place.pk).exists(), "it is wanted, whatever is said"
    from projects import actions as projects

    projects.destroy_project(acting_user=world.actor("owner"), project=project, confirm="shop")
    assert [entry["wanted"] for entry in reports.wanted(place.plane)] == [False]
    node("POST", "/controller/places", gone)
    assert not Place.objects.filter(pk=place.pk).exists()


def test_nodes_that_left_the_cluster_are_forgotten_once_they_are_silent(world: World) -> None:
    plane = made(world).plane
    node = controller(world, plane)
    for name in ("stays", "left", "speaks"):
        world.agent(plane, name)
    Node.objects.filter(name="speaks").update(last_seen_at=timezone.now())
    answer = node("POST", "/controller/plane", {"nodes": ["stays"]}).json()
    assert answer["agents"] == ["speaks"]
    assert set(plane.nodes.filter(kind="agent").values_list("name", flat=True)) == {"stays", "speaks"}
