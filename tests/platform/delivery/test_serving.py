"""The locked row of a cell: what waited for a switch sees what the switch left, whole."""

from __future__ import annotations

import time
from threading import Event, Thread

from django.db import connection, connections, transaction

from delivery.models import Release
from delivery.serving import locked_cell
from projects.models import Cell
from tests.factories import World


def waited_for() -> bool:
    """Whether some transaction waits for a lock."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(cursor.fetchone()[0])


def test_who_waited_for_a_switch_finds_the_release_that_it_switched_to(committed_world: World) -> None:
    cell = committed_world.cell()
    committed_world.deploy(cell, commit="a" * 40)
    committed_world.deploy(cell, commit="b" * 40)
    first, second = Release.objects.order_by("number")
    Cell.objects.update(serving_release=first)
    begun, found = Event(), []

    def look() -> None:
        with transaction.atomic():
            begun.set()
            found.append(locked_cell(cell.pk))
        connections.close_all()

    thread = Thread(target=look)
    with transaction.atomic():
        Cell.objects.filter(pk=cell.pk).update(serving_release=second)
        thread.start()
        begun.wait()
        end = time.monotonic() + 20
        while not waited_for() and time.monotonic() < end:
            time.sleep(0.02)
    thread.join()
    assert [row.serving_release for row in found] == [second]
