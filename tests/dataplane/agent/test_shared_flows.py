"""What one client costs the others of the same replica: they share its table of flows, nothing is cut."""

from __future__ import annotations

import socket

import pytest

from bpf import layout
from dataplane.agent.namespaces import run_in
from tests.bpf.laboratory import TCP, UDP, Laboratory, Member

pytestmark = pytest.mark.root
PORT = 8080


def flood(flooder: Member, address: str, number: int) -> None:
    """As many flows to the replica, each with a port of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first:
        first.bind(("0.0.0.0", 20000))
        first.sendto(b"who", (address, PORT))
    for port in range(20001, 20000 + number):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("0.0.0.0", port))
            client.sendto(b"who", (address, PORT))


def test_a_client_that_floods_a_replica_cuts_nobody_else(laboratory: Laboratory) -> None:
    """Streams are judged anew, datagrams by the next question: only an answer under way can be lost."""
    for number, name in enumerate(("flooder", "client", "provider")):
        laboratory.workload(name, 410 + number, 9110 + number)
    flooder, client, provider = (laboratory.members[n] for n in ("flooder", "client", "provider"))
    provider.listen(TCP, PORT)
    provider.listen(UDP, PORT)
    laboratory.allow(*[(n, "provider", PORT, p) for n in ("flooder", "client") for p in (TCP, UDP)])
    stream = client.connected(provider.v4, PORT)
    waiting = client.connected(provider.v6, PORT)
    quota = layout.INNER["conntrack"][2]
    tables = laboratory.tables

    def mine() -> list:
        found = tables.flows_of(provider.namespace.ifindex)
        return [flow for flow in found if flow.remote in (client.v4, client.v6)]

    # Who was used a moment ago is given a second chance by the kernel.
    for _ in range(4):
        run_in(flooder.namespace.path, lambda: flood(flooder, provider.v4, quota + 2000))
        if not mine():
            break
    assert mine() == [], "the flood didn't push anything out: this proves nothing"
    for each in (stream, waiting):
        each.settimeout(2)
        each.sendall(b"still")
        assert each.recv(64) == b"still"
        each.close()
    assert client.call(provider.v4, PORT, UDP) == "provider"
    assert client.call(provider.v4, PORT) == "provider"
    # Who has a table of its own hasn't lost anything of it.
    own = [f for f in tables.flows_of(client.namespace.ifindex) if f.remote == provider.v4]
    assert {f.protocol for f in own} == {TCP, UDP}
