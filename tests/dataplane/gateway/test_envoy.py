"""A real Envoy with the files that the agent writes: what it lets through, what it says and hides."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import stat
import threading
from collections.abc import Iterator

import pytest

from dataplane import addresses
from dataplane.agent.namespaces import run_in
from tests.dataplane import processes
from tests.dataplane.gateway.stage import Stage, ask, cluster, document, door, listener, stage

pytestmark = pytest.mark.root
SHOP, OTHER = "shop.acme.localhost", "site.globex.localhost"
LISTENERS = "listener_manager.lds.version_text"
CALLER = "x-cytoplane-caller"


@pytest.fixture(scope="module")
def running() -> Iterator[Stage]:
    with stage() as made, made.envoy():
        yield made


@pytest.fixture(scope="module")
def backends(running: Stage) -> dict[str, list]:
    found = {name: running.application(name, 8192 + number) for number, name in enumerate(("one", "two"))}
    found["six"] = running.application("six", 8194, v6=True)
    return found


@pytest.fixture
def usual(running: Stage, backends: dict[str, list]) -> Stage:
    """Two hosts, one connection's listener, one door."""
    config = running.config
    found = document(
        [cluster(config, "c1", [backends["one"]]), cluster(config, "c2", [backends["two"]], cell=2)],
        {SHOP: "c1", OTHER: "c2"},
        [listener(config, "l1", 10000, "c1", "web.shop")],
        [door(config, "d1", 20000, [OTHER])],
    )
    assert running.apply(found) == []
    return running


def own(running: Stage, port: int = 10000, v6: bool = False) -> tuple[str, int]:
    pair = addresses.cell_gateway(running.config, 1)
    return (pair.v6 if v6 else pair.v4, port)


# Routing.


def test_a_host_leads_to_its_application_and_no_other(usual: Stage) -> None:
    port = usual.config.apps_port
    for host in (SHOP, f"{SHOP}:{port}", f"{SHOP}:8080", SHOP.upper(), f"{SHOP}."):
        assert usual.get(host).asked["name"] == "one", host
    assert usual.get(OTHER).asked["name"] == "two"


@pytest.mark.parametrize(
    "host", ["acme.localhost", f"x.{SHOP}", f"{SHOP}.example.org", f"{SHOP}:1", "10.0.0.1", "*", ""]
)
def test_unknown_hosts_get_a_sentence_and_an_id(usual: Stage, host: str) -> None:
    answer = usual.get(host)
    if not host:
        assert answer.status in (400, 404)
        return
    assert answer.status == 404
    assert answer.text.startswith("No application has this host name.\nrequest id: ")
    assert len(answer.text.splitlines()[1]) > 30


def test_an_application_without_replicas_is_said_to_be_one(usual: Stage, backends: dict[str, list]) -> None:
    config = usual.config
    empty = document([cluster(config, "c1", [backends["one"]])], {SHOP: "c1"})
    assert usual.apply(empty, serving=set()) == []
    answer = usual.get()
    assert answer.status == 503
    assert answer.text.startswith("The application has no replica that serves.\nrequest id: ")
    assert usual.apply(empty, serving={"one"}) == []
    assert usual.get().asked["name"] == "one"


def test_answers_of_applications_are_their_own(usual: Stage) -> None:
    for path, status in (("/missing", 404), ("/busy", 503)):
        answer = usual.get(path=path)
        assert (answer.status, answer.asked["name"]) == (status, "one")


def test_a_replica_that_doesnt_listen_costs_no_request(usual: Stage, backends: dict[str, list]) -> None:
    dead = ["dead", addresses.workload(usual.config, 8199).v4, 8000]
    found = document([cluster(usual.config, "c1", [dead, backends["one"]])], {SHOP: "c1"})
    assert usual.apply(found) == []
    assert {usual.get().status for _ in range(12)} == {200}


def test_a_client_stays_where_the_endpoint_says_so(usual: Stage, backends: dict[str, list]) -> None:
    both = cluster(usual.config, "c1", [backends["one"], backends["two"]])
    assert usual.apply(document([both], {SHOP: "c1"})) == []
    assert {usual.get(SHOP).asked["name"] for _ in range(40)} == {"one", "two"}
    assert usual.apply(document([{**both, "sticky": True}], {SHOP: "c1"})) == []
    assert len({usual.get(SHOP).asked["name"] for _ in range(40)}) == 1


def test_a_replica_gets_its_share(usual: Stage, backends: dict[str, list]) -> None:
    both = cluster(usual.config, "c1", [backends["one"], backends["two"]])
    assert usual.apply(document([{**both, "weights": [20, 400]}], {SHOP: "c1"})) == []
    asked = [usual.get(SHOP).asked["name"] for _ in range(80)]
    assert asked.count("two") > 3 * asked.count("one")
    # Of those that don't serve, the weights go too.
    found = document([{**both, "weights": [20, 400]}], {SHOP: "c1"})
    assert usual.apply(found, {backends["one"][0]}) == []
    assert {usual.get(SHOP).asked["name"] for _ in range(10)} == {"one"}


