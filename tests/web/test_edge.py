"""The console's page of the edge: the list, and what nodes say, which nobody has to believe."""

from __future__ import annotations

from typing import Any

import pytest

from dataplane.planes.models import DeniedNetwork, Node
from tests.factories import World
from tests.web.routes import browser

SCRIPT = "<script>alert(1)</script>"


def said(world: World, edge: Any) -> str:
    Node.objects.create(plane=world.plane, kind=Node.Kind.AGENT, name="node-9", health={"edge": edge})
    return browser(world, "platform").get("/admin/edge").content.decode()


def test_what_a_node_refused_is_shown(world: World) -> None:
    page = said(
        world,
        {
            "interface": "eth7",
            "guarded": True,
            "counters": {"denied": 4321, "limited": 17},
            "offenders": [{"address": "203.0.113.77", "reason": "EDGE_RATE", "packets": 99}],
        },
    )
    for text in ("eth7", "4321", "17", "203.0.113.77 EDGE_RATE 99"):
        assert text in page


@pytest.mark.parametrize(
    "edge",
    [
        None, [], "x", {"counters": []}, {"offenders": {}}, {"offenders": [1, None]}, {"counters": {"denied": "9" * 99}},
        {"interface": SCRIPT, "offenders": [{"address": SCRIPT, "reason": SCRIPT, "packets": SCRIPT}]},
        {"offenders": [{"address": "x", "packets": -1}] * 1000},
    ],
)  # fmt: skip
def test_a_lying_node_breaks_nothing(world: World, edge: Any) -> None:
    page = said(world, edge)
    assert SCRIPT not in page
    assert page.count('<div class="mono">') <= 10


def test_a_denied_network_is_added_and_taken_back(world: World) -> None:
    client = browser(world, "platform")
    form = {"network": "203.0.113.7/24", "reason": SCRIPT, "seconds": "3600"}
    assert client.post("/admin/edge", form).status_code == 302
    row = DeniedNetwork.objects.get()
    assert (row.network, row.expires_at is not None) == ("203.0.113.0/24", True)
    page = client.get("/admin/edge").content.decode()
    assert "203.0.113.0/24" in page and SCRIPT not in page
    assert client.post("/admin/edge/allow", {"network": row.network}).status_code == 302
    assert not DeniedNetwork.objects.exists()


def test_what_is_doubtful_needs_the_mark_in_the_form(world: World) -> None:
    client = browser(world, "platform")
    client.post("/admin/edge", {"network": "2000::/4", "reason": "x"})
    assert not DeniedNetwork.objects.exists()
    client.post("/admin/edge", {"network": "2000::/4", "reason": "x", "force": "yes"})
    assert DeniedNetwork.objects.get().expires_at is None
