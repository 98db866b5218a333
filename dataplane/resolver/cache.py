"""Answers that were given, for each asker by itself: nobody learns from another's what is asked for.

Bounded for one asker and for all: the oldest ones go.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from dataplane.resolver.lookups import Found

MOST_EACH, MOST = 512, 20000
Key = tuple[int, str, int]


@dataclass(frozen=True)
class Known:
    """``found`` as the asker got it; good until ``expires`` (monotonic).

    ``stamp`` is the asker's in the table that it was learned under: with another one the agent has
    closed something since.
    """

    found: Found
    expires: float
    stamp: int = 0


class Cache:
    """By (identity, name, type)."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, Known] = OrderedDict()
        self._each: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: Key) -> Known | None:
        """What is known, however old."""
        return self._known.get(key)

    def put(self, key: Key, known: Known) -> None:
        self._drop(key)
        if self._each[key[0]] >= MOST_EACH:
            self._drop(next(other for other in self._known if other[0] == key[0]))
        if len(self._known) >= MOST:
            self._drop(next(iter(self._known)))
        self._known[key] = known
        self._each[key[0]] += 1

    def _drop(self, key: Key) -> None:
        if self._known.pop(key, None) is not None:
            self._each[key[0]] -= 1
            if not self._each[key[0]]:
                del self._each[key[0]]
