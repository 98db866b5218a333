"""A live proof that the kernel's programs see and judge what workloads do: two namespaces that call each other.

A process in a control group beside those of containers, in a namespace like a workload's, calls a service
address by TCP and UDP over both families and sends datagrams that must not arrive. It passes only if every
hook translated, the allowed packets passed and the forbidden ones were dropped, each by the program that
had to. Until it passes the node isn't healthy and starts no workloads.
"""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bpf import loader
from bpf.tables import ALLOW, EGRESS, INGRESS, Backend, Policy, Service
from dataplane import addresses
from dataplane.agent.namespaces import run_in
from infra.config import Config

ASKER, ANSWERER = addresses.IDENTITY_SELFTEST
#: Open at both ends; only where it arrives; only where it leaves.
_OPEN, _NOT_OUT, _NOT_IN = 9, 10, 11
_RULE = 0
_TCP, _UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
_SECONDS = 2.0
#: Where podman makes the control groups of containers, below the root.
_BESIDE = "libpod_parent"

_CHILD = r"""
import json, socket, sys
task = json.loads(sys.argv[1])
if task["group"]:
    open(task["group"] + "/cgroup.procs", "w").write("0")
found = {}
token = task["token"].encode()
for family, (service, plain) in task["targets"].items():
    kind = socket.AF_INET6 if ":" in service else socket.AF_INET
    with socket.socket(kind, socket.SOCK_STREAM) as call:
        call.settimeout(task["seconds"])
        try:
            call.connect((service, task["port"]))
            found["tcp" + family] = call.getpeername()[0]
            call.sendall(token)
        except OSError as error:
            found["tcp" + family] = str(error)
    with socket.socket(kind, socket.SOCK_DGRAM) as send:
        send.settimeout(task["seconds"])
        for port in task["closed"]:
            try:
                send.sendto(token, (plain, port))
            except OSError:
                pass  # refused even earlier
        try:
            send.sendto(token, (service, task["port"]))
            found["udp" + family] = send.recvfrom(64)[1][0]
        except OSError as error:
            found["udp" + family] = str(error)
print(json.dumps(found))
"""


def policies() -> dict[int, list[Policy]]:
    """What the two may do: identity → entries."""

    def entry(remote: int, port: int, protocol: int, direction: int) -> Policy:
        return Policy(remote, port, protocol, direction, ALLOW, _RULE)

    return {
        ASKER: [
            entry(ANSWERER, _OPEN, _TCP, EGRESS),
            entry(ANSWERER, _OPEN, _UDP, EGRESS),
            entry(ANSWERER, _NOT_IN, _UDP, EGRESS),
        ],
        ANSWERER: [
            entry(ASKER, _OPEN, _TCP, INGRESS),
            entry(ASKER, _OPEN, _UDP, INGRESS),
            entry(ASKER, _NOT_OUT, _UDP, INGRESS),
        ],
    }


def services(config: Config) -> list[Service]:
    """The service addresses of the test; nobody else has them."""
    own = addresses.service(config, addresses.SELFTEST_SERVICE)
    target = addresses.workload(config, addresses.SELFTEST_FIRST + 1)
    return [
        Service(ASKER, address, _OPEN, protocol, (Backend(backend, _OPEN),))
        for address, backend in zip(own, target, strict=True)
        for protocol in (_TCP, _UDP)
    ]


def run(config: Config, asker: Path, answerer: Path) -> list[str]:
    """What doesn't work, as sentences; empty if everything does. The namespaces must be up."""
    token = secrets.token_hex(8)
    with ExitStack() as stack:
        opened = run_in(answerer, lambda: _open(stack))
        try:
            with ExitStack() as group:
                child = _start(config, asker, token, _group(config, group))
                received = _answer(child, opened, token)
                output, errors = child.communicate(timeout=4 * _SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            return [f"the self-test can't be made: {error}"]
    try:
        seen = json.loads(output)
    except ValueError:
        return [f"the self-test can't be made: {errors.strip()[-200:] or 'no answer'}"]
    return _judge(config, seen, received)


def _open(stack: ExitStack) -> dict[int, socket.socket]:
    """Sockets of the answering side: the listener under 0, the others under their ports."""
    found = {}
    for port in (0, _OPEN, _NOT_OUT, _NOT_IN):
        kind = socket.SOCK_DGRAM if port else socket.SOCK_STREAM
        made = found[port] = stack.enter_context(socket.socket(socket.AF_INET6, kind))
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("::", port or _OPEN))
        made.setblocking(False)
        if not port:
            made.listen(4)
    return found


def _group(config: Config, stack: ExitStack) -> Path | None:
    """A control group where those of containers are, until the stack ends."""
    root = loader.cgroup_root()
    beside = root / _BESIDE
    made = (beside if beside.exists() else root) / f"{config.name}-selftest"
    made.mkdir(exist_ok=True)

    def remove() -> None:
        for _ in range(50):  # its process may not be buried yet
            try:
                made.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.01)
            else:
                return

    stack.callback(remove)
    return made


def _start(config: Config, asker: Path, token: str, group: Path | None) -> subprocess.Popen:
    own = addresses.service(config, addresses.SELFTEST_SERVICE)
    target = addresses.workload(config, addresses.SELFTEST_FIRST + 1)
    task: dict[str, Any] = {
        "group": str(group) if group else "",
        "token": token,
        "targets": {"4": (own.v4, target.v4), "6": (own.v6, target.v6)},
        "port": _OPEN,
        "closed": (_NOT_OUT, _NOT_IN),
        "seconds": _SECONDS / 2,
    }
    command = ["nsenter", f"--net={asker}", "--", sys.executable, "-I", "-S", "-c", _CHILD, json.dumps(task)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _answer(child: subprocess.Popen, opened: dict[int, socket.socket], token: str) -> set[tuple[int, str]]:
    """Answer datagrams until the child ends; (port, family) of all that arrived."""
    received: set[tuple[int, str]] = set()
    end = time.monotonic() + 4 * _SECONDS
    ended = False
    while not ended and time.monotonic() < end:
        ended = child.poll() is not None
        for port in (_OPEN, _NOT_OUT, _NOT_IN):
            try:
                data, peer = opened[port].recvfrom(64)
            except OSError:
                continue
            if data == token.encode():
                received.add((port, "4" if peer[0].startswith("::ffff:") else "6"))
                opened[port].sendto(data, peer)
        time.sleep(0.002)
    if not ended:
        child.kill()
    return received


def _judge(config: Config, seen: dict[str, str], received: set[tuple[int, str]]) -> list[str]:
    own = addresses.service(config, addresses.SELFTEST_SERVICE)
    problems = []
    for family, service in (("4", own.v4), ("6", own.v6)):
        for protocol in ("tcp", "udp"):
            answer = seen.get(f"{protocol}{family}", "nothing")
            if answer != service:
                problems.append(
                    f"the self-test's {protocol.upper()} call to a service address over IPv{family} failed "
                    f"({answer}): the hooks don't translate what workloads call, or what is allowed doesn't pass"
                )
        if (_NOT_OUT, family) in received:
            problems.append(f"a forbidden IPv{family} packet left a workload: from_workload doesn't enforce")
        if (_NOT_IN, family) in received:
            problems.append(f"a forbidden IPv{family} packet reached a workload: to_workload doesn't enforce")
    return problems


def purge(config: Config) -> None:
    """Remove what a test that was killed left behind."""
    for folder in (loader.cgroup_root() / _BESIDE, loader.cgroup_root()):
        try:
            (folder / f"{config.name}-selftest").rmdir()
        except OSError:
            continue
