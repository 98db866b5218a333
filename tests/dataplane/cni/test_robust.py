"""The plugin is given damaged input of every kind, built so that any step outside of its memory ends it."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from dataplane.cni import build

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler to build the plugin with")
CHECKED = (
    "gcc", "-std=gnu17", "-g", "-O1", "-Wall", "-Wextra", "-Werror",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DWAIT_MS=2000",
)  # fmt: skip
ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/x",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "K8S_POD_NAMESPACE=cell-7-0123abcd;K8S_POD_NAME=r1-a",
}
ANSWERS = [
    b'{"allowed": true}',
    b'{"refused": "no \\u00e9 \\"quoted\\""}',
    b'{"a": [1, {"b": null}], "allowed": true}',
]


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("checked") / "plugin"
    done = subprocess.run(
        [*CHECKED, "-o", str(target), str(build.SOURCE)], capture_output=True, text=True, check=False
    )
    if done.returncode and "sanitize" in done.stderr + done.stdout or "lasan" in done.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def damage() -> random.Random:
    return random.Random(20260101)


def damaged(text: bytes, chance: random.Random) -> bytes:
    """A text with something cut, put in twice, swapped or overwritten."""
    where = chance.randrange(len(text) + 1)
    kind = chance.randrange(5)
    if kind == 0:
        return text[:where]
    if kind == 1:
        return text[:where] + bytes([chance.randrange(256)]) + text[where + 1 :]
    if kind == 2:
        return text[:where] + text[where // 2 :]
    if kind == 3:
        return text[:where] + chance.choice([b'"', b"\\", b"{", b"[", b"\0", b"\\u12", b","]) + text[where:]
    return text[where:] + text[:where]


def call(plugin: Path, text: bytes, **environment: str) -> tuple[int, bytes]:
    done = subprocess.run(
        [plugin], input=text, env={**ENVIRONMENT, **environment}, capture_output=True, check=False, timeout=30
    )
    assert done.returncode in (0, 1), done.stderr.decode(errors="replace")[-2000:]
    assert b"runtime error" not in done.stderr and b"Sanitizer" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def configuration(socket_path: Path) -> bytes:
    document = {"cniVersion": "1.0.0", "name": "n", "type": "cytoplane", "socket": str(socket_path)}
    return json.dumps(
        {**document, "prevResult": {"ips": [{"address": "10.0.0.2/24"}], "x": "é\n\\"}}
    ).encode()


def test_damaged_configurations_let_nobody_in_and_break_nothing(
    checked: Path, tmp_path: Path, damage: random.Random
) -> None:
    text = configuration(tmp_path / "nobody.sock")
    for command in ("ADD", "CHECK", "DEL", "VERSION", ""):
        for _ in range(12):
            code, said = call(checked, damaged(text, damage), CNI_COMMAND=command)
            if command in ("ADD", "CHECK"):
                assert code == 1, said
    nested = b'{"prevResult": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert call(checked, nested)[0] == 1
    assert call(checked, b"{" * 600_000)[0] == 1


def test_damaged_arguments_break_nothing(checked: Path, tmp_path: Path, damage: random.Random) -> None:
    text = configuration(tmp_path / "nobody.sock")
    for _ in range(12):
        arguments = damaged(ENVIRONMENT["CNI_ARGS"].encode(), damage).replace(b"\0", b"").decode("latin-1")
        call(checked, text, CNI_ARGS=arguments)
    call(checked, text, CNI_ARGS="K8S_POD_NAMESPACE=" + "c" * 100_000)
    call(checked, text, CNI_ARGS=";=;;K8S_POD_NAMESPACE;K8S_POD_NAMESPACE=", CNI_NETNS='"\\\n' * 3000)


@pytest.fixture
def agent(tmp_path: Path, damage: random.Random) -> Iterator[Path]:
    """Somebody who reads what is asked, or a part of it, and answers nonsense."""
    path = tmp_path / "cni.sock"
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(path))
        server.listen(8)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, suppress(OSError):
                        connection.settimeout(1)
                        connection.recv(damage.choice((1, 65536)))
                        connection.sendall(damaged(damage.choice(ANSWERS), damage))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_damaged_answers_break_nothing_and_what_is_said_is_json(checked: Path, agent: Path) -> None:
    text = configuration(agent)
    for _ in range(30):
        code, said = call(checked, text)
        # Damage may have left an answer whole, so both can be; what is said is always whole.
        assert isinstance(json.loads(said.decode(errors="replace")), dict)
        assert (code == 0) == (b"prevResult" not in said and b'"ips"' in said)
