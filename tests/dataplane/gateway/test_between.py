"""Two nodes' gateways: each finds the other's replicas, and nobody else finds anything by that way."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cells.boundary.model import ALLOW, INGRESS, RULE_NORTH
from dataplane import addresses
from dataplane.agent.namespaces import run_in
from dataplane.gateway import between
from dataplane.planes import gateways
from tests.dataplane.gateway.nodes import PLANE, Authority, Nodes, names, nodes
from tests.dataplane.gateway.stage import CELL, Stage, cluster, document, listener

SHOP = "shop.acme.localhost"
CALLER = "x-cytoplane-caller"
pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with nodes(tmp_path_factory.mktemp("authority")) as made:
        yield made


@pytest.fixture(scope="module")
def replicas(both: Nodes) -> dict[str, list]:
    found = {name: both.application("node1", name, 8192 + n) for n, name in enumerate(("one", "uno"))}
    return found | {name: both.application("node2", name, 8194 + n) for n, name in enumerate(("two", "due"))}


@pytest.fixture
def usual(both: Nodes, replicas: dict[str, list]) -> Nodes:
    """A cluster on both nodes, one only on the second; a listener that tells the caller, one that doesn't."""
    config = both.stages["node1"].config
    found = document(
        [
            cluster(config, "c1", [replicas["one"], replicas["two"]]),
            cluster(config, "c2", [replicas["two"], replicas["due"]], cell=2),
        ],
        {SHOP: "c2"},
        [listener(config, "l1", 10000, "c1", "web.shop"), listener(config, "l2", 10001, "c2", "")],
    )
    both.apply(found)
    # A test before may have left a node resting that couldn't be connected to.
    await_both(both)
    return both


def at(made: Stage, port: int = 10000) -> tuple[str, int]:
    return addresses.cell_gateway(made.config, CELL).v4, port


def ask(usual: Nodes, node: str, times: int, port: int = 10000) -> list:
    made = usual.stages[node]
    return [made.get("x", at=at(made, port)) for _ in range(times)]


def await_both(usual: Nodes) -> None:
    """Until both nodes' replicas are called again."""
    end = time.monotonic() + 30
    while names(a for a in ask(usual, "node1", 20) if a.status == 200) != {"one", "two"}:
        assert time.monotonic() < end, "it isn't called again"


def test_replicas_of_every_node_answer_on_every_node(usual: Nodes) -> None:
    for node in usual.stages:
        answers = ask(usual, node, 30)
        assert {answer.status for answer in answers} == {200}
        assert names(answers) == {"one", "two"}
    assert names(ask(usual, "node1", 20, 10001)) == {"two", "due"}


def test_the_internets_host_is_found_where_no_replica_of_it_is(usual: Nodes) -> None:
    answer = usual.stages["node1"].get(SHOP)
    assert answer.asked["name"] in ("two", "due")
    assert answer.header("x-forwarded-for") == [usual.stages["node1"].north()]


def test_a_replica_is_called_from_its_cells_gateway_on_its_own_node(usual: Nodes) -> None:
    found = {answer.asked["name"]: answer.asked["from"] for answer in ask(usual, "node1", 30)}
    own = addresses.cell_gateway(usual.stages["node1"].config, CELL).v4
    assert found == {"one": own, "two": own}
    second = ask(usual, "node1", 1, 10001)[0]
    assert second.asked["from"] == addresses.cell_gateway(usual.stages["node1"].config, 2).v4


def test_the_callers_name_gets_there_and_nobody_forges_it(usual: Nodes) -> None:
    made = usual.stages["node1"]
    forged = [(CALLER, "admin.bank"), (CALLER.upper(), "x"), ("X-Forwarded-Client-Cert", "Hash=0")]
    seen = set()
    for _ in range(20):
        answer = made.get("x", headers=forged, at=at(made))
        seen.add(answer.asked["name"])
        assert answer.header(CALLER) == ["web.shop"]
        assert answer.header("x-forwarded-client-cert") == []
        assert not {CALLER, "x-forwarded-client-cert"} & answer.headers.keys(), (
            "an answer speaks for the platform"
        )
        silent = made.get("x", headers=forged, at=at(made, 10001))
        assert silent.header(CALLER) == []
        assert made.get(SHOP, headers=forged).header(CALLER) == []
    assert seen == {"one", "two"}