def test_ipv6_replicas_and_clients(usual: Stage, backends: dict[str, list]) -> None:
    found = document(
        [cluster(usual.config, "c1", [backends["six"]])],
        {SHOP: "c1"},
        [listener(usual.config, "l1", 10000, "c1", "web.shop")],
    )
    assert usual.apply(found) == []
    answer = usual.get(at=own(usual, v6=True))
    assert answer.asked["name"] == "six"
    assert answer.asked["from"] == addresses.cell_gateway(usual.config, 1).v6


def test_each_cells_connections_come_from_its_own_address(usual: Stage) -> None:
    config = usual.config
    assert usual.get(SHOP).asked["from"] == addresses.cell_gateway(config, 1).v4
    assert usual.get(OTHER).asked["from"] == addresses.cell_gateway(config, 2).v4


# Headers.


def test_callers_names_from_outside_are_stripped(usual: Stage) -> None:
    forged = [
        (name, "web.shop")
        for name in (CALLER, CALLER.upper(), "X-Cytoplane-Tenant", "X-Forwarded-Client-Cert")
    ]
    for at, host in ((None, SHOP), ((usual.north(), 20000), OTHER)):
        answer = usual.get(host, headers=forged, at=at)
        assert answer.status == 200
        for name in (CALLER, "x-cytoplane-tenant", "x-forwarded-client-cert"):
            assert answer.header(name) == [], (at, name)


def test_a_connections_listener_tells_the_caller_whatever_it_says(usual: Stage) -> None:
    """Of the same cell or of another: the listener is one consumer's."""
    for forged in (
        [],
        [(CALLER, "admin.bank")],
        [(CALLER, "a"), (CALLER.upper(), "b")],
        [("X-Cytoplane-Tenant", "x")],
    ):
        answer = usual.get("whatever", headers=forged, at=own(usual))
        assert answer.header(CALLER) == ["web.shop"], forged
        assert answer.header("x-cytoplane-tenant") == []


def test_an_endpoint_that_others_reach_too_is_told_no_caller(usual: Stage, backends: dict[str, list]) -> None:
    config = usual.config
    silent = [listener(config, "l1", 10000, "c1", "")]
    assert usual.apply(document([cluster(config, "c1", [backends["one"]])], {}, silent)) == []
    answer = usual.get("x", headers=[(CALLER, "web.shop")], at=own(usual))
    assert (answer.status, answer.header(CALLER)) == (200, [])


def test_the_connection_header_cant_take_the_callers_name_away(usual: Stage) -> None:
    answer = usual.get(
        "x", headers=[("Connection", f"close, {CALLER}"), (CALLER, "admin.bank")], at=own(usual)
    )
    assert answer.status >= 400 or answer.header(CALLER) == ["web.shop"]
    answer = usual.get(SHOP, headers=[("Connection", f"close, {CALLER}"), (CALLER, "admin.bank")])
    assert answer.status >= 400 or answer.header(CALLER) == []


def test_two_listeners_tell_two_callers(usual: Stage, backends: dict[str, list]) -> None:
    config = usual.config
    two = [listener(config, "l1", 10000, "c1", "web.shop"), listener(config, "l2", 10001, "c1", "job.shop")]
    assert usual.apply(document([cluster(config, "c1", [backends["one"]])], {}, two)) == []
    assert [usual.get(at=own(usual, port)).header(CALLER) for port in (10000, 10001)] == [
        ["web.shop"],
        ["job.shop"],
    ]


def test_header_names_with_underscores_are_refused(usual: Stage) -> None:
    for at in (None, own(usual), (usual.north(), 20000)):
        assert usual.get(OTHER, headers=[("x_cytoplane_caller", "web.shop")], at=at).status == 400


def test_applications_dont_speak_as_the_platform(usual: Stage) -> None:
    for at, host in ((None, SHOP), (own(usual), "x"), ((usual.north(), 20000), OTHER)):
        headers = usual.get(host, at=at).headers
        for name in (
            CALLER,
            "x-cytoplane-tenant",
            "x-forwarded-client-cert",
            "x-envoy-upstream-service-time",
        ):
            assert name not in headers, (at, name)


def test_the_clients_address_is_passed_on_and_envoys_switches_arent(usual: Stage) -> None:
    headers = [
        ("X-Envoy-Upstream-Rq-Timeout-Ms", "1"),
        ("X-Envoy-Internal", "true"),
        ("X-Forwarded-For", "192.0.2.1"),
    ]
    answer = usual.get(path="/slow", headers=headers)
    assert answer.status == 200, "a client must not set the gateway's timeouts"
    assert answer.header("x-envoy-internal") == []
    assert answer.header("x-forwarded-for") == [f"192.0.2.1,{usual.north()}"]


