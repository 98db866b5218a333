"""A replica's life on real parts: podman, runc, the kernel's programs and limits."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataplane.agent import container, network, replica
from dataplane.agent.podman import PodmanError, state_folder
from tests.dataplane.agent.stage import Node, node, until

pytestmark = pytest.mark.root

SERVE = """
import http.server, signal, socketserver, os
status = [200]
class Server(http.server.ThreadingHTTPServer):
    server_bind = socketserver.TCPServer.server_bind  # without asking for its own name
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(status[0]); self.end_headers()
    def log_message(self, *a): pass
def end(*a): print("ending", flush=True); os._exit(0)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGUSR1, lambda *a: status.__setitem__(0, 500))
signal.signal(signal.SIGUSR2, lambda *a: status.__setitem__(0, 200))
print("serving", flush=True)
Server(("0.0.0.0", 8080), Handler).serve_forever()
"""
HTTP = {"type": "http", "port": 8080, "path": "/", "interval": 0.1, "timeout": 0.5, "grace": 30}


@pytest.fixture(scope="module")
def machine() -> Iterator[Node]:
    with node() as made:
        yield made


def signal_to(machine: Node, wanted: dict[str, Any], number: int) -> None:
    state = machine.state(wanted)
    assert state is not None
    os.kill(state["Pid"], number)


def test_a_life_from_its_start_to_its_end(machine: Node) -> None:
    wanted = machine.endpoint(SERVE, probe=HTTP)
    worker = machine.worker(wanted)
    until(lambda: worker.status.phase == "healthy", f"{worker.status}")
    assert machine.history[wanted["id"]][:2] == ["starting", "healthy"]
    assert network.path_of(machine.config, wanted["id"]).exists()
    # Not well for a while, and well again.
    signal_to(machine, wanted, 10)
    until(lambda: worker.status.phase == "unhealthy")
    assert worker.report()["probe"] == {"what": "GET / on port 8080", "answer": "status 500"}
    signal_to(machine, wanted, 12)
    until(lambda: worker.status.phase == "healthy")
    assert worker.status.restarts == 0
    # Killed: started anew, and reported in between.
    signal_to(machine, wanted, 9)
    until(lambda: worker.status.restarts == 1 and worker.status.phase == "healthy")
    assert machine.history[wanted["id"]].count("unhealthy") >= 2
    # An agent that starts while it runs only watches it.
    before = machine.state(wanted)
    assert before is not None
    worker._step = lambda: worker._stopping.wait(0.05)  # type: ignore[method-assign,assignment]
    adopted = machine.worker(wanted)
    assert adopted.report()["phase"] in ("", "healthy")
    until(lambda: adopted.status.phase == "healthy")
    after = machine.state(wanted)
    assert after is not None and after["Pid"] == before["Pid"]
    assert adopted.status.restarts == 0
    worker._end = lambda: None  # type: ignore[method-assign]
    worker.stop()
    worker.thread.join(10)
    # The end: SIGTERM, and nothing is left.
    lines: list[str] = []
    stopping = container.log_path(machine.config, wanted["id"])
    with stopping.open() as log:
        adopted.stop()
        adopted.thread.join(30)
        lines = log.read().splitlines()
    assert any(line.endswith("ending") for line in lines), "it had no chance to end by itself"
    assert adopted.status.phase == "stopped"
    assert machine.state(wanted) is None
    assert not network.path_of(machine.config, wanted["id"]).exists()
    assert not stopping.exists()


def test_a_process_that_wont_end_is_killed_after_its_grace(machine: Node) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    wanted = machine.endpoint(deaf, probe={**HTTP, "type": "none"}, stop_grace=1)
    worker = machine.worker(wanted)
    until(lambda: worker.status.phase == "healthy" and "deaf" in machine.output(wanted))
    begun = time.monotonic()
    worker.stop()
    worker.thread.join(30)
    assert time.monotonic() - begun >= 1.0
    assert machine.state(wanted) is None


def test_a_process_that_ends_is_started_again_with_growing_pauses(machine: Node) -> None:
    wanted = machine.endpoint("import sys; print('last words', flush=True); sys.exit(7)")
    worker = machine.worker(wanted)
    until(lambda: worker.status.restarts >= 2)
    until(lambda: worker.status.phase == "failed" and worker.status.exit_code == 7)
    report = worker.report()
    assert "last words" in report["last_lines"]
    assert "healthy" not in machine.history[wanted["id"]]
    assert worker._backoff > 0.2
    worker.stop()
    assert replica.LONGEST_BACKOFF == 60


def test_memory_is_a_limit_and_named(machine: Node) -> None:
    limits = {"memory": 48 * 2**20, "cpu": 1.0, "pids": 64}
    wanted = machine.endpoint("x = bytearray(200 * 2**20)", limits=limits)
    worker = machine.worker(wanted)
    until(lambda: worker.status.phase == "failed")
    assert "memory" in worker.report()["reason"]
    assert worker.report()["exit_code"] == 137
    worker.stop()


def test_an_image_that_cant_be_had_is_a_reason(machine: Node) -> None:
    wanted = machine.endpoint("", image="t9/p9@sha256:" + "b" * 64)
    worker = machine.worker(wanted)
    until(lambda: worker.status.phase == "failed")
    assert "pulling the image failed" in worker.report()["reason"]
    worker.stop()


INSIDE = r"""
import ctypes, errno, json, os, socket, resource, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    ctypes.set_errno(0)
    result = libc.syscall(*[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    return "ok" if result >= 0 else errno.errorcode.get(ctypes.get_errno(), "?")
def attempt(function):
    try:
        function()
        return "ok"
    except OSError as error:
        return errno.errorcode.get(error.errno, "?")
def write(path):
    with open(path, "w") as handle:
        handle.write("x")
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
AF_PACKET, AF_VSOCK, AF_ALG, AF_NETLINK = 17, 40, 38, 16
pids = []
def fork():
    while True:
        pid = os.fork()
        if not pid:
            time.sleep(20); os._exit(0)
        pids.append(pid)
        if len(pids) > 300: raise OSError(0, "no limit")
found = {
    "ids": [os.getuid(), os.getgid(), os.getgroups()],
    "capabilities": [status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "no_new_privs": status["NoNewPrivs"].strip(), "seccomp": status["Seccomp"].strip(),
    "uid_map": open("/proc/self/uid_map").read().split(),
    "root": attempt(lambda: write("/file")), "etc": attempt(lambda: write("/etc/file")),
    "usr": attempt(lambda: write("/usr/bin/x")), "hosts": attempt(lambda: write("/etc/hosts")),
    "tmp": attempt(lambda: write("/tmp/file")),
    "unshare user": call(272, 0x10000000), "unshare net": call(272, 0x40000000), "unshare mount": call(272, 0x20000),
    "clone user": call(56, 0x10000000 | 17, 0, 0, 0, 0), "clone net": call(56, 0x40000000 | 17, 0, 0, 0, 0),
    "clone3": call(435, 0, 0), "setns": call(308, 0, 0), "mount": call(165, 0, 0, 0, 0, 0),
    "io_uring": call(425, 8, ctypes.create_string_buffer(120)), "bpf": call(321, 0, ctypes.create_string_buffer(120), 120),
    "keyctl": call(250, 0, -3, 0), "add_key": call(248, b"user", b"a", b"b", 1, -2), "ptrace": call(101, 0, 0, 0, 0),
    "userfaultfd": call(323, 0), "perf": call(298, ctypes.create_string_buffer(120), 0, -1, -1, 0),
    "init_module": call(175, 0, 0, 0), "process_vm_readv": call(310, 1, 0, 0, 0, 0, 0),
    "open_by_handle_at": call(304, 0, 0, 0), "pivot_root": call(155, b"/", b"/"), "swapon": call(167, b"/", 0),
    "packet": attempt(lambda: socket.socket(AF_PACKET, socket.SOCK_RAW)),
    "packet dgram": attempt(lambda: socket.socket(AF_PACKET, socket.SOCK_DGRAM)),
    "vsock": attempt(lambda: socket.socket(AF_VSOCK, socket.SOCK_STREAM)),
    "alg": attempt(lambda: socket.socket(AF_ALG, socket.SOCK_SEQPACKET)),
    "raw": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
    "raw6": attempt(lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)),
    "netlink route": attempt(lambda: socket.socket(AF_NETLINK, socket.SOCK_RAW, 0)),
    "netlink netfilter": attempt(lambda: socket.socket(AF_NETLINK, socket.SOCK_RAW, 12)),
    "tcp": attempt(lambda: socket.socket()), "low port": attempt(lambda: socket.socket().bind(("0.0.0.0", 80))),
    "tiocsti": call(16, 0, 0x5412, ctypes.c_char_p(b"x")),
    "tiocsti high": call(16, 0, 0x100005412, ctypes.c_char_p(b"x")),
    "sysrq": attempt(lambda: write("/proc/sysrq-trigger")), "kcore": attempt(lambda: open("/proc/kcore", "rb").read(1)),
    "ip_forward": attempt(lambda: write("/proc/sys/net/ipv4/ip_forward")),
    "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
    "thread": attempt(lambda: threading.Thread(target=lambda: None).start()),
    "stdout by name": attempt(lambda: write("/dev/stdout")),
    "processes": len([name for name in os.listdir("/proc") if name.isdigit()]),
    "devices": sorted(os.listdir("/dev")),
    "mounts": [line.split()[1] for line in open("/proc/mounts") if "cytoplane" in line],
    "environment": {k: v for k, v in os.environ.items() if k in ("PORT", "TOKEN")},
    "addresses": sorted(line.split()[-1] for line in open("/proc/net/if_inet6")),
    "forks": attempt(fork),
}
print("\n" + json.dumps(found), flush=True)
time.sleep(600)
"""


def test_what_a_process_finds_inside(machine: Node) -> None:
    limits = {"memory": 128 * 2**20, "cpu": 1.0, "pids": 40}
    environment = {"PORT": "8080", "TOKEN": "secret"}
    wanted = machine.endpoint(INSIDE, probe={**HTTP, "type": "none"}, limits=limits, environment=environment)
    worker = machine.worker(wanted)
    until(lambda: "}" in machine.output(wanted), f"{worker.status}")
    lines = machine.output(wanted).splitlines()
    first = container._ids(wanted["number"])[0]["host_id"]
    state = machine.state(wanted)
    assert state is not None
    assert os.stat(f"/proc/{state['Pid']}").st_uid == first + 1000
    _check_inside(next(json.loads(line) for line in lines if line.startswith("{")), first)
    worker.stop()


def _check_inside(found: dict[str, Any], first: int) -> None:
    assert found["ids"][0] == 1000
    assert found["capabilities"] == ["0" * 16] * 5
    assert (found["no_new_privs"], found["seccomp"]) == ("1", "2")
    assert found["uid_map"] == ["0", str(first), "65536"]
    for name in ("root", "etc", "usr", "hosts"):
        assert found[name] in ("EROFS", "EACCES"), (name, found[name])
    for name in ("tmp", "tcp", "low port", "thread", "netlink route", "stdout by name"):
        assert found[name] == "ok", (name, found[name])
    for name in (
        "unshare user",
        "unshare net",
        "unshare mount",
        "clone user",
        "clone net",
        "setns",
        "mount",
        "bpf",
    ):
        assert found[name] == "EPERM", (name, found[name])
    for name in ("keyctl", "add_key", "ptrace", "userfaultfd", "perf", "init_module", "process_vm_readv"):
        assert found[name] == "EPERM", (name, found[name])
    for name in ("open_by_handle_at", "pivot_root", "swapon", "tiocsti", "tiocsti high", "raw", "raw6"):
        assert found[name] == "EPERM", (name, found[name])
    assert found["clone3"] == found["io_uring"] == "ENOSYS"
    for name in ("packet", "packet dgram", "vsock", "alg", "netlink netfilter"):
        assert found[name] == "EAFNOSUPPORT", (name, found[name])
    for name in ("sysrq", "kcore", "ip_forward"):
        assert found[name] != "ok", name
    assert found["core"] == 0
    assert found["forks"] == "EAGAIN", "processes are limited"
    assert found["processes"] < 5, "it sees only its own"
    assert not {"mem", "kmsg", "sda", "vda", "kvm", "net", "fuse"} & set(found["devices"])
    assert found["environment"] == {"PORT": "8080", "TOKEN": "secret"}
    assert found["addresses"] == ["eth0", "lo"]


def test_a_container_started_by_hand_while_the_agent_is_away_gets_no_network(machine: Node) -> None:
    wanted = machine.endpoint(SERVE, probe=HTTP)
    worker = machine.worker(wanted)
    until(lambda: worker.status.phase == "healthy", f"{worker.status}")
    worker._step = lambda: worker._stopping.wait(0.05)  # type: ignore[method-assign,assignment]
    name = container.name_of(machine.config, wanted["id"])
    machine.podman.stop(name, 0)
    until(lambda: (machine.state(wanted) or {}).get("Status") == "exited")
    network.destroy(machine.config, wanted["id"], wanted["number"])
    with pytest.raises(PodmanError):
        machine.podman.start(name)
    assert not (machine.state(wanted) or {}).get("Running")
    worker.stop()


def test_nothing_starts_on_a_node_that_cant_be_trusted(machine: Node) -> None:
    machine.kernel.distrust = "the self-test failed"
    try:
        wanted = machine.endpoint(SERVE, probe=HTTP)
        worker = machine.worker(wanted)
        until(lambda: "the self-test failed" in worker.status.reason)
        assert not (machine.state(wanted) or {}).get("Running")
    finally:
        machine.kernel.distrust = ""
    until(lambda: worker.status.phase == "healthy", f"{worker.status}")
    worker.stop()


def test_clients_of_a_replica_that_dies_are_told_and_those_of_one_that_is_deaf_in_the_end(
    machine: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker says it; what becomes of the sockets is tried in test_connections.py."""
    told: list[bool] = []

    def left(name: str, identity: int, pair: tuple[str, str], *, stuck: bool = False) -> None:
        if name == wanted["id"]:  # others may still be ending
            told.append(stuck)

    wanted = machine.endpoint(SERVE, probe=HTTP)
    monkeypatch.setattr(machine.kernel, "backend_left", left)
    monkeypatch.setattr(replica, "GIVEN_UP_AFTER", 0.3)
    worker = machine.worker(wanted)
    until(lambda: worker.status.phase == "healthy", f"{worker.status}")
    signal_to(machine, wanted, 10)
    until(lambda: told == [True])
    signal_to(machine, wanted, 12)
    until(lambda: worker.status.phase == "healthy")
    signal_to(machine, wanted, 9)
    until(lambda: told[1:] == [False])
    worker.stop()
    worker.thread.join(30)
    assert told[2:] == [False]


def test_what_podman_knows_of_what_runs_lies_apart_from_other_podmans(machine: Node) -> None:
    assert (state_folder(machine.config) / "libpod/alive").exists()


def test_nothing_is_left_of_what_has_ended(machine: Node) -> None:
    for worker in machine.workers:
        worker.stop()
    for worker in machine.workers:
        worker.thread.join(60)
        assert not worker.thread.is_alive()
    assert machine.podman.listing(f"{container.LABEL}={machine.config.net}") == []
    assert [name for name in network.listing(machine.config) if name.startswith("r9")] == []
    assert list(Path(machine.config.agent_dir / "logs").iterdir()) == []