def test_each_node_gets_the_share_of_its_replicas(both: Nodes, replicas: dict[str, list]) -> None:
    config = both.stages["node1"].config
    entry = {
        **cluster(config, "c1", [replicas[n] for n in ("one", "two", "due")]),
        "weights": [20, 200, 200],
    }
    both.apply(document([entry], {}, [listener(config, "l1", 10000, "c1", "")]))
    asked = [answer.asked["name"] for answer in ask(both, "node1", 80)]
    assert asked.count("one") < 20 < min(asked.count("two"), asked.count("due"))


def test_a_replica_that_drains_gets_nothing_more_from_anywhere(
    usual: Nodes, replicas: dict[str, list]
) -> None:
    """Connections between the gateways stay open meanwhile: requests are looked at one by one."""
    assert names(ask(usual, "node1", 20, 10001)) == {"two", "due"}
    config = usual.stages["node1"].config
    later = [cluster(config, "c1", [replicas["one"]]), cluster(config, "c2", [replicas["due"]], cell=2)]
    listeners = [listener(config, "l1", 10000, "c1", "web.shop"), listener(config, "l2", 10001, "c2", "")]
    usual.apply(document(later, {SHOP: "c2"}, listeners))
    assert names(ask(usual, "node1", 20, 10001)) == {"due"}
    assert names(ask(usual, "node2", 20)) == {"one"}


def test_what_its_own_node_knows_to_be_down_is_nobodys(usual: Nodes, replicas: dict[str, list]) -> None:
    config = usual.stages["node1"].config
    found = document(
        [cluster(config, "c1", [replicas[n] for n in ("one", "two", "due")])], {},
        [listener(config, "l1", 10000, "c1", "")],
    )  # fmt: skip
    usual.apply(found, {"node2": {"one", "uno", "due"}})
    assert names(ask(usual, "node1", 40)) == {"one", "due"}
    usual.apply(found, {"node2": {"one", "uno"}})
    answers = ask(usual, "node1", 40)
    assert {answer.status for answer in answers} == {200} and names(answers) == {"one"}


def test_a_gateway_that_dies_costs_no_request(usual: Nodes) -> None:
    usual.kill("node2")
    try:
        answers = ask(usual, "node1", 30)
        assert {answer.status for answer in answers} == {200} and names(answers) == {"one"}
        assert ask(usual, "node1", 1, 10001)[0].status == 503, "its replicas are all there"
    finally:
        usual.start("node2")
    await_both(usual)


def test_a_node_that_falls_silent_is_given_up(usual: Nodes) -> None:
    """What is on its way there is lost, and answered within seconds; what comes later goes elsewhere."""
    name = usual.stages["node1"].path.name
    subprocess.run(["ip", "-n", name, "link", "set", "wire", "down"], check=True)
    try:
        found = [ask(usual, "node1", 1)[0] for _ in range(12)]
        assert {answer.status for answer in found} <= {200, 503}
        assert [answer.status for answer in found].count(503) <= 2
        later = ask(usual, "node1", 12)
        assert {answer.status for answer in later} == {200} and names(later) == {"one"}
    finally:
        subprocess.run(["ip", "-n", name, "link", "set", "wire", "up"], check=True)
    await_both(usual)


def test_a_client_stays_where_the_endpoint_says_so(both: Nodes, replicas: dict[str, list]) -> None:
    config = both.stages["node1"].config
    entry = {**cluster(config, "c1", [replicas["two"], replicas["due"]]), "sticky": True}
    both.apply(document([entry], {}, [listener(config, "l1", 10000, "c1", "")]))
    assert len(names(ask(both, "node1", 30))) == 1


