"""Two namespaces with traffic between them: the kernel side alone, without a platform around it.

It needs root and a net number that nothing else on the machine uses (``CYTOPLANE_BENCH_NET``, 15 by
default). Everything goes when the measurement ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from bpf import loader
from bpf import sys as bpf
from bpf.tables import ALLOW, EGRESS, INGRESS, Policy, Tables
from dataplane.agent import network
from infra.config import Config

PORT = 8080
_CLIENT, _SERVER = 400, 401
_SETTINGS = {"net.ipv4.tcp_max_tw_buckets": "64", "net.ipv4.ip_local_port_range": "1024 65535"}


class Pair:
    """``client`` may call ``server`` on one TCP port; a server answers there."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config = config
        self.tables = Tables(config)
        self.traffic = build(folder)
        own = [
            network.Address(str(config.workloads4[n]), str(config.workloads6[n]), identity)
            for n, identity in ((2000, _CLIENT), (2001, _SERVER))
        ]
        self.server4, self.server6 = own[1].v4, own[1].v6
        for identity, peer, direction in ((_CLIENT, _SERVER, EGRESS), (_SERVER, _CLIENT, INGRESS)):
            self.tables.apply_identity(identity, 1, [Policy(peer, PORT, 6, direction, ALLOW, 1000)])
        self.client = network.connect(config, self.tables, "client", 2000, own[:1])
        self.server = network.connect(config, self.tables, "server", 2001, own[1:])
        self.spaces = (self.client, self.server)
        for space in self.spaces:
            tune(space.path)
        self._process = serve(self.traffic, self.server.path)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self.tables.close()

    def measure(self, kind: str, address: str, seconds: float) -> float:
        return measure(self.traffic, self.client.path, kind, address, seconds)

    def wrk(self, address: str, seconds: int) -> float:
        return wrk(self.client.path, address, seconds)

    @contextlib.contextmanager
    def without_programs(self) -> Iterator[None]:
        """Plain veths: no program on them and none at the cgroup root."""
        from pyroute2 import IPRoute

        from bpf import attach

        hooks = [(name, kind) for name, (_, kind, *_) in loader.PROGRAMS.items() if kind is not None]
        root = os.open(loader.cgroup_root(), os.O_RDONLY | os.O_DIRECTORY)
        programs = [
            (bpf.object_get(loader.pins(self.config) / "programs" / name), kind) for name, kind in hooks
        ]
        try:
            with IPRoute() as ip:
                for space in self.spaces:
                    ip.tc("del", "clsact", space.ifindex)
            for program, kind in programs:
                bpf.detach_cgroup(root, program, kind)
            yield
        finally:
            for program, kind in programs:
                bpf.attach_cgroup(root, program, kind)
                os.close(program)
            for space in self.spaces:
                attach.attach(self.config, space.ifindex)
            os.close(root)


@contextlib.contextmanager
def pair() -> Iterator[Pair]:
    """The pair on freshly loaded programs."""
    with TemporaryDirectory(prefix="cytoplane-bench-") as folder:
        config = Config(home=Path(folder), net=int(os.environ.get("CYTOPLANE_BENCH_NET", "15")))
        _remove(config)
        built = None
        try:
            environment = {**os.environ, "CYTOPLANE_HOME": folder, "CYTOPLANE_NET": str(config.net)}
            command = [sys.executable, "-m", "bpf.loader", "load"]
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            network.ensure_host(config)
            built = Pair(config, Path(folder))
            yield built
        finally:
            if built:
                built.close()
            _remove(config)


def _remove(config: Config) -> None:
    network.remove_all(config)
    network.remove_host(config)
    loader.unload(config)


def build(folder: Path) -> Path:
    """Compile the traffic's program; its path."""
    program = folder / "traffic"
    source = Path(__file__).with_name("traffic.c")
    subprocess.run(["cc", "-O2", "-o", str(program), str(source)], check=True)
    return program


def inside(namespace: Path, *command: str) -> list[str]:
    return ["nsenter", f"--net={namespace}", "--", *command]


def tune(namespace: Path) -> None:
    """Short connections by the ten thousand: ports are free again at once."""
    for name, value in _SETTINGS.items():
        subprocess.run(inside(namespace, "sysctl", "-qw", f"{name}={value}"), check=True)


def serve(traffic: Path, namespace: Path) -> subprocess.Popen[str]:
    """Start the server; returns once it listens."""
    command = inside(namespace, str(traffic), "serve", str(PORT))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def measure(traffic: Path, namespace: Path, kind: str, address: str, seconds: float) -> float:
    """Transactions or MiB a second."""
    command = inside(namespace, str(traffic), kind, address, str(PORT), str(seconds))
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def wrk(namespace: Path, address: str, seconds: int) -> float:
    """Short HTTP connections a second, four at a time."""
    host = f"[{address}]" if ":" in address else address
    command = inside(namespace, "wrk", "-t1", "-c4", f"-d{seconds}s", "-H", "Connection: close")
    done = subprocess.run([*command, f"http://{host}:{PORT}/"], capture_output=True, text=True, check=True)
    match = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if match is None or re.search(r"Non-2xx|Socket errors: connect [1-9]", done.stdout):
        raise SystemExit(f"not every request was answered:\n{done.stdout}")
    return float(match.group(1))
