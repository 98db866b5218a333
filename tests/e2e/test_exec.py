"""Commands in running replicas, by the command line as people use it, and what ends them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installation import Installation, source

pytestmark = [pytest.mark.live, pytest.mark.root]
REPOSITORY = Path(__file__).parents[2]
TENANT, PROJECT = "acme", "consoles"
#: What a running command is recognised by, in the node's list of processes.
MARK = "import time; print('here', flush=True); time.sleep(987654)"


@pytest.fixture(scope="module")
def project(installation: Installation) -> Installation:
    result = installation.project(TENANT, PROJECT).push(source(PROJECT, "one"))
    assert result.accepted, result.output
    return installation


def environment(installation: Installation) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(installation.folder),
        "TERM": "xterm",
        "PYTHONPATH": f"{REPOSITORY / 'platform'}:{REPOSITORY}",
        "CYTO_URL": installation.config.portal_url,
        "CYTO_TOKEN": installation.api(TENANT).token,
        "CYTO_TENANT": TENANT,
        "CYTO_PROJECT": PROJECT,
    }


def started(installation: Installation, *words: str, **more: Any) -> subprocess.Popen:
    command = [sys.executable, "-m", "cli", "exec", *words]
    whole = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    return subprocess.Popen(command, env=environment(installation), cwd=installation.folder, **whole)


def ran(installation: Installation, *words: str, data: bytes = b"") -> tuple[int, bytes, bytes]:
    process = started(installation, *words)
    out, err = process.communicate(data, timeout=120)
    return process.returncode, out, err


def marked() -> list[int]:
    """Processes of a command that sleeps, wherever they are on the machine."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if words[1:3] == [b"-c", MARK.encode()]:
            found.append(int(entry.name))
    return found


@pytest.fixture
def sleeping(project: Installation) -> Iterator[subprocess.Popen]:
    """A command that runs until somebody ends it."""
    process = started(project, "web", "--", "python", "-c", MARK)
    assert process.stdout is not None
    said = process.stdout.readline()
    if said != b"here\n":
        process.kill()
        pytest.fail(f"it didn't start: {process.communicate()}")
    assert marked()
    yield process
    process.kill()
    process.communicate()


def newest(installation: Installation) -> dict[str, Any]:
    return installation.api(TENANT).call("GET", installation.cell(TENANT, PROJECT, "/sessions"))[0]


def ended(installation: Installation) -> dict[str, Any]:
    return installation.wait(lambda: (row := newest(installation))["state"] == "ended" and row, 40)


@pytest.mark.capability("exec", "machine")
def test_a_command_has_input_output_errors_and_its_exit_code(project: Installation) -> None:
    program = "import sys; d = sys.stdin.read(); print(len(d)); print('no', file=sys.stderr); sys.exit(7)"
    assert ran(project, "web", "--", "python", "-c", program, data=b"x" * 500_000) == (
        7,
        b"500000\n",
        b"no\n",
    )
    many = "import os\nfor n in range(200): os.write(1, bytes([65 + n % 26]) * 10000)"
    code, out, _ = ran(project, "web", "--", "python", "-c", many)
    assert (code, out) == (0, b"".join(bytes([65 + n % 26]) * 10000 for n in range(200)))
    row = newest(project)
    assert (row["program"], row["words"], row["state"], row["exit_code"]) == ("python", 3, "ended", 0)


def test_programs_get_one_document(project: Installation) -> None:
    code, out, _ = ran(project, "web", "--json", "--", "sh", "-c", "echo one; exit 3")
    document = json.loads(out)
    assert (code, document["exit_code"], document["output"], document["errors"]) == (3, 3, "one\n", "")


def test_at_a_terminal_the_command_has_one(project: Installation) -> None:
    ours, theirs = pty.openpty()
    process = started(project, "web", "--", "sh", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, b"test -t 0 && stty size 2>/dev/null; echo end-of-$((40 + 2)); exit 5\n")
    said = b""
    try:
        while data := os.read(ours, 4096):
            said += data
    except OSError:
        pass
    os.close(ours)
    assert process.wait(30) == 5
    assert b"end-of-42" in said


def test_ctrl_c_reaches_the_command(sleeping: subprocess.Popen, project: Installation) -> None:
    sleeping.send_signal(signal.SIGINT)
    _, err = sleeping.communicate(timeout=60)
    assert b"KeyboardInterrupt" in err
    assert sleeping.returncode in (1, 130)
    assert not marked()


def test_viewers_and_wrong_places_are_told(project: Installation) -> None:
    code, _, err = ran(project, "nothing", "--", "id")
    assert (code, b"not-found" in err) == (4, True)
    code, _, err = ran(project, "web", "--", "/nowhere")
    assert (code, b"There is no such program" in err, b"session-ended" in err) == (10, True, True)


def test_a_client_that_is_killed_takes_its_command_along(
    sleeping: subprocess.Popen, project: Installation
) -> None:
    sleeping.kill()
    assert "person's side" in ended(project)["reason"]
    project.wait(lambda: not marked(), 10)


def test_an_agent_that_is_killed_takes_the_command_along(
    sleeping: subprocess.Popen, project: Installation
) -> None:
    # The agent alone: what it has started must end by itself.
    os.kill(project.pids("agent")[0], signal.SIGKILL)
    project.wait(lambda: not marked(), 10)
    code, (_, err) = sleeping.wait(60), sleeping.communicate()
    assert (code, b"agent" in err) == (10, True)
    assert "agent" in ended(project)["reason"]
    # The next one takes commands again, however long it needs to begin.
    project.wait(lambda: ran(project, "web", "--", "true")[0] == 0, 120)


def test_what_only_the_control_plane_lost_goes_on(sleeping: subprocess.Popen, project: Installation) -> None:
    """The web process holds nothing of a session: both sides ask the next one."""
    project.kill("web")
    project.wait(project.healthy, 60)
    time.sleep(1)
    assert marked()
    assert newest(project)["state"] == "running"
    sleeping.send_signal(signal.SIGINT)
    sleeping.communicate(timeout=60)
    assert ended(project)["reason"] is None


def test_redis_takes_sessions_along_and_says_so(sleeping: subprocess.Popen, project: Installation) -> None:
    project.kill("redis")
    code, (_, err) = sleeping.wait(90), sleeping.communicate()
    assert (code, b"Redis" in err) == (10, True)
    project.wait(lambda: not marked(), 20)
    assert ended(project)["state"] == "ended"
