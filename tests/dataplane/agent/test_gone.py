"""Interfaces that the tables know and that are gone."""

from __future__ import annotations

import subprocess

import pytest

from bpf import layout
from dataplane.agent.kernel import Kernel
from tests.bpf.laboratory import Laboratory

pytestmark = pytest.mark.root


def test_an_agent_forgets_what_one_before_told_the_tables_and_never_brought_up(
    laboratory: Laboratory,
) -> None:
    """Killed in the middle of a start: the next makes another interface, under another number."""
    tables = laboratory.tables
    gone, stays = (laboratory.workload(name, 300 + n, 1024 + n) for n, name in enumerate(("gone", "stays")))
    subprocess.run(["ip", "link", "del", gone.namespace.ifname], check=True)
    assert {gone.namespace.ifindex, stays.namespace.ifindex} <= tables.endpoints().keys()
    agent = Kernel(laboratory.config)
    try:
        agent.ensure_platform()
        assert gone.namespace.ifindex not in tables.endpoints()
        assert not {gone.v4, gone.v6} & tables.addresses().keys()
        assert layout.U64.pack(gone.namespace.cookie) not in set(tables._maps["callers"].keys())
        assert tables.flows_of(gone.namespace.ifindex) == []
        assert tables._maps["conntrack"].get(layout.U32.pack(gone.namespace.ifindex)) is None
        assert tables.endpoints()[stays.namespace.ifindex] == stays.identity
        assert tables.addresses()[stays.v6] == (stays.identity, stays.namespace.ifindex)
    finally:
        agent.connections.close()
        agent._tables.close()