# Doors.


def test_a_door_opens_only_to_the_hosts_it_declares(usual: Stage) -> None:
    at = (usual.north(), 20000)
    for host in (OTHER, f"{OTHER}:8080", f"{OTHER}:{usual.config.apps_port}", f"{OTHER}."):
        assert usual.get(host, at=at).asked["name"] == "two", host
    for host in (SHOP, f"{SHOP}:8080", "nobody.localhost", f"{OTHER}.{SHOP}"):
        assert usual.get(host, at=at).status == 404, host


def test_a_door_to_a_host_that_nobody_has_yet_is_closed_until_it_is_claimed(
    usual: Stage, backends: dict
) -> None:
    config = usual.config
    clusters = [cluster(config, "c1", [backends["one"]])]
    doors = [door(config, "d1", 20000, [OTHER])]
    assert usual.apply(document(clusters, {SHOP: "c1"}, [], doors)) == []
    assert usual.get(OTHER, at=(usual.north(), 20000)).status == 404
    assert usual.apply(document(clusters, {SHOP: "c1", OTHER: "c1"}, [], doors)) == []
    assert usual.get(OTHER, at=(usual.north(), 20000)).asked["name"] == "one"


# Protocols.


def test_a_client_keeps_its_connection(usual: Stage) -> None:
    connection = usual.connection(usual.north(), addresses.NORTH_HTTP_PORT)
    socket_before = connection.sock
    assert [ask(connection, SHOP).asked["name"] for _ in range(5)] == ["one"] * 5
    assert ask(connection, OTHER).asked["name"] == "two"
    assert connection.sock is socket_before
    connection.close()


