"""The self-check's program, in a namespace of its own, against the real resolver in another: whatever half of
the boundary is missing, it says so and ends with another code."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bpf.tables import Flow
from dataplane.agent.namespaces import run_in
from dataplane.check import CLOSED, is_own, uninvited
from dataplane.registry import names
from dataplane.resolver import lessons
from infra.images import parts
from tests.dataplane import processes
from tests.dataplane.check.program import program

__all__ = ["program"]

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")]
NET = int(os.environ.get("CYTOPLANE_TEST_NET", "11"))
POD, RESOLVER = "10.99.53.2", "10.99.53.3"
OUT = f"ip daddr {RESOLVER} udp dport 54 drop"
#: What the node sends, whose address is the resolver's here.
IN = f"ip saddr {RESOLVER} udp sport != 53 ct state new drop"


#: Tag of the check's image → its source.
VERSION = ("2", "9a93d69cde20c2ed")


def test_another_check_is_another_image() -> None:
    """Nodes keep an image by its tag: raise ``names.CHECK_TAG`` and the chart's setting with each change."""
    source = (parts.REPOSITORY / "dataplane/check/check.c").read_bytes()
    assert (names.CHECK_TAG, hashlib.sha256(source).hexdigest()[:16]) == VERSION


def flow(**different: Any) -> Flow:
    usual = {
        "source": 300,
        "destination": 1,
        "remote": "10.0.0.1",
        "port": 54,
        "protocol": 17,
        "direction": 0,
    }
    usual |= {"allowed": False, "reason": "FLOOR", "rule": 0, "packets": 1, "bytes": 29}
    return Flow(**{**usual, **different})


def test_only_what_the_check_tries_is_its_own() -> None:
    assert f"CLOSED = {CLOSED}," in (parts.REPOSITORY / "dataplane/check/check.c").read_text()
    assert is_own(flow())
    for other in ({"allowed": True}, {"port": 53}, {"protocol": 6}):
        assert not is_own(flow(**other))


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def places() -> Iterator[tuple[str, str]]:
    """A pod's namespace and the resolver's, linked without any boundary."""
    pod, resolver = f"cyck{NET}-pod", f"cyck{NET}-dns"
    for name in (pod, resolver):
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    try:
        ip("netns", "add", pod)
        ip("netns", "add", resolver)
        ip("-n", pod, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", resolver)
        for name, address in ((pod, POD), (resolver, RESOLVER)):
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield pod, resolver
    finally:
        for name in (pod, resolver):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@contextmanager
def _agent(folder: Path, namespace: str) -> Iterator[None]:
    """Who sends what nobody asked for when the resolver says so. Whom it may be sent to, the agent's own tests
    have."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(lessons.path_in(folder)))
        server.listen()

        def answer() -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client:
                        question = json.loads(client.makefile().readline())
                        if "uninvited" in question:
                            run_in(Path("/run/netns", namespace), lambda: uninvited(*question["uninvited"]))  # noqa: B023
                        client.sendall(b'{"sent": true}\n')

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextmanager
def _serving(folder: Path, namespace: str, askers: dict[str, int]) -> Iterator[None]:
    """The resolver's own server in its namespace, with a table as the agent writes it."""
    (folder / "table.json").write_text(json.dumps({"askers": askers, "names": {}}))
    text = (
        "import asyncio, sys; from pathlib import Path; from dataplane.resolver.server import serve;"
        "from dataplane.resolver.table import Table; from dataplane.resolver.denials import Denials;"
        "from dataplane.resolver.lessons import Agent, path_in;"
        "folder = Path(sys.argv[1]); table = Table(folder / 'table.json'); agent = Agent(path_in(folder));"
        f"asyncio.run(serve(table, Denials(folder / 'denials'), ['{RESOLVER}'], agent=agent))"
    )
    folder.chmod(0o755)
    command = ["env", f"PYTHONPATH={parts.REPOSITORY}", sys.executable, "-c", text, str(folder)]
    inside = ["nsenter", f"--net=/run/netns/{namespace}", "--"]

    def ready() -> bool:
        query = ["ss", "-Hlun", "sport", "=", "53"]
        return bool(subprocess.run([*inside, *query], capture_output=True, check=True).stdout)

    place = Path("/run/netns", namespace)
    with (
        _agent(folder, namespace),
        processes.process(command, folder / "log", ready, namespace=place, rights=True),
    ):
        yield


@pytest.fixture
def check(program: Path, places: tuple[str, str]):  # type: ignore[no-untyped-def]
    pod, _ = places

    def run(*rules: str, tries: int = 4) -> tuple[int, str]:
        inside = ["ip", "netns", "exec", pod]
        text = "flush ruleset\ntable inet t {\n"
        for hook in ("output", "input"):
            wanted = [rule for rule in rules if ("daddr" in rule) == (hook == "output")]
            text += f"chain {hook} {{ type filter hook {hook} priority 0; {'; '.join(wanted)}\n}}\n"
        subprocess.run(
            [*inside, "nft", "-f", "-"], input=text + "}\n", text=True, check=True, capture_output=True
        )
        # Without rights, as in a pod.
        command = [*inside, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
        command += ["--bounding-set=-all", "--inh-caps=-all", "--", str(program), RESOLVER, str(tries)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stdout.strip()

    program.parent.chmod(0o755)
    for parent in (program.parent.parent, program.parent.parent.parent):
        parent.chmod(parent.stat().st_mode | 0o011)
    return run


def test_each_missing_half_of_the_boundary_is_found(check, places: tuple[str, str], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with _serving(tmp_path, places[1], {POD: 300}):
        assert check(OUT, IN) == (0, "The boundary is there in both directions.")
        code, said = check(IN)
        assert code == 1
        assert said.startswith(
            f"The boundary is open outwards: what was sent to {RESOLVER} port 54 was answered"
        )
        code, said = check(OUT)
        assert code == 1 and said.startswith("The boundary is open inwards")
        assert check()[0] == 1


def test_a_pod_that_the_resolver_doesnt_know_isnt_started(
    check, places: tuple[str, str], tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    with _serving(tmp_path, places[1], {}):
        code, said = check(OUT, IN)
        assert code == 2 and "isn't the platform's resolver" in said


def test_without_a_resolver_it_says_so_and_isnt_content(check, places: tuple[str, str]) -> None:  # type: ignore[no-untyped-def]
    code, said = check(OUT, IN, tries=1)
    assert code == 2 and "doesn't answer" in said
