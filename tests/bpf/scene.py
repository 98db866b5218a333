"""Who is there in attacks by frames."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.bpf.laboratory import TCP, UDP, Laboratory, Member
from tests.bpf.test_packets import DROP, sent


@dataclass
class Scene:
    """``a`` may call ``b``: 8080/tcp and 5353/udp. ``twin`` is another replica of ``a``'s component."""

    laboratory: Laboratory
    a: Member
    b: Member
    c: Member
    twin: Member

    def sent(self, kind: int, payload: bytes, **changes: bytes) -> tuple[int, set[str]]:
        return sent(self.laboratory, self.a, kind, payload, **changes)

    def wrong(self, cases: dict[str, tuple[int, bytes, str]]) -> dict[str, tuple[int, set[str]]]:
        """Frames of ``a`` that weren't dropped for the reason that stands beside them."""
        found = {}
        for name, (kind, payload, reason) in cases.items():
            answer = self.sent(kind, payload)
            if answer != (DROP, {reason}):
                found[name] = answer
        return found


@pytest.fixture
def scene(laboratory: Laboratory) -> Scene:
    a, b, c = (laboratory.workload(name, 300 + n, 1024 + n) for n, name in enumerate("abc"))
    twin = laboratory.workload("twin", 300, 1030)
    laboratory.allow(("a", "b", 8080, TCP), ("a", "b", 5353, UDP))
    laboratory.denials()
    return Scene(laboratory, a, b, c, twin)