def test_websockets_pass_between_nodes(usual: Nodes) -> None:
    made = usual.stages["node1"]
    with run_in(made.path, lambda: socket.create_connection(at(made, 10001), timeout=10)) as client:
        lines = ["GET /websocket HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: websocket"]
        lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""]
        client.sendall("\r\n".join(lines).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        assert head.startswith(b"HTTP/1.1 101"), head
        client.sendall(b"hello")
        assert client.recv(64) == b"HELLO"


def test_grpc_is_spoken_in_http2_to_the_replica(both: Nodes, replicas: dict[str, list]) -> None:
    first, second = both.stages["node1"], both.stages["node2"]
    address = addresses.workload(second.config, 8197).v4

    def listen() -> socket.socket:
        server = socket.create_server((address, 9000))
        server.settimeout(10)
        return server

    both.places["g"] = "node2"
    with run_in(second.path, listen) as server:
        entry = cluster(first.config, "g1", [["g", address, 9000]], "grpc")
        both.apply(document([entry], {}, [listener(first.config, "l3", 10003, "g1", "")]))
        client = first.connection(*at(first, 10003))
        headers = {"Host": "x", "Content-Type": "application/grpc", "TE": "trailers"}
        client.request("POST", "/a.Service/Method", headers=headers)
        accepted, peer = server.accept()
        accepted.settimeout(10)
        assert accepted.recv(24, socket.MSG_WAITALL) == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        assert peer[0] == addresses.cell_gateway(second.config, CELL).v4
        accepted.close()
        client.close()


# Who may take part.


def answered(made: ssl.SSLSocket) -> int:
    """Status of a request over a connection. TLS 1.3 tells a refused client only when it reads."""
    with made:
        made.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + f"{CALLER}: admin.bank\r\n\r\n".encode())
        answer = http.client.HTTPResponse(made)
        answer.begin()
        return answer.status


def test_a_gateway_of_the_plane_is_answered(usual: Nodes, tmp_path: Path) -> None:
    assert answered(usual.tls(usual.authority.identity(PLANE, 11), "c2", tmp_path)) == 200


def refused(usual: Nodes, identity: tuple[str, str] | None, tmp_path: Path, name: str = "c2") -> bool:
    try:
        status = answered(usual.tls(identity, name, tmp_path))
    except (OSError, http.client.HTTPException):
        return True
    assert status != 200
    return False


def test_everybody_else_is_refused(usual: Nodes, tmp_path: Path) -> None:
    signer = usual.authority
    stranger = Authority(tmp_path / "stranger")
    assert refused(usual, None, tmp_path), "nobody in particular"
    assert refused(usual, signer.identity(PLANE + 1, 11), tmp_path), "a node of another plane"
    assert refused(usual, signer.identity(PLANE, 99), tmp_path), "who isn't of the plane, or not any more"
    assert refused(usual, signer.node(11), tmp_path), "a node's own certificate"
    assert refused(usual, stranger.identity(PLANE, 11), tmp_path), "another installation's"
    assert refused(usual, signer.identity(PLANE, 11), tmp_path, "c9"), "nothing of that name is here"
    assert refused(usual, signer.identity(PLANE, 11), tmp_path, "here-c2"), "an inner name"


def test_what_isnt_tls_is_refused(usual: Nodes) -> None:
    with usual.wire("node2") as plain:
        plain.settimeout(10)
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            assert plain.recv(64) == b""
        except ConnectionError:
            pass


def test_a_gateway_believes_only_gateways_of_its_plane(usual: Nodes) -> None:
    """Whoever stands where the other node was gets no request."""
    usual.give("node2", usual.authority.identity(PLANE + 1, 12))
    try:
        end = time.monotonic() + 20
        while usual.stages["node1"].get("x", at=at(usual.stages["node1"], 10001)).status != 503:
            assert time.monotonic() < end, "it is still believed"
            time.sleep(0.3)
    finally:
        usual.give("node2", usual.authority.identity(PLANE, 12))
    end = time.monotonic() + 20
    while usual.stages["node1"].get("x", at=at(usual.stages["node1"], 10001)).status != 200:
        assert time.monotonic() < end, "the new certificate isn't taken"
        time.sleep(0.3)


def test_whoever_is_no_longer_named_loses_its_connections_too(
    usual: Nodes, replicas: dict[str, list], tmp_path: Path
) -> None:
    kept = usual.tls(usual.authority.identity(PLANE, 11), "c2", tmp_path)
    kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200" in kept.recv(65536)
    config = usual.stages["node1"].config
    found = document([cluster(config, "c2", [replicas["two"]], cell=2)], {}, [])
    everybody, usual.peers = usual.peers, [gateways.name(PLANE, 12)]
    try:
        usual.apply(found)
        assert refused(usual, usual.authority.identity(PLANE, 11), tmp_path)
        kept.settimeout(10)
        end = time.monotonic() + 15
        while True:  # it may be told politely first
            try:
                kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                if not kept.recv(65536):
                    break
            except (ConnectionError, ssl.SSLError):
                break
            assert time.monotonic() < end, "it goes on"
            time.sleep(0.2)
    finally:
        usual.peers = everybody
        kept.close()


