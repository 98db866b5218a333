"""A node without a control plane: the kernel's programs, podman, one small image, replicas by hand."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bpf import loader
from dataplane.agent import container, network, podman
from dataplane.agent.kernel import Kernel
from dataplane.agent.replica import ReplicaWorker
from dataplane.client import ControlPlane
from infra.config import Config
from tests.bpf import conftest as bpf
from tests.dataplane import processes
from tests.dataplane.agent.test_container import endpoint

IMAGE = "t1/p1@sha256:" + "a" * 64
LOCAL = "localhost/cytoplane/t1/p1:" + "a" * 40
PYTHON = "/usr/bin/python3.11"
_UNUSED = {
    "test",
    "idlelib",
    "lib2to3",
    "ensurepip",
    "pydoc_data",
    "turtledemo",
    "dist-packages",
    "unittest",
    "distutils",
}
_FIRST = 9000
_IDENTITY = 70000


@dataclass
class Node:
    """What an agent has at hand."""

    config: Config
    kernel: Kernel
    podman: podman.Podman
    workers: list[ReplicaWorker] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(_FIRST, _FIRST + 100)))
    history: dict[str, list[str]] = field(default_factory=dict)

    def endpoint(self, program: str, number: int | None = None, **process: Any) -> dict[str, Any]:
        """A replica that runs a Python program."""
        number = next(self.numbers) if number is None else number
        pair = (self.config.workloads4[number], self.config.workloads6[number])
        more = {"type": "tcp", "port": 8080, "path": "/", "interval": 0.2, "timeout": 0.5, "grace": 30}
        made = endpoint(
            number,
            **{
                "image": IMAGE,
                "command": [PYTHON, "-I", "-c", program],
                "probe": more,
                "stop_grace": 2,
                **process,
            },
        )
        return {**made, "v4": str(pair[0]), "v6": str(pair[1]), "identity": _IDENTITY, "cell": 1}

    def worker(self, wanted: dict[str, Any]) -> ReplicaWorker:
        """A worker at work; its phases are noted."""
        phases = self.history.setdefault(wanted["id"], [])
        made = ReplicaWorker(
            self.config,
            ControlPlane(self.config.agent_dir, "https://localhost:1"),
            self.kernel,
            wanted,
            lambda: phases.append(made.status.phase),
        )
        made._backoff = 0.2
        self.workers.append(made)
        made.start()
        return made

    def state(self, wanted: dict[str, Any]) -> dict[str, Any] | None:
        found = self.podman.inspect(container.name_of(self.config, wanted["id"]))
        return found["State"] if found else None

    def output(self, wanted: dict[str, Any]) -> str:
        """What the process printed."""
        file = container.log_path(self.config, wanted["id"])
        text = file.read_text() if file.exists() else ""
        return "".join(line.split(" ", 3)[3] + "\n" for line in text.splitlines())

    def close(self) -> None:
        for worker in self.workers:
            worker.stop()
        for worker in self.workers:
            worker.thread.join(60)


def until(ready: Callable[[], bool], what: str = "it doesn't happen") -> None:
    processes.await_true(ready, what)


def _image(folder: Path) -> Path:
    """Python and a shell of this machine, with the libraries that they need, as an image's only layer."""
    files = {PYTHON, "/usr/bin/dash"}
    library = Path("/usr/lib/python3.11")
    modules = [str(file) for file in (library / "lib-dynload").glob("_ctypes.*")]
    text = subprocess.run(["ldd", *files, *modules], capture_output=True, text=True, check=True).stdout
    files |= set(re.findall(r"(/\S+\.so\S*) \(0x", text))
    archive = folder / "image.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("tmp", "run", "var/tmp", "etc", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if "tmp" in name else 0o755
            tar.addfile(entry)
        for file in sorted(files):
            tar.add(os.path.realpath(file), file.lstrip("/"))
        tar.add(os.path.realpath("/usr/bin/dash"), "bin/sh")
        tar.add(
            library,
            str(library).lstrip("/"),
            filter=lambda e: None if _UNUSED & set(e.name.split("/")) else e,
        )
    return archive


def _base(config: Config) -> list[str]:
    root, run = podman.folders(config)
    return [
        "/usr/bin/podman",
        "--root",
        str(root),
        "--runroot",
        str(run),
        "--runtime",
        "runc",
        "--cgroup-manager",
        "cgroupfs",
    ]


def _import(config: Config, folder: Path) -> None:
    command = [*_base(config), "import", "--quiet", "--change", "USER 1000", str(_image(folder)), LOCAL]
    environment = podman.environment(config)
    subprocess.run(command, env=environment, check=True, capture_output=True, umask=0o022)


@contextmanager
def node() -> Iterator[Node]:
    """Everything that it puts on the machine is gone afterwards; what was there stays."""
    home = Path(tempfile.mkdtemp(prefix="cytoplane-node-", dir="/var/tmp"))
    home.chmod(0o755)
    config = Config(home=home, net=bpf.NET, agents_port=processes.free_port())
    loaded = bool(loader.status(config).get("loaded"))
    try:
        if not loaded:
            bpf.remove(config)
            bpf.load(config)
        podman.write_settings(config)
        container.write_shared_files(config)
        _import(config, home)
        socket = podman.socket_path(config)
        service = [
            *_base(config),
            "--log-level",
            "error",
            "system",
            "service",
            "--time",
            "0",
            f"unix://{socket}",
        ]
        # As the supervisor: its containers live on when it is started anew.
        environment = {**os.environ, **podman.environment(config)}
        before = os.environ.copy()
        os.environ.update(environment)
        try:
            with processes.process(
                service, home / "podman.log", lambda: processes.answers(socket), rights=True
            ):
                kernel = Kernel(config)
                kernel._tables.apply_identity(_IDENTITY, 1, [])
                made = Node(config, kernel, podman.Podman(config))
                try:
                    yield made
                finally:
                    made.close()
                    kernel._tables.remove_identity(_IDENTITY)
                    kernel.connections.close()
                    kernel._tables.close()
        finally:
            os.environ.clear()
            os.environ.update(before)
    finally:
        _remove(config, loaded)


def _remove(config: Config, loaded: bool) -> None:
    environment = podman.environment(config)
    verb = ["rm", "--all", "--force", "--time", "0"]
    subprocess.run([*_base(config), *verb], env=environment, capture_output=True, check=False, timeout=60)
    if not loaded:
        bpf.remove(config)
    for name in [name for name in network.listing(config) if re.fullmatch(r"r9\d\d\d", name)]:
        network.destroy(config, name, int(name[1:]))
    for mount in (podman.folders(config)[0] / "overlay", podman.folders(config)[0]):
        subprocess.run(["umount", "--lazy", str(mount)], capture_output=True, check=False)
    for left in (config.home, podman.state_folder(config)):
        subprocess.run(["rm", "-rf", "--one-file-system", str(left)], check=False)


__all__ = ["Node", "node", "threading", "until"]
