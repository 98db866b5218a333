"""The flows that the kernel remembers: a table for each endpoint, which is its quota."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from bpf import layout
from bpf import sys as bpf


class Tracked(NamedTuple):
    """A flow that an endpoint has. ``initiator`` is the direction it was opened in, ``identity`` the
    remote end's, ``age`` for how many seconds nothing passed (not finer than one)."""

    local: str
    remote: str
    local_port: int
    remote_port: int
    protocol: int
    initiator: int
    rule: int
    identity: int
    age: float


class TrackingTables:
    """The part of ``Tables`` about flows."""

    _maps: dict[str, bpf.Map]

    def ensure_conntrack(self, ifindex: int) -> None:
        """Give an endpoint its table; one that it has stays, with what is in it."""
        key = layout.U32.pack(ifindex)
        if self._maps["conntrack"].get(key) is not None:
            return
        kind, flags, entries, inner_key, inner_value = layout.INNER["conntrack"]
        descriptor = bpf.map_create(kind, inner_key.size, inner_value.size, entries, flags)
        try:
            self._maps["conntrack"].set(key, layout.U32.pack(descriptor))
        finally:
            os.close(descriptor)

    def drop_conntrack(self, ifindex: int) -> None:
        """Forget an endpoint's flows and its table: without one nothing passes."""
        self._maps["conntrack"].delete(layout.U32.pack(ifindex))

    def purge_conntrack(self, ifindex: int) -> None:
        """Forget the flows of an interface, before its address is given again."""
        self.drop_conntrack(ifindex)
        self.ensure_conntrack(ifindex)

    def flows_of(self, ifindex: int) -> list[Tracked]:
        """An endpoint's flows at about this moment."""
        table = self._conntrack_of(ifindex)
        if table is None:
            return []
        found = []
        now = time.clock_gettime(time.CLOCK_MONOTONIC)
        try:
            for key, value in table.items():
                local, remote, local_port, remote_port, protocol = layout.FLOW_ID.unpack(key)
                if protocol >= layout.FLOW_FRAGMENT:
                    continue
                last, _, identity, rule, _, _, _, initiator, *_ = layout.FLOW_STATE.unpack(value)
                found.append(
                    Tracked(
                        layout.unpack_address(local),
                        layout.unpack_address(remote),
                        local_port,
                        remote_port,
                        protocol,
                        initiator,
                        rule,
                        identity,
                        max(0.0, now - last / 1e9),
                    )
                )
        finally:
            table.close()
        return found

    def _conntrack_of(self, ifindex: int) -> bpf.Map | None:
        value = self._maps["conntrack"].get(layout.U32.pack(ifindex))
        if value is None:
            return None
        _, _, _, key, state = layout.INNER["conntrack"]
        return bpf.Map(bpf.map_by_id(layout.U32.unpack(value)[0]), key.size, state.size)
