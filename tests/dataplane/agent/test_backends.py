"""Who gets a service's connections, and what becomes of those that it has."""

from __future__ import annotations

import socket

import pytest

from bpf.tables import Backend, Service
from dataplane.agent import sockets
from dataplane.agent.namespaces import run_in
from tests.bpf.laboratory import TCP, UDP, Laboratory

pytestmark = pytest.mark.root
PORT = 8080


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_workload_reaches_itself_through_its_own_service(
    laboratory: Laboratory, family: int, protocol: int
) -> None:
    own = laboratory.workload("own", 420, 9110)
    own.listen(protocol, PORT)
    laboratory.serve(("own", PORT, protocol))
    # No entry at all: it is its own business. The answer must come from the address that was asked.
    assert own.call(own.address(family, by_service=True), PORT, protocol, patience=3) == "own"


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_backend_that_drains_keeps_its_connections_and_gets_no_new_ones(
    laboratory: Laboratory, family: int, protocol: int
) -> None:
    caller = laboratory.workload("caller", 421, 9111)
    old, new = laboratory.workload("old", 422, 9112), laboratory.workload("new", 423, 9113)
    for member in (old, new):
        member.listen(protocol, PORT)
    laboratory.allow(("caller", "old", PORT, protocol), ("caller", "new", PORT, protocol))
    address = old.address(family, by_service=True)

    def serve(*members) -> None:
        backends = tuple(Backend(m.address(family), PORT) for m in members)
        laboratory.tables.set_services([Service(0, address, PORT, protocol, backends)])

    serve(old)
    kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM

    def connect() -> socket.socket:
        made = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, kind)
        made.settimeout(2)
        made.connect((address, PORT))
        made.send(b"who")
        return made

    kept = run_in(caller.namespace.path, connect)
    assert kept.recv(3) == b"old"
    serve(new)
    assert {caller.call(address, PORT, protocol, patience=3) for _ in range(8)} == {"new"}
    kept.send(b"who")
    assert kept.recv(64), "the connection that it has goes on"
    # Those of the calls may still be ending.
    open_ = [s for s in sockets.listing(caller.namespace.path) if s.state == sockets.ESTABLISHED]
    to_old = [s for s in open_ if s.remote_port == PORT]
    assert len(to_old) == 1
    kept.close()
