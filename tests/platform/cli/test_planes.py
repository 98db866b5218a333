"""A tenant's own planes from the command line."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from cli import errors
from dataplane.planes.models import EnrolmentToken, Node, Plane
from tests.factories import NodeClient
from tests.platform.cli.conftest import Platform


def test_an_owner_makes_a_plane_and_gets_the_command_that_joins_it(platform: Platform) -> None:
    cyto = platform.cyto
    made = cyto("planes", "add", "own", "--private", "acme")
    assert made.code == 0, made.err
    assert made.out.startswith("curl ")
    assert "own machine only" in made.err, "nobody has said by which name others reach it"
    assert made.out.count("cye_") == 1
    assert "https://" in made.out.split("|")[0], "the token isn't in the address"
    assert "cye_" not in made.out.split("|")[0]
    assert "not joined yet" in cyto("planes", "show", "own").out
    assert "not joined yet" in cyto("planes").out
    again = cyto("planes", "token", "own", "--json").json
    assert again["token"] in again["command"]
    assert EnrolmentToken.objects.filter(plane__name="own", created_by__contains="@").count() == 2
    cluster = cyto("planes", "add", "cluster", "--engine", "kubernetes", "--private", "acme").out
    assert "/join/cluster" in cluster


def test_an_offline_plane_says_since_when_and_that_it_goes_on(platform: Platform) -> None:
    cyto = platform.cyto
    cyto("planes", "add", "own", "--private", "acme")
    plane = Plane.objects.get(name="own")
    node = NodeClient.enrolled(Node.Kind.AGENT, plane, "node-1").node
    Node.objects.update(last_seen_at=timezone.now())
    assert "online" in cyto("planes", "show", "own").out
    Node.objects.update(last_seen_at=timezone.now() - timedelta(hours=3))
    shown = cyto("planes", "show", "own").out
    assert "offline, last heard of 3 h ago" in shown
    assert "goes on" in shown
    assert f"Node {node.pk} is revoked." in cyto("planes", "revoke", str(node.pk)).err
    assert "own is revoked" in cyto("planes", "revoke", "own").err
    assert not node.certificates.filter(revoked_at=None).exists()
    assert cyto("planes", "remove", "own").error == "confirmation-missing"
    assert cyto("planes", "remove", "own", "--confirm", "own").code == 0
    assert not Plane.objects.filter(name="own").exists()


def test_others_see_no_plane_of_a_tenants_own(platform: Platform) -> None:
    cyto = platform.cyto
    cyto("planes", "add", "own", "--private", "acme")
    platform.be("owner", "globex")
    assert "own" not in [row["name"] for row in cyto("planes", "--json").json]
    for words in (
        ("show", "own"),
        ("token", "own"),
        ("revoke", "own"),
        ("remove", "own", "--confirm", "own"),
        ("bind", "globex", "production", "own"),
        ("add", "theirs", "--private", "acme"),
    ):
        assert cyto("planes", *words).code == errors.NOT_FOUND, words
