"""The enclosure of builds, run for real: what a command in it is, sees and can't do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataplane.builder import images, limits
from infra.config import Config
from tests.dataplane import processes

pytestmark = pytest.mark.root
NET = int(os.environ.get("CYTOPLANE_TEST_NET", "11"))
FIRST = images.first_uid(32000)
LIMITS = {"memory": 256 * 2**20, "cpu": 1.0, "pids": 64, "seconds": 60, "disk": 2**30}


@pytest.fixture
def config() -> Iterator[Config]:
    with processes.folder("builder") as home:
        made = Config(home=home, net=NET)
        limits.remove(made)
        yield made
        limits.remove(made)


@pytest.fixture
def folders(config: Config) -> list[list[Any]]:
    """What a build is shown: root's settings, translated and read-only, and a folder of its own."""
    settings, work = config.home / "settings", config.home / "work"
    settings.mkdir(mode=0o700)
    (settings / "file").write_text("root's")
    (settings / "file").chmod(0o600)
    work.mkdir(mode=0o700)
    os.chown(work, FIRST, FIRST)
    return [[str(settings), "settings", True], [str(work), "work", False]]


def command(
    folders: list[list[Any]], *words: str, cgroups: list[Path] | None = None, network: str | None = None
) -> list[str]:
    settings = {
        "first": FIRST,
        "network": network,
        "cgroups": list(map(str, cgroups or [])),
        "binds": folders,
    }
    return ["/usr/bin/python3", "-I", str(images._ENCLOSURE), json.dumps(settings), "--", *words]


def run(folders: list[list[Any]], program: str, **more: Any) -> subprocess.CompletedProcess:
    words = command(folders, "/usr/bin/python3", "-I", "-c", program, **more)
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, umask=0o022)


INSIDE = r"""
import errno, json, os, signal, socket, subprocess, sys
def attempt(function):
    try:
        function()
        return "ok"
    except OSError as error:
        return errno.errorcode.get(error.errno, "?")
def write(path):
    with open(path, "w") as handle:
        handle.write("x")
def read(path):
    with open(path, "rb") as handle:
        handle.read(1)
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
outside = int(sys.argv[1])
print(json.dumps({
    "ids": [os.getuid(), os.getgid(), os.getgroups()],
    "uid_map": open("/proc/self/uid_map").read().split(), "gid_map": open("/proc/self/gid_map").read().split(),
    "no_new_privs": status["NoNewPrivs"].strip(), "pid": os.getpid(),
    "processes": [int(name) for name in os.listdir("/proc") if name.isdigit()],
    "shadow": attempt(lambda: read("/etc/shadow")), "etc": attempt(lambda: write("/etc/enclosure-was-here")),
    "settings": open("/mnt/settings/file").read(), "owner": os.stat("/mnt/settings/file").st_uid,
    "change settings": attempt(lambda: write("/mnt/settings/file")),
    "chmod settings": attempt(lambda: os.chmod("/mnt/settings/file", 0o777)),
    "remount": subprocess.run(["mount", "-o", "remount,rw", "/mnt/settings"], capture_output=True).returncode,
    "work": attempt(lambda: write("/mnt/work/file")),
    "device": attempt(lambda: os.mknod("/mnt/work/device", 0o600 | 0o60000, os.makedev(8, 0))),
    "kill": attempt(lambda: os.kill(outside, 0)),
    "host name": attempt(lambda: socket.sethostname("enclosed")),
    "clock": attempt(lambda: __import__("time").clock_settime(0, 1)),
    "sysctl": attempt(lambda: write("/proc/sys/kernel/core_pattern")),
    "setuid": attempt(lambda: os.setuid(70000)),
    "chown out": attempt(lambda: os.chown("/mnt/work/file", 70000, 70000)),
    "cgroup": open("/proc/self/cgroup").read(),
    "network": os.readlink("/proc/self/ns/net"),
}))
"""


