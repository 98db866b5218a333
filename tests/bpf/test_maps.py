"""Many entries at once: the same as one by one, for every kind of map that the kernel gives in batches or not."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

import pytest

from bpf import sys as bpf
from bpf.opening import MAP_TYPES

pytestmark = pytest.mark.root
#: More than one call gives, and not a multiple of it.
MANY = 10_000
#: BPF_F_NO_PREALLOC, without which there is no such trie.
_FLAGS = {"lpm_trie": 1}


def key(number: int) -> bytes:
    """Of eight bytes; in a trie, a whole IPv4 address."""
    return struct.pack("=II", 32, number)


def value(number: int) -> bytes:
    return struct.pack("=Q", number)


@pytest.fixture(params=["hash", "lru_hash", "lpm_trie"])
def table(request: pytest.FixtureRequest) -> Iterator[bpf.Map]:
    descriptor = bpf.map_create(MAP_TYPES[request.param], 8, 8, 4 * MANY, _FLAGS.get(request.param, 0))
    made = bpf.Map(descriptor, 8, 8)
    yield made
    made.close()


@pytest.fixture(params=[True, False], ids=["batches", "no batches"])
def batches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A kernel that knows them, and one that doesn't."""
    if not request.param:
        monkeypatch.setattr(bpf, "MAP_LOOKUP_BATCH", 9999)
        monkeypatch.setattr(bpf, "MAP_DELETE_BATCH", 9999)
    return request.param


def test_all_entries_are_found_once(table: bpf.Map, batches: bool) -> None:
    assert list(table.items()) == []
    wanted = {key(number): value(number) for number in range(MANY)}
    for each in wanted.items():
        table.set(*each)
    found = list(table.items())
    assert len(found) == len(wanted) and dict(found) == wanted


def test_those_that_are_there_are_removed_and_no_others(table: bpf.Map, batches: bool) -> None:
    for number in range(MANY):
        table.set(key(number), value(number))
    # Some of them aren't there: one at the beginning, one at the end, several together.
    gone = [MANY + 1, *range(0, MANY, 2), MANY + 2, MANY + 3, 1, MANY + 4]
    table.delete_all([key(number) for number in gone])
    assert {left for left, _ in table.items()} == {key(n) for n in range(3, MANY, 2)}
    table.delete_all([])


def test_values_for_each_processor_come_whole() -> None:
    cpus = bpf.possible_cpus()
    made = bpf.Map(bpf.map_create(MAP_TYPES["percpu_hash"], 8, 8, 8), 8, 8, cpus)
    try:
        made.set(key(1), value(7) * cpus)
        assert list(made.items()) == [(key(1), value(7) * cpus)]
    finally:
        made.close()


def test_a_kernel_without_batches_is_told_from_an_empty_map(table: bpf.Map) -> None:
    number, done = table._batch(9999, 0, 0, 0, 0, 1)
    assert number == errno.EINVAL and done == 0
