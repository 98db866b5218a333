"""The page of a component whose number of replicas follows its load."""

from __future__ import annotations

import html

from autoscaling import actions, load
from delivery.models import Replica
from tests.factories import World
from tests.web.routes import browser

SCALED = "components: {web: {kind: web, command: serve, replicas: {min: 2, max: 6, requests: 20}}}"
PAGE = "/acme/shop/production/components/web"


def seen(world: World, path: str = PAGE) -> str:
    return " ".join(html.unescape(browser(world, "owner").get(path).content.decode()).split())


def test_it_says_between_what_and_what_was_decided_and_why(world: World) -> None:
    cell = world.cell(world.project("shop"))
    world.deploy(cell, SCALED)
    page = seen(world)
    assert "between 2 and 6 replicas" in page
    assert "not measured yet" in page
    assert 'min="2" max="6" value="2"' in page
    reports = [{"id": f"r{pk}", "requests": 30} for pk in Replica.objects.values_list("pk", flat=True)]
    load.record(world.plane, reports)
    change = actions.look(cell.pk)
    assert change is not None
    part = seen(world, f"{PAGE}?part=replicas")
    assert "requests 30 a second and replica, 20 wanted" in part
    assert "2 to 3: requests 30 a second" in part
    assert "Held" not in part
    world.finish(change)
    assert 'value="3"' in seen(world)


def test_a_number_out_of_the_range_is_refused_with_what_to_do(world: World) -> None:
    world.deploy(world.cell(world.project("shop")), SCALED)
    answer = browser(world, "owner").post(f"{PAGE}/scale", {"replicas": "1"}, follow=True)
    text = html.unescape(answer.content.decode())
    assert "web follows its load between 2 and 6 replicas." in text
    assert "cytoplane.yaml" in text


def test_others_have_nothing_of_it(world: World) -> None:
    world.deploy(world.cell(world.project("shop")), "components: {web: {kind: web, command: serve}}")
    assert "Follows load" not in seen(world)