def test_what_a_command_is_and_sees(config: Config, folders: list[list[Any]]) -> None:
    groups = limits.group(config, 0, LIMITS)
    words = command(folders, "/usr/bin/python3", "-I", "-c", INSIDE, str(os.getpid()), cgroups=groups)
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, umask=0o022)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ids"][:2] == [0, 0]
    assert found["ids"][2] in ([], [0])
    assert found["uid_map"] == found["gid_map"] == ["0", str(FIRST), "65536"]
    assert found["no_new_privs"] == "1"
    assert found["pid"] == 1 and found["processes"][0] == 1 and len(found["processes"]) <= 2
    assert found["shadow"] == "EACCES"
    assert found["etc"] in ("EACCES", "EROFS")
    assert (found["settings"], found["owner"]) == ("root's", 0), "owners are translated"
    assert found["change settings"] == found["chmod settings"] == "EROFS"
    assert found["remount"] != 0
    assert found["work"] == "ok"
    assert found["device"] == "EPERM"
    assert found["kill"] in ("ESRCH", "EPERM")
    assert found["clock"] == "EPERM"
    assert found["sysctl"] != "ok"
    assert found["setuid"] == found["chown out"] == "EINVAL", "no user beyond its range"
    assert found["host name"] == "ok" and os.uname().nodename != "enclosed"
    assert not Path("/etc/enclosure-was-here").exists()
    written = (Path(folders[1][0]) / "file").stat()
    assert (written.st_uid, written.st_gid) == (FIRST, FIRST)
    assert (Path(folders[0][0]) / "file").read_text() == "root's"
    assert not {"settings", "work"} & {path.name for path in Path("/mnt").iterdir()}, "its mounts are its own"


def test_its_network_is_the_given_one(config: Config, folders: list[list[Any]]) -> None:
    name = f"cy{NET}-encltest"
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        program = "import os; print(os.readlink('/proc/self/ns/net'), sorted(os.listdir('/proc/self/net')) != [])\nprint(open('/proc/net/dev').read())"
        done = run(folders, program, network=f"/run/netns/{name}")
        assert done.returncode == 0, done.stderr
        assert os.readlink("/proc/self/ns/net") not in done.stdout
        links = [
            line.split(":")[0].strip() for line in done.stdout.splitlines() if ":" in line and "[" not in line
        ]
        assert [link for link in links if link.startswith(("eth", "ens", "enp"))] == []
        # Root in the enclosure has no rights over it.
        done = run(
            folders,
            "import subprocess; print(subprocess.run(['ip', 'link', 'set', 'lo', 'up']).returncode)",
            network=f"/run/netns/{name}",
        )
        assert done.stdout.strip() != "0"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.parametrize(
    ("program", "code"),
    [("raise SystemExit(0)", 0), ("raise SystemExit(7)", 7), ("raise SystemExit(255)", 255)],
)
def test_the_commands_exit_code_is_told(folders: list[list[Any]], program: str, code: int) -> None:
    assert run(folders, program).returncode == code


def test_a_command_that_isnt_there_or_cant_be_enclosed_is_an_error(folders: list[list[Any]]) -> None:
    done = subprocess.run(command(folders, "/nothing"), capture_output=True, text=True, check=False)
    assert done.returncode == 125 and "the build's enclosure: " in done.stderr
    missing = [["/nothing/there", "x", True]]
    done = subprocess.run(command(missing, "/usr/bin/true"), capture_output=True, text=True, check=False)
    assert done.returncode != 0


def _users_processes() -> list[int]:
    """Processes of the build's users."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if FIRST <= entry.stat().st_uid < FIRST + 2**16:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


SLEEPERS = """
import os, sys, time
for _ in range(3):
    if not os.fork():
        os.setsid()
        time.sleep(600)
