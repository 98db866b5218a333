"""Commands in a container: what they may, what they say, and that nothing of them stays."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataplane.agent.commands import CantEnter, Command, entering, machine
from tests.dataplane.agent.stage import PYTHON, Node, node, until

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]
SLEEP = "import time; print('here', flush=True); time.sleep(600)"
STATUS = """
import json, os, socket
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
def refused(call):
    try: call(); return False
    except OSError as error: return error.errno
print(json.dumps({
    "status": {key: status[key].strip() for key in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")},
    "uid": os.getuid(), "word": os.environ.get("WORD"), "netns": os.readlink("/proc/self/ns/net"),
    "cgroup": open("/proc/self/cgroup").read(), "packet": refused(lambda: socket.socket(17, 3)),
    "files": __import__("resource").getrlimit(__import__("resource").RLIMIT_NOFILE)[1],
    "root": refused(lambda: open("/etc/mine", "w")), "open": os.listdir("/proc/self/fd"),
}))
"""


@pytest.fixture(scope="module")
def stage() -> Iterator[Node]:
    with node() as made:
        yield made


@pytest.fixture(scope="module")
def replica(stage: Node) -> dict[str, Any]:
    """One that sleeps; its environment has a word."""
    wanted = stage.endpoint(
        SLEEP, environment={"WORD": "hello"}, probe={"type": "none", "interval": 1, "grace": 30}
    )
    worker = stage.worker(wanted)
    until(lambda: worker.status.phase == "healthy", f"{worker.status}")
    return wanted


class Run:
    """A command, and what it has written so far."""

    def __init__(self, stage: Node, replica: dict[str, Any], *words: str, tty: bool = False) -> None:
        command = Command(1, replica["id"], list(words), tty, (30, 100))
        self.process = entering.Entered(stage.config, machine.find(stage.config, replica["id"]), command)
        self.said = {"out": b"", "err": b""}
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        for stream, data in self.process.output():
            self.said[stream] += data

    def end(self) -> int | None:
        self.thread.join(20)
        assert not self.thread.is_alive()
        code = self.process.wait()
        self.process.kill()
        self.process.close()
        return code


def python(stage: Node, replica: dict[str, Any], program: str, *, tty: bool = False) -> Run:
    return Run(stage, replica, PYTHON, "-I", "-c", program, tty=tty)


@pytest.mark.capability("exec", "machine")
def test_output_errors_and_exit_code_are_told_apart(stage: Node, replica: dict[str, Any]) -> None:
    run = python(stage, replica, "import sys; print('one'); print('two', file=sys.stderr); sys.exit(7)")
    assert run.end() == 7
    assert run.said == {"out": b"one\n", "err": b"two\n"}


def test_a_command_that_closes_its_streams_goes_on(stage: Node, replica: dict[str, Any]) -> None:
    run = python(stage, replica, "import os, time; os.close(1); os.close(2); time.sleep(6); os._exit(7)")
    assert run.end() == 7


def test_it_may_what_the_replicas_own_process_may(stage: Node, replica: dict[str, Any]) -> None:
    """User, rights, filter of system calls, limits, namespaces: the same, seen from inside."""
    run = python(stage, replica, STATUS)
    assert run.end() == 0, run.said
    seen = json.loads(run.said["out"])
    assert seen["status"] == {"CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
    assert (seen["word"], seen["packet"], seen["files"]) == ("hello", 97, 16384)
    assert seen["root"] in (13, 30)
    # Nothing of the node: its streams, and what lists them.
    assert sorted(seen["open"]) == ["0", "1", "2", "3"]
    state = stage.state(replica)
    assert state is not None
    assert seen["netns"] == str(Path(f"/proc/{state['Pid']}/ns/net").readlink())
    status = Path(f"/proc/{state['Pid']}/status").read_text()
    assert "Seccomp_filters:\t1\n" in status or "Seccomp:\t2\n" in status


def test_it_counts_against_the_replicas_limits(stage: Node, replica: dict[str, Any]) -> None:
    run = python(stage, replica, SLEEP)
    until(lambda: run.said["out"] == b"here\n")
    state = stage.state(replica)
    assert state is not None
    groups = [Path(f"/proc/{pid}/cgroup").read_text() for pid in (state["Pid"], run.process.pid)]
    assert groups[0] == groups[1]
    run.process.kill()
    run.end()


def test_input_is_passed_on_to_its_end(stage: Node, replica: dict[str, Any]) -> None:
    run = python(stage, replica, "import sys; d = sys.stdin.buffer.read(); print(len(d), d[:3])")
    for _ in range(8):
        run.process.write(b"abc" * 10000)
    run.process.close_input()
    with pytest.raises(BrokenPipeError):
        run.process.write(b"more")
    assert run.end() == 0
    assert run.said["out"] == b"240000 b'abc'\n"


def test_a_terminal_has_a_size_echoes_and_interrupts(stage: Node, replica: dict[str, Any]) -> None:
    program = """
import os, signal, sys
# Not print: a signal may come in the middle of one, and it can't be entered twice.
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
try:
    signal.signal(signal.SIGWINCH, lambda *a: say("now", os.get_terminal_size()))
    say(os.isatty(0), os.get_terminal_size())
    while True: signal.pause()
except KeyboardInterrupt:
    say("interrupted"); sys.exit(9)
"""
    run = python(stage, replica, program, tty=True)
    until(lambda: b"True" in run.said["out"])
    run.process.resize(33, 111)
    until(lambda: b"now os.terminal_size(columns=111, lines=33)" in run.said["out"])
    run.process.write(b"\x03")
    assert run.end() == 9
    assert b"interrupted" in run.said["out"]


def test_a_signal_reaches_the_command_and_what_it_started(stage: Node, replica: dict[str, Any]) -> None:
    program = f"""
import subprocess, sys
child = subprocess.Popen([{PYTHON!r}, "-I", "-c", "import time; time.sleep(600)"])
try:
    print("here", flush=True)
    child.wait()
except KeyboardInterrupt: sys.exit(5 + child.wait())
"""
    run = python(stage, replica, program)
    until(lambda: run.said["out"] == b"here\n")
    run.process.signal("INT")
    # The child ends by the signal (-2) or with its traceback (1), or its end is missed by the signal's (0).
    assert run.end() in (3, 5, 6)


def test_nothing_of_it_stays(stage: Node, replica: dict[str, Any]) -> None:
    """Children too, also those whose parent has gone."""
    program = f"""
import subprocess, os
child = subprocess.Popen([{PYTHON!r}, "-I", "-c", "import time; time.sleep(600)"])
print("here", flush=True)
if os.fork(): child.wait()
else: child.poll() or __import__("time").sleep(600)
"""
    run = python(stage, replica, program)
    until(lambda: run.said["out"] == b"here\n")
    pid, mount = run.process.pid, run.process.mount
    until(lambda: len(entering.members(pid, mount)) == 3)
    run.process.kill()
    assert entering.members(pid, mount) == []
    run.end()
    state = stage.state(replica)
    assert state is not None
    assert state["Running"]


def test_a_name_that_isnt_text_hides_nobody(stage: Node, replica: dict[str, Any]) -> None:
    program = f"open('/proc/self/comm', 'wb').write(bytes([255, 41, 254])); {SLEEP}"
    run = python(stage, replica, program)
    until(lambda: run.said["out"] == b"here\n")
    assert entering.members(run.process.pid, run.process.mount) == [run.process.pid]
    run.process.kill()
    assert run.end() == 137


def test_a_first_thread_that_has_ended_hides_nobody(stage: Node, replica: dict[str, Any]) -> None:
    """The kernel shows such a process as one that has ended; its other threads go on."""
    program = f"""
import ctypes, os, threading
def on(): {SLEEP}
threading.Thread(target=on).start()
ctypes.CDLL(None).syscall({{"x86_64": 60}}.get(os.uname().machine, 93), 0)  # exit, of this thread alone
"""
    run = python(stage, replica, program)
    until(lambda: run.said["out"] == b"here\n")
    pid = run.process.pid
    until(lambda: ") Z " in Path(f"/proc/{pid}/stat").read_text())
    run.process.kill()
    assert run.end() == 137


def test_an_agent_that_begins_anew_ends_what_the_one_before_began(
    stage: Node, replica: dict[str, Any]
) -> None:
    run = python(stage, replica, SLEEP)
    until(lambda: run.said["out"] == b"here\n")
    pid = run.process.pid
    entering.clear(stage.config)
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()
    assert run.end() == 137


def test_what_cant_be_started_is_told_in_a_sentence(stage: Node, replica: dict[str, Any]) -> None:
    for words, sentence in (
        (["/nowhere"], "There is no such program in the container."),
        (["/etc/hosts"], "The container's user may not run this program."),
    ):
        with pytest.raises(CantEnter) as error:
            Run(stage, replica, *words)
        assert str(error.value) == sentence
    with pytest.raises(CantEnter, match="doesn't run"):
        Run(stage, {"id": "r1"}, "id")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"cwd": "/nowhere"}, "The container's folder /nowhere isn't there"),
        # This machine's kernel can't: then the command isn't run without it.
        ({"selinuxLabel": "system_u:system_r:container_t:s0:c1,c2"}, "It can't be started"),
    ],
)
def test_what_the_runtime_was_told_holds_or_nothing_runs(
    stage: Node, replica: dict[str, Any], more: dict[str, Any], sentence: str
) -> None:
    found = machine.find(stage.config, replica["id"])
    process = found.specification["process"] | more
    target = dataclasses.replace(found, specification=found.specification | {"process": process})
    command = Command(1, replica["id"], [PYTHON, "-c", ""], False, (1, 1))
    with pytest.raises(CantEnter, match=sentence):
        entering.Entered(stage.config, target, command)


def test_who_goes_on_printing_after_the_commands_end_keeps_nobody(
    stage: Node, replica: dict[str, Any]
) -> None:
    """What made itself a session of its own outlives the command; the agent doesn't read it for ever."""
    forever = "while True: print('x' * 1000, flush=True)"
    program = f"""
import os, subprocess, sys, time
subprocess.Popen([{PYTHON!r}, "-I", "-c", {forever!r}], start_new_session=True)
time.sleep(0.3)
print("last", file=sys.stderr)
sys.exit(4)
"""
    run = python(stage, replica, program)
    assert run.end() == 4
    assert run.said["err"] == b"last\n"


def test_all_that_was_printed_before_the_end_is_read(stage: Node, replica: dict[str, Any]) -> None:
    """As much as the largest pipe holds, by a command that doesn't wait for its reader."""
    program = """
import fcntl, os
fcntl.fcntl(1, 1031, 1024 * 1024)
os.set_blocking(1, False)
os.write(1, b"x" * 1024 * 1024)
"""
    run = python(stage, replica, program)
    assert run.end() == 0
    assert len(run.said["out"]) == 1024 * 1024


def test_input_that_nobody_reads_keeps_no_thread(stage: Node, replica: dict[str, Any]) -> None:
    """Somebody who lives on holds its other end."""
    program = f"""
import subprocess
subprocess.Popen([{PYTHON!r}, "-I", "-c", "import time; time.sleep(600)"], start_new_session=True)
print("here", flush=True)
"""
    run = python(stage, replica, program)
    refused: list[OSError] = []

    def write() -> None:
        try:
            run.process.write(b"x" * 1_000_000)
        except OSError as error:
            refused.append(error)

    typing = threading.Thread(target=write, daemon=True)
    typing.start()
    assert run.end() == 0
    typing.join(10)
    assert not typing.is_alive()
    assert refused


def test_a_number_that_is_anothers_by_now_isnt_entered(stage: Node, replica: dict[str, Any]) -> None:
    target = machine.find(stage.config, replica["id"])
    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            with pytest.raises(CantEnter, match="doesn't run any more"):
                entering.Entered(
                    stage.config,
                    dataclasses.replace(target, pid=other.pid),
                    Command(1, replica["id"], ["id"], False, (1, 1)),
                )
        finally:
            other.kill()


def test_a_command_that_cant_be_written_down_isnt_left_running(
    stage: Node, replica: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody would follow it, or end it."""
    begun: list[entering.Entered] = []

    def full(_file: Path, _data: bytes) -> None:
        frame = sys._getframe(1)
        begun.append(frame.f_locals["self"])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(entering, "write_private", full)
    with pytest.raises(CantEnter, match="No space left"):
        python(stage, replica, SLEEP)
    assert entering.members(begun[0].pid, begun[0].mount) == []


def test_it_is_ended_no_later_than_the_replica_when_memory_runs_out(
    stage: Node, replica: dict[str, Any]
) -> None:
    """The agent is protected from that, the more so on Kubernetes; what it begins isn't."""
    state = stage.state(replica)
    assert state is not None
    place = Path(f"/proc/{state['Pid']}/oom_score_adj")
    before = place.read_text()
    place.write_text("321")
    try:
        run = python(stage, replica, "print(open('/proc/self/oom_score_adj').read())")
        assert run.end() == 0
        assert run.said["out"].strip() == b"321"
    finally:
        place.write_text(before)
