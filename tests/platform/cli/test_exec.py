"""`cyto exec` against the real API, and a node's side of sessions; commands are processes of this machine."""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from controlplane.errors import CytoplaneError
from dataplane.agent.commands import CantEnter, Command
from dataplane.agent.commands.following import Sessions
from dataplane.client import ControlPlane
from dataplane.planes.agents_asgi import application
from execution import relay
from execution.models import Session
from tests.dataplane.processes import await_true
from tests.platform.cli.conftest import Platform, Server


class Node(ControlPlane):
    """A node behind the control gateway, which has verified its certificate and forwards its hash."""

    enrolled = True  # type: ignore[assignment]

    def __init__(self, folder: Path, base: str, fingerprint: str) -> None:
        super().__init__(folder, base)
        self._client = httpx.Client(
            base_url=base, headers={"X-Forwarded-Client-Cert": f"Hash={fingerprint}"}, timeout=40
        )


class Local:
    """A command on this machine as a ``commands.Process``."""

    def __init__(self, command: Command) -> None:
        pipe = subprocess.PIPE
        try:
            self.process = subprocess.Popen(
                command.words, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True
            )
        except OSError:
            raise CantEnter("There is no such program in the container.") from None

    def output(self) -> Iterator[tuple[str, bytes]]:
        with selectors.DefaultSelector() as selector:
            for file, stream in ((self.process.stdout, "out"), (self.process.stderr, "err")):
                assert file is not None
                selector.register(file, selectors.EVENT_READ, stream)
            while selector.get_map():
                for key, _ in selector.select():
                    if data := os.read(key.fd, 4096):
                        yield key.data, data
                    else:
                        selector.unregister(key.fileobj)

    def wait(self) -> int | None:
        return self.process.wait(10)

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def close_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def resize(self, rows: int, columns: int) -> None:
        """It has no terminal."""

    def signal(self, name: str) -> None:
        os.killpg(self.process.pid, getattr(signal, f"SIG{name}"))

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        for file in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert file is not None
            file.close()


@pytest.fixture
def shop(platform: Platform, tmp_path: Path) -> Iterator[Platform]:
    """acme's project, served by a node that follows sessions."""
    world = platform.world
    world.deploy(world.cell(world.project("shop")))
    platform.stand_in()
    agents = Server(application)
    node = Node(tmp_path / "node", agents.url, world.agent().certificate.fingerprint)
    sessions = Sessions(node, Local, lambda: None)
    thread = threading.Thread(target=sessions.follow, daemon=True)
    thread.start()
    yield platform
    sessions.stop()
    # What they say at their end is theirs: a later test's output isn't the place for it.
    for each in [each for each in threading.enumerate() if each.name.startswith("session-")]:
        each.join(30)
    agents.stop()
    thread.join(30)


def test_a_command_has_input_output_errors_and_its_exit_code(shop: Platform) -> None:
    program = "import sys; d = sys.stdin.read(); print(len(d)); print('no', file=sys.stderr); sys.exit(7)"
    ran = shop.cyto.process("exec", "api", "--", sys.executable, "-c", program, data="x" * 300_000)
    assert (ran.code, ran.out, ran.err) == (7, "300000\n", "no\n")
    document = shop.cyto.process(
        "exec", "api", "--json", "--", "sh", "-c", "yes | head -c 400000; exit 3"
    ).json
    assert (document["exit_code"], len(document["output"]), document["errors"]) == (3, 400_000, "")
    rows = shop.cyto("sessions", "--json").json
    assert [(row["state"], row["exit_code"]) for row in rows] == [("ended", 3), ("ended", 7)]
    assert "sh" in shop.cyto("sessions").out


def test_what_cant_be_started_is_told(shop: Platform) -> None:
    ran = shop.cyto.process("exec", "api", "--", "/nowhere")
    assert (ran.code, ran.error) == (10, "session-ended")
    assert "There is no such program" in ran.err
    assert shop.cyto("exec", "nothing", "--", "id").code == 4
    shop.be("viewer")
    assert shop.cyto("exec", "api", "--", "id").code == 7