def test_without_a_certificate_or_a_list_a_node_keeps_to_itself(
    usual: Nodes, replicas: dict[str, list]
) -> None:
    config = usual.stages["node1"].config
    found = document(
        [cluster(config, "c1", [replicas["one"], replicas["two"]])],
        {},
        [listener(config, "l1", 10000, "c1", "")],
    )
    everybody, usual.peers = usual.peers, []
    try:
        usual.apply(found)
        assert names(ask(usual, "node1", 20)) == {"one"}
        with pytest.raises(OSError):
            usual.wire("node2")
    finally:
        usual.peers = everybody


# Without a network.


def test_a_machines_document_is_left_as_it_is() -> None:
    gateway = {"clusters": [{"name": "c", "backends": [["r1", "10.0.0.1", 80]]}]}
    assert between.split(gateway, None) is gateway
    assert between.listeners(None, gateway) == [] and between.clusters(None, gateway, []) == []  # type: ignore[arg-type]


def whole() -> dict[str, Any]:
    identities = {"3": {"cell": 0, "policy": [[2, 8080, 6, 0, 1, 2]], "external": []}, "70": {"policy": []}}
    boundary = {"identities": identities, "gateway": {"clusters": [], "routes": []}}
    return {"boundary": boundary, "placements": {"r1": "a", "r2": "b"}, "gateways": ["one", "two"]}


def test_the_north_gateway_reaches_other_nodes_at_one_port_and_nobody_else_does() -> None:
    given = whole()
    nodes = {"a": ("192.0.2.1",), "b": ("192.0.2.2", "2001:db8::2"), "c": (), "d": ("2001:db8::4",)}
    found = between.joined(given, "a", nodes, "pem")
    assert given == whole(), "what was given is left as it was"
    north = found["boundary"]["identities"]["3"]
    port, rule = between.PORT, 2
    assert north["external"] == [
        ["192.0.2.2/32", port, 6, ALLOW, RULE_NORTH],
        ["2001:db8::4/128", port, 6, ALLOW, RULE_NORTH],
    ]
    assert north["policy"] == [
        [2, 8080, 6, 0, 1, rule],
        *([remote, port, 6, INGRESS, ALLOW, RULE_NORTH] for remote in (2, 1)),
    ]
    assert found["boundary"]["identities"]["70"] == {"policy": []}
    assert found["boundary"]["gateway"]["around"] == {
        "own": "a", "places": {"r1": "a", "r2": "b"}, "nodes": {"b": "192.0.2.2", "d": "2001:db8::4"},
        "peers": ["one", "two"], "authority": "pem",
    }  # fmt: skip


def test_a_control_plane_that_names_no_gateways_lets_nobody_meet() -> None:
    given = whole()
    del given["gateways"]
    found = between.joined(given, "a", {"b": ("192.0.2.2",)}, "pem")
    assert between.split(found["boundary"]["gateway"], None)["between"] is None


def test_backends_are_told_apart_by_node() -> None:
    entry = {
        "name": "c",
        "backends": [[f"r{n}", "x", 80] for n in range(6)],
        "weights": [1, 2, 4, 8, 16, 32],
    }
    places = {"r0": "a", "r1": "a", "r2": "b", "r3": "b", "r4": "c", "r5": "gone"}
    around = {
        "own": "a", "places": places, "nodes": {"b": "192.0.2.2", "c": "192.0.2.3"}, "peers": ["p"],
        "authority": "pem",
    }  # fmt: skip
    first, here = between.split({"clusters": [entry], "around": around}, {"r1", "r2"})["clusters"]
    assert (first["backends"], first["weights"]) == ([["r1", "x", 80]], [2])
    assert first["elsewhere"] == [("b", 12), ("c", 16)]
    assert (here["name"], here["backends"], here["weights"]) == ("here-c", [["r1", "x", 80]], [2])
    less: tuple[dict[str, Any], ...] = ({"peers": []}, {"authority": ""})
    for lacking in less:
        (alone,) = between.split({"clusters": [entry], "around": around | lacking}, None)["clusters"]
        assert alone["elsewhere"] == [] and len(alone["backends"]) == 2
    (alone,) = between.split({"clusters": [entry], "around": around}, None, ready=False)["clusters"]
    assert alone["elsewhere"] == []
