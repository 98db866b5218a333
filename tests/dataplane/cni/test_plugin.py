"""The plugin as a container runtime starts it: the built program, CNI's environment, an agent on a socket."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dataplane.cni import build
from dataplane.cni.names import is_cell
from dataplane.drivers.interface import location_for
from infra import config as installation

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler to build the plugin with")
CELL = "cell-7-0123abcd"
RESULT = {
    "cniVersion": "0.4.0",
    "interfaces": [{"name": "eth0"}],
    "ips": [{"address": "10.0.0.2/24"}],
    "x": "é",
}


@pytest.fixture(scope="module")
def plugin() -> Path:
    return build.build(installation.load().cache)


class Node:
    """A socket on which an agent may answer, and the plugin called beside it."""

    def __init__(self, plugin: Path, folder: Path) -> None:
        self.plugin, self.socket = plugin, folder / "cni.sock"
        self.asked: list[dict[str, Any]] = []

    def call(
        self, command: str, namespace: str, *, config: Any = None, args: str = "", seconds: float = 30
    ) -> tuple[int, Any]:
        """Exit code, and what it said."""
        whole: dict[str, Any] = {
            "cniVersion": "0.4.0",
            "name": "net",
            "type": "cytoplane",
            "socket": str(self.socket),
        }
        whole |= {"prevResult": RESULT}
        text = config if isinstance(config, str) else json.dumps(whole if config is None else config)
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": "/run/netns/x",
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": args or f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=r1-a",
            "CNI_PATH": "/opt/cni/bin",
        }
        done = subprocess.run(
            [self.plugin],
            input=text.encode(),
            env=environment,
            capture_output=True,
            check=False,
            timeout=seconds,
        )
        assert not done.stderr
        return done.returncode, json.loads(done.stdout) if done.stdout else None

    @contextlib.contextmanager
    def agent(self, answer: Callable[[socket.socket], None] | bytes) -> Iterator[None]:
        """Somebody who reads what is asked and answers."""
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(self.socket))
            server.listen(4)

            def serve() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        connection, _ = server.accept()
                        with connection, contextlib.suppress(OSError):
                            text = b""
                            while piece := connection.recv(65536):
                                text += piece
                            self.asked.append(json.loads(text))
                            if callable(answer):
                                answer(connection)
                            else:
                                connection.sendall(answer)

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            try:
                yield
            finally:
                server.shutdown(socket.SHUT_RDWR)
                thread.join()
                self.socket.unlink()


@pytest.fixture
def node(plugin: Path, tmp_path: Path) -> Node:
    return Node(plugin, tmp_path)


def test_a_cells_pod_gets_what_the_plugins_before_made_of_it_once_the_agent_agrees(node: Node) -> None:
    with node.agent(b'{"allowed": true}'):
        assert node.call("ADD", CELL) == (0, RESULT)
    (asked,) = node.asked
    assert asked["command"] == "ADD" and asked["netns"] == "/run/netns/x" and asked["container"] == "c1"
    assert asked["ifname"] == "eth0" and "K8S_POD_NAME=r1-a" in asked["args"]
    assert asked["config"]["prevResult"] == RESULT


def test_a_refusal_reaches_kubelet_as_a_sentence_and_as_try_again(node: Node) -> None:
    sentence = 'its label names "r9", which isn\'t é of this cell\n'
    with node.agent(json.dumps({"refused": sentence}).encode()):
        code, said = node.call("ADD", CELL)
    assert code == 1
    assert said == {"cniVersion": "0.4.0", "code": 11, "msg": sentence}


def test_without_an_agent_a_cells_pod_waits(node: Node) -> None:
    code, said = node.call("ADD", CELL)
    assert (code, said["code"]) == (1, 11)
    assert said["msg"] == "cytoplane: the node's agent isn't there, so the pod waits"


@pytest.mark.parametrize(
    "namespace", ["default", "kube-system", "cell-7", "cell-07-0123abcd", "cell-7-0123ABCD"]
)
def test_others_pods_are_left_alone_whether_there_is_an_agent_or_not(node: Node, namespace: str) -> None:
    assert node.call("ADD", namespace) == (0, RESULT)
    with node.agent(b'{"refused": "no"}'):
        assert node.call("ADD", namespace) == (0, RESULT)
        assert node.call("CHECK", namespace) == (0, None)
        assert node.call("DEL", namespace) == (0, None)
    assert node.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage",
        b"{",
        b'{"allowed": "true"}',
        b'{"allowed": false}',
        b'{"allowed": true} and more',
        b'{"allowed": true',
        b'{"other": {"allowed": true}}',
        b'["allowed", true]',
        b'{"refused": 7}',
        b'{"refused": "\xff',
        b'{"a": ' + b"[" * 200 + b"]" * 200 + b', "allowed": true}',
        b'{"allowed": true, "more": "' + b"x" * 70000 + b'"}',
    ],
)
def test_an_answer_that_is_none_lets_nobody_in(node: Node, answer: bytes) -> None:
    with node.agent(answer):
        code, said = node.call("ADD", CELL)
    assert (code, said["code"]) == (1, 11)
    assert "gave no answer" in said["msg"] or "doesn't answer" in said["msg"]


def test_an_agent_that_is_slow_is_waited_for(node: Node) -> None:
    def late(connection: socket.socket) -> None:
        for piece in (b'{"allo', b'wed": ', b" true}"):
            time.sleep(0.2)
            connection.sendall(piece)

    with node.agent(late):
        assert node.call("ADD", CELL) == (0, RESULT)


def test_an_agent_that_never_answers_is_given_up_on(tmp_path: Path) -> None:
    impatient = tmp_path / "impatient"
    command = [*build.COMPILER, "-DWAIT_MS=1500", "-o", str(impatient), str(build.SOURCE)]
    subprocess.run(command, check=True)
    node = Node(impatient, tmp_path)
    ended = threading.Event()

    def silent(connection: socket.socket) -> None:
        ended.wait(60)

    with node.agent(silent):
        begun = time.monotonic()
        code, said = node.call("ADD", CELL)
        waited = time.monotonic() - begun
        ended.set()
    assert (code, said["code"]) == (1, 11)
    assert said["msg"] == "cytoplane: the node's agent doesn't answer, so the pod waits"
    assert waited >= 1.5


def test_check_asks_and_del_always_succeeds(node: Node) -> None:
    assert node.call("DEL", CELL) == (0, None)
    assert node.call("CHECK", CELL)[0] == 1
    with node.agent(b'{"refused": "it is gone"}'):
        assert node.call("DEL", CELL) == (0, None)
        assert node.call("CHECK", CELL)[1]["msg"] == "it is gone"
    assert [asked["command"] for asked in node.asked] == ["DEL", "CHECK"]
    with node.agent(b'{"allowed": true}'):
        assert node.call("CHECK", CELL) == (0, None)


def test_versions_of_the_specification(node: Node) -> None:
    for version in ("0.3.1", "0.4.0", "1.0.0"):
        code, said = node.call("VERSION", "", config={"cniVersion": version})
        assert code == 0
        assert said == {"cniVersion": version, "supportedVersions": ["0.3.1", "0.4.0", "1.0.0"]}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": nul}', '{"type": "cytoplane"}', '{"prevResult": 3}'])
def test_without_a_result_before_it_the_plugin_is_misplaced_for_everybody(node: Node, text: str) -> None:
    for namespace in (CELL, "default"):
        code, said = node.call("ADD", namespace, config=text)
        assert (code, said["code"]) == (1, 7)


def test_a_cell_named_beside_another_namespace_is_a_cell(node: Node) -> None:
    for args in (
        f"K8S_POD_NAMESPACE=default;K8S_POD_NAMESPACE={CELL}",
        f"K8S_POD_NAMESPACE={CELL};K8S_POD_NAMESPACE=default",
    ):
        assert node.call("ADD", "", args=args)[0] == 1


def test_an_entry_without_a_socket_lets_no_cell_in(node: Node) -> None:
    for extra in ({}, {"socket": 3}, {"socket": "/a\\/b"}, {"socket": "/" + "x" * 200}):
        config = {"cniVersion": "1.0.0", "type": "cytoplane", "prevResult": RESULT, **extra}
        assert node.call("ADD", CELL, config=config)[0] == 1
        assert node.call("ADD", "default", config=config) == (0, RESULT)


def test_whose_a_pod_is_is_decided_in_the_same_way_in_c_and_in_python(plugin: Path) -> None:
    names = [location_for(number) for number in (1, 12, 10**18, 9_999_999_999_999_999_999)]
    names += ["", "cell", "cell-", "cell-1", "cell-1-", "cell-0-01234567", "cell-01-01234567"]
    names += ["cell-1-0123456", "cell-1-012345678", "cell-1-0123456g", "cell-1-0123456A", "cell--1-01234567"]
    names += [
        "xcell-1-01234567",
        "cell-1-01234567x",
        "cell-1-01234567\n",
        "CELL-1-01234567",
        "cell-1 -01234567",
    ]
    names += ["cell-10000000000000000000-01234567", "cell-99999999999999999999-01234567", "cell-1-01234567-0"]
    names += ["cell-\u0661-01234567", "cell-1-\uff10\uff11234567", "cell-x-01234567", "cell-1-0123-567"]
    for name in names:
        said = subprocess.run(
            [plugin, "decide", name], capture_output=True, text=True, check=True
        ).stdout.strip()
        assert said == ("cell" if is_cell(name) else "other"), name
    assert all(is_cell(name) for name in names[:4])
    assert not any(is_cell(name) for name in names[4:])


def test_the_plugin_needs_nothing_on_the_node(plugin: Path) -> None:
    said = subprocess.run(["ldd", plugin], capture_output=True, text=True, check=False)
    assert "statically linked" in said.stdout + said.stderr or "not a dynamic" in said.stdout + said.stderr


def test_it_is_put_in_place_in_one_step(plugin: Path, tmp_path: Path) -> None:
    (tmp_path / build.NAME).write_text("an earlier version")
    target = build.put(plugin, tmp_path)
    assert os.access(target, os.X_OK)
    assert [file.name for file in tmp_path.iterdir()] == [build.NAME]