print("up", flush=True)
time.sleep({seconds})
"""


def test_it_dies_with_whoever_started_it(folders: list[list[Any]]) -> None:
    words = command(folders, "/usr/bin/python3", "-I", "-c", SLEEPERS.format(seconds=600))
    starter = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:], start_new_session=True); p.wait()"
    process = subprocess.Popen([sys.executable, "-c", starter, *words], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    assert len(_users_processes()) >= 4
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    processes.await_true(lambda: not _users_processes(), "something of the build goes on", 10)


def test_nothing_of_it_goes_on_after_its_command(folders: list[list[Any]]) -> None:
    done = run(folders, SLEEPERS.format(seconds=0))
    assert done.stdout == "up\n", done.stderr
    processes.await_true(lambda: not _users_processes(), "something of the build goes on", 10)


def test_memory_and_processes_are_limited(config: Config, folders: list[list[Any]]) -> None:
    groups = limits.group(config, 1, {**LIMITS, "memory": 64 * 2**20, "pids": 20})
    done = run(folders, "x = bytearray(300 * 2**20)", cgroups=groups)
    assert done.returncode not in (0, 1), "it got the memory, or an error instead of its end"
    forks = "import os, time\nn = 0\ntry:\n  while n < 100:\n    n += 1\n    os.fork() or time.sleep(30)\nexcept OSError as e:\n  print(n, e.errno)"
    done = run(folders, forks, cgroups=groups)
    number, error = map(int, done.stdout.split())
    assert number <= 20 and error == 11


def test_limits_follow_what_a_build_may_have(config: Config) -> None:
    """The group stays from build to build; what it says doesn't."""
    for memory in (64 * 2**20, 512 * 2**20, 128 * 2**20):
        groups = limits.group(config, 0, {**LIMITS, "memory": memory, "pids": memory >> 20, "cpu": 1.5})
        said = {}
        for folder in groups:
            for name in ("memory.limit_in_bytes", "memory.max", "pids.max", "cpu.cfs_quota_us", "cpu.max"):
                if (folder / name).exists():
                    said[name] = (folder / name).read_text().split()[0]
        assert str(memory) in (said.get("memory.limit_in_bytes"), said.get("memory.max"))
        assert said["pids.max"] == str(memory >> 20)
        assert "150000" in (said.get("cpu.cfs_quota_us"), said.get("cpu.max"))
    limits.remove(config)
    assert not any(folder.exists() for folder in groups)


def test_a_runner_ends_what_it_runs_and_keeps_to_its_time(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    for folder in (config.builder_dir, images.base_store(config), config.run / "builder"):
        folder.mkdir(parents=True)
        folder.chmod(0o711)
    job = images.Job(1, 32000, "shop", "t1/p1", {**LIMITS, "seconds": 1.5})
    runner = images.Runner(config, job, 0, said.append)
    runner.prepare()
    code, text = runner.run(["/bin/sh", "-c", "echo one; echo two >&2; exit 3"], network=False)
    assert (code, text) == (3, "one\ntwo\n")
    assert said == ["       one\n", "       two\n"]
    begun = time.monotonic()
    with pytest.raises(images.BuildFailed) as failure:
        runner.run(["/bin/sh", "-c", "sleep 600 & sleep 600"], network=False)
    assert failure.value.code == "build-timeout"
    assert time.monotonic() - begun < 20
    later = images.Runner(config, images.Job(2, 32000, "shop", "t1/p1", LIMITS), 0, said.append)
    later.prepare()
    later.say = lambda line: later.cancel()
    with pytest.raises(images.Cancelled):
        later.run(["/bin/sh", "-c", "echo now; sleep 600"], network=False)
    with pytest.raises(images.Cancelled):
        later.run(["/bin/true"], network=False)
    processes.await_true(lambda: not _users_processes(), "something of the build goes on", 10)
    shutil.rmtree(config.builder_dir)


def test_a_build_left_half_unpacked_finds_no_way_out(config: Config, tmp_path: Path) -> None:
    """tar as the builder calls it: members that lead elsewhere stay inside or fail."""
    import io
    import tarfile

    folder = Path(tempfile.mkdtemp(dir=config.home))
    folder.chmod(0o700)
    (folder / "source").mkdir(mode=0o700)
    for path in (folder, folder / "source"):
        os.chown(path, FIRST, FIRST)
    with tarfile.open(folder / "source.tar", "w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
        for name in ("link/enclosure-was-here", "../outside", "/tmp/enclosure-was-here", "inside"):
            entry = tarfile.TarInfo(name)
            entry.size = 1
            tar.addfile(entry, io.BytesIO(b"x"))
    words = ["tar", "--extract", "--file=/mnt/work/source.tar", "--directory=/mnt/work/source"]
    binds = [[str(folder), "work", False]]
    subprocess.run(command(binds, *words, "--no-same-owner"), capture_output=True, check=False)
    assert not Path("/etc/enclosure-was-here").exists()
    assert not Path("/tmp/enclosure-was-here").exists()
    assert not (folder / "outside").exists()
