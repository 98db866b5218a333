"""Running buildah and skopeo: in a build namespace, with storage per tenant over a read-only base."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataplane import addresses
from dataplane.agent import seccomp
from dataplane.agent.network import path_of
from dataplane.builder import limits
from dataplane.builder.disk import DiskWatch, used
from dataplane.builder.output import Output
from dataplane.client import ControlPlane, write_private
from infra.config import Config

log = logging.getLogger("cytoplane.builder")
#: Users of builds lie above those of workloads; a range of 65,536 for each tenant.
_FIRST_UID = 1 << 31
_UIDS = 1 << 16
_PIECE = 64 * 1024
#: Exit code of the enclosure where it can't be made.
_NO_ENCLOSURE = 125
_ENCLOSURE = Path(__file__).with_name("enclosure.py")


class BuildFailed(Exception):
    """``code`` is an error of the catalogue, ``parameters`` fill its sentence."""

    def __init__(self, code: str, /, **parameters: Any) -> None:
        self.code, self.parameters = code, parameters
        super().__init__(code)


class Cancelled(Exception):
    """The build isn't wanted any more."""


@dataclass
class Job:
    """A claimed build."""

    number: int
    tenant: int
    project: str
    repository: str
    limits: dict[str, Any]
    #: Of applications: hosts below it are the platform's own.
    domain: str = "localhost"


def base_store(config: Config) -> Path:
    """The read-only store that holds the base image."""
    return config.builder_dir / "base"


def first_uid(tenant: int) -> int:
    """The lowest of the user ids that builds of a tenant have on the machine."""
    # The very last range would hold 2³² − 1, which is no user.
    if not 0 <= tenant < (1 << 15) - 1:
        raise ValueError(f"tenant {tenant} has no range of user ids")
    return _FIRST_UID + tenant * _UIDS


def storage(config: Config, tenant: int) -> Path:
    """A tenant's storage, of its builds' own user; what it holds, they wrote."""
    folder = config.builder_dir / "storage" / f"t{tenant}"
    if not folder.exists():
        folder.mkdir(mode=0o700, parents=True)
        os.chown(folder, first_uid(tenant), first_uid(tenant))
    return folder


def _settings(config: Config) -> Path:
    """buildah's and skopeo's settings, for every tenant the same: paths are those inside the enclosure."""
    folder = config.builder_dir / "settings"
    folder.mkdir(exist_ok=True)
    (folder / "storage.conf").write_text(
        '[storage]\ndriver = "overlay"\ngraphroot = "/mnt/storage/images"\nrootless_storage_path = "/mnt/storage/images"\nrunroot = "/mnt/run"\n'
        '[storage.options]\nadditionalimagestores = ["/mnt/base"]\n'
    )
    (folder / "containers.conf").write_text(
        "[containers]\ndefault_sysctls = []\n"
        'default_ulimits = ["nofile=16384:16384", "nproc=4096:4096"]\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n'
    )
    (folder / "pip.conf").write_text(_pip(config))
    (folder / "seccomp.json").write_text(json.dumps(seccomp.profile()))
    return folder


def _environment(tenant: int) -> dict[str, str]:
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/mnt/storage",
        "TMPDIR": "/mnt/work",
        "XDG_RUNTIME_DIR": "/mnt/run",
        "CONTAINERS_STORAGE_CONF": "/mnt/settings/storage.conf",
        "CONTAINERS_CONF": "/mnt/settings/containers.conf",
        # The enclosure has made the user namespace already.
        "_CONTAINERS_USERNS_CONFIGURED": "done",
        "_CONTAINERS_ROOTLESS_UID": str(first_uid(tenant)),
    }


def _pip(config: Config) -> str:
    """pip's configuration inside a build: the index proxy and nothing else."""
    proxy = addresses.workload(config, addresses.INDEX_PROXY)
    return (
        f"[global]\nindex-url = http://{proxy.v4}:{addresses.INDEX_PROXY_PORT}/index/\n"
        f"trusted-host = {proxy.v4}\ndisable-pip-version-check = true\nno-input = true\ntimeout = 30\n"
        "root-user-action = ignore\n"
    )