def test_websockets_pass_in_both_directions(usual: Stage) -> None:
    lines = ["GET /websocket HTTP/1.1", f"Host: {SHOP}", "Connection: Upgrade", "Upgrade: websocket"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""]
    for at in ((usual.north(), addresses.NORTH_HTTP_PORT), own(usual)):
        with run_in(usual.path, lambda at=at: socket.create_connection(at, timeout=10)) as client:  # type: ignore[misc]
            client.sendall("\r\n".join(lines).encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            assert head.startswith(b"HTTP/1.1 101"), head
            for word in (b"hello", b"world"):
                client.sendall(word)
                assert client.recv(64) == word.upper()


def test_grpc_clusters_are_spoken_to_in_http2(usual: Stage) -> None:
    address = addresses.workload(usual.config, 8195).v4

    def listen() -> socket.socket:
        server = socket.create_server((address, 9000))
        server.settimeout(10)
        return server

    with run_in(usual.path, listen) as server:
        found = document([cluster(usual.config, "g1", [["g", address, 9000]], "grpc")], {SHOP: "g1"})
        assert usual.apply(found) == []
        client = usual.connection(usual.north(), addresses.NORTH_HTTP_PORT)
        client.request(
            "POST",
            "/a.Service/Method",
            headers={"Host": SHOP, "Content-Type": "application/grpc", "TE": "trailers"},
        )
        accepted, _ = server.accept()
        accepted.settimeout(10)
        assert accepted.recv(24, socket.MSG_WAITALL) == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        accepted.close()
        client.close()


# Updates.


def test_every_update_is_taken_over_whatever_came_before(usual: Stage, backends: dict[str, list]) -> None:
    """New clusters with new listeners and routes to them, others gone, in any order."""
    dice = random.Random(7)
    config, entries = usual.config, [backends["one"], backends["two"]]
    for number in range(25):
        names = [f"c{dice.randrange(40)}" for _ in range(dice.randrange(6))]
        clusters = [
            cluster(config, name, dice.sample(entries, dice.randrange(3))) for name in sorted(set(names))
        ]
        if number % 3 == 0:
            clusters.reverse()
        routes = {
            f"{entry['name']}.acme.localhost": entry["name"] for entry in clusters if dice.random() < 0.7
        }
        # A connection keeps its port for life, and no other ever gets it.
        listeners = [
            listener(config, f"l-{name}-{other}", 11000 + int(name[1:]) * 2 + other, name, "web.shop")
            for name in (entry["name"] for entry in clusters)
            for other in range(2)
            if dice.random() < 0.4
        ]
        dice.shuffle(listeners)
        doors = [door(config, f"d{place}", 21000 + place, list(routes)) for place in range(dice.randrange(3))]
        assert usual.apply(document(clusters, routes, listeners, doors)) == [], number
        for host, name in routes.items():
            ready = next(entry["backends"] for entry in clusters if entry["name"] == name)
            assert usual.get(host).status == (200 if ready else 503), (number, host)
        for entry in listeners:
            ready = next(found["backends"] for found in clusters if found["name"] == entry["cluster"])
            assert usual.get(at=own(usual, entry["port"])).status == (200 if ready else 503), number
    left = {file.stem for file in (config.gateway_dir / "eds").glob("*.json")}
    assert left == {entry["name"] for entry in clusters}, "files of clusters that are gone go too"


def test_what_says_the_same_isnt_written_again(usual: Stage, backends: dict[str, list]) -> None:
    folder = usual.config.gateway_dir
    found = document([cluster(usual.config, "c1", [backends["one"]])], {SHOP: "c1"})
    assert usual.apply(found) == []
    files = [*folder.glob("*ds.json"), *folder.glob("eds/*.json")]
    assert len(files) == 4
    before = {file: file.stat().st_ino for file in files}
    assert usual.apply(found) == []
    assert {file: file.stat().st_ino for file in files} == before


def test_a_file_that_was_overdue_is_written_again_though_it_says_the_same(
    usual: Stage, backends: dict
) -> None:
    config, folder = usual.config, usual.config.gateway_dir
    clusters = [cluster(config, "c1", [backends["one"]])]
    twice = [listener(config, name, 10000, "c1", name) for name in ("a", "b")]
    refused = document(clusters, {SHOP: "c1"}, twice)
    expected = usual.gateway.apply(refused)
    assert usual.gateway.wait(expected, 0.5) == [LISTENERS]
    before = {name: (folder / name).stat().st_ino for name in ("lds.json", "cds.json")}
    usual.gateway.apply(refused)
    after = {name: (folder / name).stat().st_ino for name in ("lds.json", "cds.json")}
    assert after["lds.json"] != before["lds.json"]
    assert after["cds.json"] == before["cds.json"]
    assert usual.get().status == 200, "what was in force before a refusal stays"
    assert usual.apply(document(clusters, {SHOP: "c1"}, twice[:1])) == []
    assert usual.get(at=own(usual)).header(CALLER) == ["a"]


def test_no_request_is_dropped_while_everything_changes(usual: Stage, backends: dict[str, list]) -> None:
    config = usual.config
    wrong: list[str] = []
    done = threading.Event()
    count = [0] * 4

    def client(number: int) -> None:
        connection: http.client.HTTPConnection | None = None
        while not done.is_set():
            try:
                connection = connection or usual.connection(usual.north(), addresses.NORTH_HTTP_PORT)
                answer = ask(connection, SHOP)
                if answer.status != 200:
                    wrong.append(f"{answer.status} {answer.text}")
                count[number] += 1
                if answer.headers.get("connection") == "close" or count[number] % 10 == 0:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                wrong.append(repr(error))
                connection = None

    two = [backends["one"], backends["two"]]
    assert usual.apply(document([cluster(config, "c0", two)], {SHOP: "c0"})) == []
    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(20):
            # Another component takes the host over, by a cluster that is new; replicas come and go.
            names = [f"c{number}", f"c{number + 1}"]
            clusters = [cluster(config, name, two) for name in names]
            clusters.append(cluster(config, f"x{number}", [backends["one"]]))
            listeners = [listener(config, f"l{number}", 12000 + number, f"x{number}", "web.shop")]
            serving = {0: {"one"}, 1: {"two"}}.get(number % 4)
            assert usual.apply(document(clusters, {SHOP: names[1]}, listeners), serving) == []
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert all(count), count


def test_the_admin_interface_is_a_socket_that_only_its_owner_opens(usual: Stage) -> None:
    file = usual.config.gateway_dir / "admin.sock"
    found = file.stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert (found.st_uid, found.st_gid) == processes.nobody()
    listening = usual.gateway.admin("GET", "/listeners?format=json")
    assert "admin" not in {entry["name"] for entry in json.loads(listening)["listener_statuses"]}


def test_an_envoy_that_doesnt_answer_has_taken_over_nothing(backends: dict[str, list], usual: Stage) -> None:
    with stage("gwtest2") as made:
        found = document([cluster(made.config, "c1", [["a", "10.0.0.1", 80]])], {SHOP: "c1"})
        expected = made.gateway.apply(found)
        assert made.gateway.wait(expected, 0.1) == sorted(expected)
        assert not made.gateway.healthy()
        with made.envoy() as process:
            assert made.gateway.wait(expected, 10) == [], "it reads all files when it starts"
            os.kill(process.pid, signal.SIGSTOP)
            try:
                later = document([cluster(made.config, "c2", [["a", "10.0.0.1", 80]])], {SHOP: "c2"})
                expected = made.gateway.apply(later)
                assert "cluster_manager.cds.version_text" in made.gateway.wait(expected, 0.1)
            finally:
                os.kill(process.pid, signal.SIGCONT)
            assert made.gateway.wait(made.gateway.apply(later), 10) == []
