"""The locked row of a cell: what waited for a switch sees what the switch left, whole."""

from __future__ import annotations

from threading import Thread

from django.db import connections, transaction

from delivery.models import Release
from delivery.serving import locked_cell
from projects.models import Cell
from tests.factories import World
from tests.waiting import waited_for


def test_who_waited_for_a_switch_finds_the_release_that_it_switched_to(committed_world: World) -> None:
    cell = committed_world.cell()
    committed_world.deploy(cell, commit="a" * 40)
    committed_world.deploy(cell, commit="b" * 40)
    first, second = Release.objects.order_by("number")
    Cell.objects.update(serving_release=first)
    found = []

    def look() -> None:
        with transaction.atomic():
            found.append(locked_cell(cell.pk))
        connections.close_all()

    thread = Thread(target=look)
    with transaction.atomic():
        Cell.objects.filter(pk=cell.pk).update(serving_release=second)
        thread.start()
        waited_for()
    thread.join()
    assert [row.serving_release for row in found] == [second]