def _own_text(file: Path) -> str:
    """What a command left in the workspace; a link there could name any file of the machine."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return os.read(descriptor, 4096).decode(errors="replace")
    finally:
        os.close(descriptor)


#: Two processes with mounts of their own must not work on the same storage.
_storage_locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)


class Runner:
    """Runs the commands of one build; ``cancel`` ends whatever runs, with everything it started."""

    def __init__(self, config: Config, job: Job, slot: int, say: Callable[[str], None]) -> None:
        self.config, self.job, self.slot, self.say = config, job, slot, say
        self.folder = config.builder_dir / "work" / f"build-{job.number}"
        self._process: subprocess.Popen | None = None
        self._cancelled = threading.Event()
        self._deadline = time.monotonic() + job.limits["seconds"]

    def prepare(self) -> Path:
        """The build's workspace, of its own user; what is unpacked into it goes to ``source``."""
        owner = first_uid(self.job.tenant)
        for path in (self.folder, self.folder / "source"):
            path.mkdir(mode=0o700, parents=True)
            os.chown(path, owner, owner)
        return self.folder

    def cancel(self) -> None:
        self._cancelled.set()
        self._kill()

    def _kill(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    def run(
        self, command: list[str], *, show: bool = True, network: bool = True, certificates: Path | None = None
    ) -> tuple[int, str]:
        """Exit code and output of a command in the build's enclosure. Without ``network`` it has the
        machine's: for commands of ours that run nothing of the build's."""
        settings = {
            "first": first_uid(self.job.tenant),
            "network": str(path_of(self.config, f"build-{self.slot}")) if network else None,
            "cgroups": [str(folder) for folder in limits.group(self.config, self.slot, self.job.limits)],
            "binds": [
                [str(base_store(self.config)), "base", True],
                [str(_settings(self.config)), "settings", True],
                [str(storage(self.config, self.job.tenant)), "storage", False],
                [str(self._run_folder()), "run", False],
                [str(self.folder), "work", False],
                *([[str(certificates), "certificates", True]] if certificates else []),
            ],
        }
        with _storage_locks[self.job.tenant]:
            return self._execute(
                ["/usr/bin/python3", "-I", str(_ENCLOSURE), json.dumps(settings), "--", *command], show
            )

    def _run_folder(self) -> Path:
        """Where mounts are counted: anew for each command, since mounts end with its namespace."""
        folder = self.config.run / "builder" / f"slot-{self.slot}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        os.chown(folder, first_uid(self.job.tenant), first_uid(self.job.tenant))
        return folder

    def _execute(self, command: list[str], show: bool) -> tuple[int, str]:
        if self._cancelled.is_set():
            raise Cancelled
        process = subprocess.Popen(
            command,
            env=_environment(self.job.tenant),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o022,
        )
        self._process = process
        if self._cancelled.is_set():
            self._kill()  # between the look above and here
        timer = threading.Timer(max(1.0, self._deadline - time.monotonic()), self._kill)
        timer.start()
        assert process.stdout is not None
        output = Output(self.say if show else None)
        with DiskWatch(self._written(), self.job.limits["disk"], self._kill) as disk:
            # As much as there is, never a whole line: one could be longer than memory.
            while piece := process.stdout.read1(_PIECE):  # type: ignore[attr-defined]
                output.add(piece)
            code = process.wait()
        timer.cancel()
        output.close()
        if self._cancelled.is_set():
            raise Cancelled
        if disk.exceeded:
            # Nothing of it runs any more. Layers come again; a full disk would fail every next build too.
            shutil.rmtree(storage(self.config, self.job.tenant), ignore_errors=True)
            raise BuildFailed("build-disk", limit=self.job.limits["disk"] // 2**20)
        if time.monotonic() >= self._deadline:
            raise BuildFailed("build-timeout", limit=self.job.limits["seconds"])
        if code == _NO_ENCLOSURE and "the build's enclosure:" in output.text:
            # Nothing of the build's has run: it isn't the pusher's fault.
            log.error("build %s: %s", self.job.number, output.text[-500:].strip())
            raise BuildFailed("unavailable", part="the builder, which can't make an enclosure")
        return code, output.text

    def tidy(self) -> None:
        """Empty the tenant's caches before they get in the way of its next build."""
        own = storage(self.config, self.job.tenant)
        with _storage_locks[self.job.tenant]:
            if used(own) > self.job.limits["disk"] * 2 // 3:
                shutil.rmtree(own, ignore_errors=True)

    def _written(self) -> list[Path]:
        return [storage(self.config, self.job.tenant), self.folder]

    def build(self, name: str, folder: Path, instructions: Path) -> str:
        """Build an image from ``folder`` of the workspace; its name in the tenant's storage."""
        tag = f"localhost/build/{self.job.repository}:{name}"
        command = [
            "buildah",
            "build",
            "--layers",
            "--isolation=rootless",
            "--runtime=runc",
            "--network=host",  # the namespace that the enclosure is in
            "--pull=never",
            "--format=oci",
            "--cap-drop=all",
            *(
                f"--cap-add={cap}"
                for cap in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID")
            ),
            "--security-opt=seccomp=/mnt/settings/seccomp.json",
            "--ulimit=nofile=16384:16384",
            "--ulimit=nproc=4096:4096",
            "--volume=/mnt/settings/pip.conf:/etc/pip.conf:ro,nosuid,nodev",
            f"--file={self._inside(instructions)}",
            f"--tag={tag}",
            self._inside(folder),
        ]
        code, _ = self.run(command)
        if code:
            raise BuildFailed("build-failed", component=name, code=code)
        self._inspect(tag, name)
        return tag

    def _certificates(self, control: ControlPlane) -> Path:
        """What the registry wants to see, and nothing else of the builder's folder."""
        folder = self.config.run / "builder" / f"certificates-{self.slot}"
        folder.mkdir(mode=0o700, exist_ok=True)
        for file in (control.certificate, control.key, control.authority):
            write_private(folder / file.name, file.read_bytes())
        return folder

    def _inside(self, path: Path) -> str:
        return f"/mnt/work/{path.relative_to(self.folder)}"

    def _inspect(self, tag: str, name: str) -> None:
        """The image is what counts, not what the build claims: it can be read and hasn't too many layers."""
        code, text = self.run(["buildah", "inspect", "--type=image", tag], show=False)
        try:
            document = json.loads(text)
            layers = document["OCIv1"]["rootfs"]["diff_ids"]
        except (ValueError, KeyError):
            raise BuildFailed("build-failed", component=name, code=code or 1) from None
        if len(layers) > 120:
            raise BuildFailed("source-rejected", reason="the image has more than 120 layers")

    def push(self, control: ControlPlane, tag: str) -> str:
        """Push to the platform's registry; the reference by digest."""
        digest = self.folder / f"digest-{self.job.number}"
        command = [
            "skopeo",
            "copy",
            "--quiet",
            "--dest-cert-dir=/mnt/certificates",
            f"--digestfile={self._inside(digest)}",
            f"containers-storage:{tag}",
            f"docker://{self.config.control_host}/{self.job.repository}:build-{self.job.number}",
        ]
        code, text = self.run(command, show=False, network=False, certificates=self._certificates(control))
        if code:
            self.say(f"       {text[-500:]}\n")
            raise BuildFailed("unavailable", part="the image registry")
        value = _own_text(digest).strip()
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", value):
            raise BuildFailed("build-failed", component=self.job.repository, code=1)
        return f"{self.job.repository}@{value}"
