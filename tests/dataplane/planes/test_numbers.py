"""Numbers of the kernel and of the gateway: never given twice, and counted apart where tenants could
use them up for each other."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from controlplane.errors import CytoplaneError
from dataplane.planes import numbers
from dataplane.planes.models import Plane, ReplicaAddress, Sequence
from tests.factories import World


def test_numbers_begin_where_their_range_does_and_go_up(db: None) -> None:
    for kind, (first, _) in numbers.KINDS.items():
        Sequence.objects.all().delete()
        assert [numbers.allocate(kind) for _ in range(3)] == [first, first + 1, first + 2]


def test_each_tenant_has_its_own_numbers_of_listeners(db: None) -> None:
    first = numbers.KINDS["listener"][0]
    assert [numbers.allocate("listener", 1) for _ in range(3)] == [first, first + 1, first + 2]
    assert numbers.allocate("listener", 2) == first
    assert numbers.allocate("listener", 1) == first + 3


def test_a_range_that_is_given_out_is_an_error_of_one_tenant(db: None) -> None:
    last = numbers.KINDS["listener"][1]
    assert last is not None
    numbers.allocate("listener", 1)
    Sequence.objects.filter(kind="listener:1").update(next=last)
    with pytest.raises(CytoplaneError) as failure, transaction.atomic():
        numbers.allocate("listener", 1)
    assert failure.value.code == "unavailable"
    assert numbers.allocate("listener", 2) == numbers.KINDS["listener"][0]
    Sequence.objects.filter(kind="listener:1").update(next=last - 1)
    assert numbers.allocate("listener", 1) == last


def test_two_at_once_get_two_numbers(transactional_db: None) -> None:
    got: list[int] = []

    def take() -> None:
        try:
            for _ in range(10):
                with transaction.atomic():
                    got.append(numbers.allocate("identity"))
        finally:
            connection.close()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(256, 296))


def test_an_address_rests_ten_minutes(world: World) -> None:
    plane = world.plane
    first = numbers.allocate_address(plane)
    assert first == numbers.FIRST_REPLICA
    numbers.free_address(plane, first)
    assert numbers.allocate_address(plane) == first + 1
    row = ReplicaAddress.objects.filter(plane=plane, index=first)
    row.update(freed_at=timezone.now() - numbers.REST + timedelta(seconds=5))
    assert numbers.allocate_address(plane) == first + 2
    row.update(freed_at=timezone.now() - numbers.REST - timedelta(seconds=1))
    assert numbers.allocate_address(plane) == first
    assert numbers.allocate_address(plane) == first + 3, "it is in use again"
    assert timedelta(minutes=10) == numbers.REST


def test_the_address_that_has_rested_longest_comes_first(world: World) -> None:
    plane = world.plane
    taken = [numbers.allocate_address(plane) for _ in range(3)]
    for number, minutes in zip(taken, (20, 40, 30), strict=True):
        at = timezone.now() - timedelta(minutes=minutes)
        ReplicaAddress.objects.filter(plane=plane, index=number).update(freed_at=at)
    assert [numbers.allocate_address(plane) for _ in range(3)] == [taken[1], taken[2], taken[0]]


def test_planes_have_addresses_of_their_own(world: World) -> None:
    other = Plane.objects.create(name="other", engine=Plane.Engine.MACHINE)
    assert numbers.allocate_address(world.plane) == numbers.allocate_address(other)


def test_the_last_address_is_the_last(world: World) -> None:
    ReplicaAddress.objects.create(plane=world.plane, index=numbers.LAST_REPLICA - 1)
    assert numbers.allocate_address(world.plane) == numbers.LAST_REPLICA
    with pytest.raises(CytoplaneError) as failure:
        numbers.allocate_address(world.plane)
    assert failure.value.code == "unavailable"
