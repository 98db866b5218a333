"""The deny list: who writes it, what it refuses to hold, and how it reaches nodes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.errors import CytoplaneError
from dataplane.planes import edge, snapshots
from dataplane.planes.models import DeniedNetwork
from tenants.models import AuditEvent
from tenants.policy import Actor, actor_for
from tests.factories import World


@pytest.fixture
def admin(world: World) -> Actor:
    return actor_for(world.admin)


def refused(admin: Actor, network: str, **more) -> CytoplaneError:
    with pytest.raises(CytoplaneError) as error:
        edge.add(acting_user=admin, network=network, **{"reason": "floods", **more})
    return error.value


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("203.0.113.7", "203.0.113.7/32"),
        ("203.0.113.7/24", "203.0.113.0/24"),
        (" 2001:DB8::1 ", "2001:db8::1/128"),
        ("::ffff:203.0.113.9", "203.0.113.9/32"),
    ],
)
def test_a_network_is_kept_in_one_way_of_writing_it(admin: Actor, written: str, kept: str) -> None:
    assert edge.add(acting_user=admin, network=written, reason="floods").network == kept


@pytest.mark.parametrize(
    "network",
    ["", "nonsense", "203.0.113.0/33", "127.0.0.1", "127.0.0.0/9", "::1", "fe80::1", "169.254.1.1", "ff02::1", "224.0.0.5"],
)  # fmt: skip
def test_what_never_comes_by_a_network_isnt_denied_even_by_force(admin: Actor, network: str) -> None:
    assert refused(admin, network, force=True).code == "invalid"


def test_the_platforms_own_ranges_arent_denied(admin: Actor, settings) -> None:
    for network in (settings.CONFIG.workloads4, settings.CONFIG.services6):
        assert refused(admin, str(network), force=True).code == "invalid"


def test_whoever_would_shut_himself_out_must_mean_it(admin: Actor) -> None:
    error = refused(admin, "203.0.113.0/24", client="203.0.113.77")
    assert (error.code, "203.0.113.77" in error.message, "--force" in error.next) == (
        "deny-doubtful",
        True,
        True,
    )
    assert refused(admin, "0.0.0.0/0").code == refused(admin, "2000::/4").code == "deny-doubtful"
    assert edge.add(
        acting_user=admin, network="203.0.113.0/24", reason="floods", client="203.0.113.77", force=True
    )


def test_the_operators_own_networks_are_doubtful(admin: Actor, settings) -> None:
    from dataclasses import replace

    settings.CONFIG = replace(settings.CONFIG, open_networks="10.20.0.0/16")
    assert refused(admin, "10.20.3.0/24").code == "deny-doubtful"
    assert edge.add(acting_user=admin, network="10.21.0.0/24", reason="floods")


@pytest.mark.parametrize("reason", ["", "  ", "x" * 201, "two\nlines"])
def test_a_reason_is_a_line(admin: Actor, reason: str) -> None:
    assert refused(admin, "203.0.113.0/24", reason=reason).code == "invalid"


@pytest.mark.parametrize("seconds", [0, 59, -1, 10**9])
def test_it_lasts_from_a_minute_to_a_year(admin: Actor, seconds: int) -> None:
    assert refused(admin, "203.0.113.0/24", seconds=seconds).code == "invalid"


def test_nobody_but_platform_admins_sees_or_writes_it(world: World) -> None:
    owner = actor_for(world.person("owner"))
    for attempt in (
        lambda: edge.listing(owner),
        lambda: edge.add(acting_user=owner, network="203.0.113.0/24", reason="x"),
        lambda: edge.remove(acting_user=owner, network="203.0.113.0/24"),
    ):
        with pytest.raises(CytoplaneError) as error:
            attempt()
        assert error.value.code == "not-found"
    assert not DeniedNetwork.objects.exists()


def test_denying_again_changes_the_entry_and_everything_is_audited(admin: Actor) -> None:
    edge.add(acting_user=admin, network="203.0.113.0/24", reason="floods", seconds=3600)
    edge.add(acting_user=admin, network="203.0.113.0/24", reason="still floods")
    (row,) = edge.listing(admin)
    assert (row.reason, row.expires_at) == ("still floods", None)
    edge.remove(acting_user=admin, network="203.0.113.9/24")
    assert edge.listing(admin) == []
    with pytest.raises(CytoplaneError):
        edge.remove(acting_user=admin, network="203.0.113.0/24")
    verbs = (
        AuditEvent.objects.filter(object_name="203.0.113.0/24").order_by("pk").values_list("verb", flat=True)
    )
    assert list(verbs) == ["edge.deny", "edge.deny", "edge.allow"]


def test_nodes_get_the_list_with_the_end_of_each_entry(world: World, admin: Actor) -> None:
    row = edge.add(acting_user=admin, network="203.0.113.0/24", reason="floods", seconds=3600)
    edge.add(acting_user=admin, network="2001:db8::/32", reason="floods")
    snapshots.rebuild(world.plane.pk)
    document = snapshots.whole(world.plane.pk)
    assert row.expires_at is not None
    assert document["edge"] == {
        "denied": [["2001:db8::/32", 0], ["203.0.113.0/24", int(row.expires_at.timestamp())]]
    }


def test_what_has_ended_is_nowhere_any_more(admin: Actor) -> None:
    edge.add(acting_user=admin, network="203.0.113.0/24", reason="floods", seconds=60)
    DeniedNetwork.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert edge.listing(admin) == []
    assert edge.document() == {"denied": []}
    edge.add(acting_user=admin, network="198.51.100.0/24", reason="floods")
    assert DeniedNetwork.objects.count() == 1


def test_the_list_has_an_end(admin: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "MOST", 1)
    edge.add(acting_user=admin, network="203.0.113.0/24", reason="floods")
    edge.add(acting_user=admin, network="203.0.113.0/24", reason="again")
    assert refused(admin, "198.51.100.0/24").code == "conflict"