def sleeping(shop: Platform, **more: Any) -> subprocess.Popen[str]:
    words = ["exec", "api", "--", "sh", "-c", "echo here; exec sleep 1000"]
    process = subprocess.Popen(
        [*shop.cyto.command, *words], env=shop.cyto.environment, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    return process


def test_ctrl_c_reaches_the_command(shop: Platform) -> None:
    process = sleeping(shop)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    session = Session.objects.get()
    assert (session.state, session.reason) == ("ended", "")
    assert session.exit_code in (-2, 130)


def test_a_client_that_is_killed_takes_its_command_along(shop: Platform) -> None:
    process = sleeping(shop)
    process.kill()
    process.communicate()
    await_true(lambda: Session.objects.get().state == "ended", "it goes on", 60)
    assert Session.objects.get().reason == "The person's side is gone."


def test_a_colleague_ends_it(shop: Platform) -> None:
    process = sleeping(shop)
    shop.be("admin")
    assert shop.cyto("sessions", "end", str(Session.objects.get().pk)).code == 0
    _, err = process.communicate(timeout=60)
    assert process.returncode == 10
    assert "It was ended by admin@acme" in err


def test_what_cant_be_written_ends_it(shop: Platform) -> None:
    """A full disk, for example: nobody waits for a reader that there isn't."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*shop.cyto.command, "exec", "api", "--", "yes"], env=shop.cyto.environment, timeout=60,
            stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "can't be written: No space left on device." in done.stderr
    assert "Traceback" not in done.stderr
    await_true(lambda: Session.objects.get().state == "ended", "it goes on", 30)


def test_input_with_a_hole_is_worse_than_an_end(shop: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    push, refusals = relay.push, list[int]()

    def once(client: Any, session: int, stream: str, number: int, piece: dict[str, Any]) -> bool:
        if (stream, number) == (relay.INPUT, 2) and not refusals:
            refusals.append(number)
            raise CytoplaneError("too-large", limit="1 KiB")
        return push(client, session, stream, number, piece)

    monkeypatch.setattr(relay, "push", once)
    program = "import sys; print(len(sys.stdin.read()), 'read')"
    ran = shop.cyto.process("exec", "api", "--", sys.executable, "-c", program, data="x" * 200_000)
    assert ran.error == "too-large"
    assert "read" not in ran.out


def test_a_failure_of_the_platforms_is_tried_again(shop: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    push, failures = relay.push, list[int]()

    def once(client: Any, session: int, stream: str, number: int, piece: dict[str, Any]) -> bool:
        if (stream, number) == (relay.INPUT, 2) and not failures:
            failures.append(number)
            raise CytoplaneError("internal")
        return push(client, session, stream, number, piece)

    monkeypatch.setattr(relay, "push", once)
    program = "import sys; print(len(sys.stdin.read()))"
    ran = shop.cyto.process("exec", "api", "--", sys.executable, "-c", program, data="x" * 200_000)
    assert (ran.code, ran.out, failures) == (0, "200000\n", [2])


def test_a_question_that_the_network_swallowed_is_asked_anew(
    shop: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In time: 20 seconds of silence end the session."""
    pull, swallowed = relay.pull, list[str]()

    async def once(session: int, stream: str, after: int, seconds: float) -> relay.Pieces:
        if stream == relay.OUTPUT and after and not swallowed:
            swallowed.append(stream)
            await asyncio.sleep(40)
        return await pull(session, stream, after, seconds)

    monkeypatch.setattr(relay, "pull", once)
    ran = shop.cyto.process("exec", "api", "--", "sh", "-c", "echo one; sleep 22; echo two")
    assert (ran.code, ran.out, len(swallowed)) == (0, "one\ntwo\n", 1)
