"""What an answer of the control plane changes, so that the rest isn't looked at again.

The rules of cells come first, before anything that takes time: what a change closes is closed at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dataplane.agent.parts import identities
from dataplane.agent.state import State

#: Identity → its rules; None: it is gone.
Rules = Mapping[str, dict[str, Any] | None]


def rules(before: State, after: State, base: int) -> Rules | None:
    """The rules of cells that differ; None unless ``after`` is known as the difference to ``before``."""
    if not base or base != before.generation:
        return None
    found: dict[str, dict[str, Any] | None] = {}
    for number in before.units.keys() | after.units.keys():
        old, new = before.units.get(number), after.units.get(number)
        if old is not new:
            ours, theirs = identities(old), identities(new)
            found |= {text: theirs.get(text) for text in ours.keys() | theirs.keys()}
    return found


def merged(reached: dict[int, Rules | None], generation: int) -> Rules | None:
    """Take out what the generations up to this one changed, all together."""
    found: dict[str, dict[str, Any] | None] | None = {}
    for number in sorted(number for number in reached if number <= generation):
        changed = reached.pop(number)
        found = None if changed is None or found is None else {**found, **changed}
    return found
