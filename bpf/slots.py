"""Which backend is behind which slot of a service: the kernel picks a slot and looks no further.

A slot is picked at random, or, for a consistent choice, by a number that stays the caller's own. Then a
backend that comes or goes must move as few callers as possible: the table is filled as Maglev does it
(Eisenbud and others, NSDI 2016), each backend taking its favourite free slot in turn.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

#: Slots of one service at most; weights beyond that are rounded.
MOST = 1024
#: Prime numbers, so that every step visits every slot. A backend has about a hundred slots or more.
_SIZES = (251, 1021, 4093)


class Backend(NamedTuple):
    """``weight`` is its share relative to the others'; 0 gets nothing new."""

    address: str
    port: int
    weight: int = 1


def spread(backends: Sequence[Backend], consistent: bool) -> tuple[tuple[str, int], ...]:
    """(address, port) of each slot; empty where nobody serves."""
    return _spread(tuple(b for b in (Backend(*b) for b in backends) if b.weight > 0), consistent)


@functools.lru_cache(maxsize=4096)
def _spread(backends: tuple[Backend, ...], consistent: bool) -> tuple[tuple[str, int], ...]:
    if not backends:
        return ()
    return _maglev(backends) if consistent else _repeated(backends)


def _repeated(backends: tuple[Backend, ...]) -> tuple[tuple[str, int], ...]:
    """As many slots for each as its weight, in lowest terms."""
    divisor = math.gcd(*(b.weight for b in backends))
    weights = [b.weight // divisor for b in backends]
    total = sum(weights)
    if total > MOST:
        weights = [max(1, round(w * MOST / total)) for w in weights]
    return tuple((b.address, b.port) for b, w in zip(backends, weights, strict=True) for _ in range(w))


def _maglev(backends: tuple[Backend, ...]) -> tuple[tuple[str, int], ...]:
    size = next((s for s in _SIZES if s >= 100 * len(backends)), _SIZES[-1])
    order = sorted(backends)
    heaviest = max(b.weight for b in order)
    walks = [_walk(b, size) for b in order]
    found: list[tuple[str, int] | None] = [None] * size
    owed = [0.0] * len(order)
    left = size
    while True:
        for number, backend in enumerate(order):
            owed[number] += backend.weight / heaviest
            if owed[number] < 1:
                continue
            owed[number] -= 1
            slot = next(s for s in walks[number] if found[s] is None)
            found[slot] = (backend.address, backend.port)
            left -= 1
            if not left:
                return tuple(entry for entry in found if entry)


def _walk(backend: Backend, size: int) -> Iterator[int]:
    digest = hashlib.blake2b(f"{backend.address} {backend.port}".encode(), digest_size=16).digest()
    start = int.from_bytes(digest[:8]) % size
    step = int.from_bytes(digest[8:]) % (size - 1) + 1
    return ((start + turn * step) % size for turn in range(size))
