"""The rules that are in force, as an agent remembers them: packed, since there are thousands that rest."""

from __future__ import annotations

import struct
from collections.abc import Iterator

#: Remote identity, port, protocol, direction; rule, verdict.
_ENTRY = struct.Struct("=IHBBII")
_INGRESS = 1

#: (remote, port, protocol, direction) → (rule, verdict); (network, port, protocol) → the same.
Policy = dict[tuple[int, int, int, int], tuple[int, int]]
External = dict[tuple[str, int, int], tuple[int, int]]


class InForce:
    """Identity → its policy and its networks. What is given is packed, what is asked for is made anew."""

    def __init__(self) -> None:
        self._policy: dict[int, bytes] = {}
        self._external: dict[int, External] = {}

    def __getitem__(self, identity: int) -> tuple[Policy, External]:
        packed = self._policy[identity]
        policy = {entry[:4]: entry[4:] for entry in _ENTRY.iter_unpack(packed)}
        return policy, dict(self._external.get(identity, {}))

    def get(self, identity: int) -> tuple[Policy, External]:
        """Both empty where nothing is known."""
        return self[identity] if identity in self._policy else ({}, {})

    def put(self, identity: int, policy: Policy, external: External) -> None:
        self._policy[identity] = b"".join(_ENTRY.pack(*key, *value) for key, value in policy.items())
        if external:
            self._external[identity] = external
        else:
            self._external.pop(identity, None)

    def pop(self, identity: int) -> tuple[Policy, External]:
        """Forget an identity; what there was."""
        found = self.get(identity)
        self._policy.pop(identity, None)
        self._external.pop(identity, None)
        return found

    def callers(self, identity: int) -> Iterator[int]:
        """Identities that it has an entry about for what comes in."""
        for remote, _, _, direction, _, _ in _ENTRY.iter_unpack(self._policy.get(identity, b"")):
            if direction == _INGRESS:
                yield remote

    def sizes(self) -> tuple[int, int]:
        """How many entries there are: of policies, of networks."""
        external = sum(map(len, self._external.values()))
        return sum(map(len, self._policy.values())) // _ENTRY.size, external
