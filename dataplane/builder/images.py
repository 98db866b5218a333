"""Running buildah and skopeo: in a build namespace, with storage per tenant over a read-only base."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataplane import addresses
from dataplane.agent.network import path_of
from dataplane.client import ControlPlane
from infra.config import Config

_FIRST_UID = 1 << 29
_UIDS = 1 << 16


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


def base_store(config: Config) -> Path:
    """The read-only store that holds the base image."""
    return config.builder_dir / "base"


def settings(config: Config, tenant: int) -> dict[str, str]:
    """buildah's environment: a storage of the tenant's own."""
    folder = config.builder_dir / "storage" / f"t{tenant}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    storage = folder / "storage.conf"
    storage.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/root"\nrunroot = "{config.run}/builder/t{tenant}"\n'
        f'[storage.options]\nadditionalimagestores = ["{base_store(config)}"]\n'
    )
    containers = folder / "containers.conf"
    containers.write_text(
        "[containers]\ndefault_sysctls = []\n"
        'default_ulimits = ["nofile=16384:16384", "nproc=4096:4096"]\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n'
    )
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(folder),
        "TMPDIR": str(config.builder_dir / "work"),
        "CONTAINERS_STORAGE_CONF": str(storage),
        "CONTAINERS_CONF": str(containers),
        "BUILDAH_ISOLATION": "oci",
        # Layers that were written through an id-mapped mount come back with owners that don't exist.
        "_CONTAINERS_OVERLAY_DISABLE_IDMAP": "yes",
    }


def pip_settings(config: Config) -> Path:
    """pip's configuration inside a build: the index proxy and nothing else."""
    proxy = addresses.workload(config, addresses.INDEX_PROXY)
    file = config.builder_dir / "pip.conf"
    file.write_text(
        f"[global]\nindex-url = http://{proxy.v4}:{addresses.INDEX_PROXY_PORT}/index/\n"
        f"trusted-host = {proxy.v4}\ndisable-pip-version-check = true\nno-input = true\ntimeout = 30\n"
        "root-user-action = ignore\n"
    )
    file.chmod(0o644)
    return file


class Runner:
    """Runs the commands of one build; ``cancel`` ends whatever runs, with everything it started."""

    def __init__(self, config: Config, job: Job, slot: int, say: Callable[[str], None]) -> None:
        self.config, self.job, self.slot, self.say = config, job, slot, say
        self.environment = settings(config, job.tenant)
        self._process: subprocess.Popen | None = None
        self._cancelled = threading.Event()
        self._deadline = time.monotonic() + job.limits["seconds"]

    def cancel(self) -> None:
        self._cancelled.set()
        self._kill()

    def _kill(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    def run(self, command: list[str], *, inside: bool = False, show: bool = True) -> tuple[int, str]:
        """Exit code and output. ``inside`` the build's network namespace."""
        if self._cancelled.is_set():
            raise Cancelled
        if inside:
            command = ["nsenter", f"--net={path_of(self.config, f'build-{self.slot}')}", "--", *command]
        process = subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._process = process
        timer = threading.Timer(max(1.0, self._deadline - time.monotonic()), self._kill)
        timer.start()
        output = []
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.decode(errors="replace")
            output.append(line)
            if show:
                self.say(f"       {line}")
        code = process.wait()
        timer.cancel()
        if self._cancelled.is_set():
            raise Cancelled
        if time.monotonic() >= self._deadline:
            raise BuildFailed("build-timeout", limit=self.job.limits["seconds"])
        return code, "".join(output)

    def build(self, name: str, folder: Path, instructions: Path) -> str:
        """Build an image; its name in the tenant's storage."""
        limits, tag = self.job.limits, f"localhost/build/{self.job.repository}:{name}"
        command = [
            "buildah",
            "build",
            "--layers",
            "--isolation=oci",
            "--runtime=runc",
            "--network=host",  # the namespace that buildah itself was started in
            "--pull=never",
            "--format=oci",
            "--cap-drop=all",
            *(
                f"--cap-add={cap}"
                for cap in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID")
            ),
            f"--userns-uid-map=0:{_FIRST_UID + self.job.tenant * _UIDS}:{_UIDS}",
            f"--userns-gid-map=0:{_FIRST_UID + self.job.tenant * _UIDS}:{_UIDS}",
            "--ulimit=nofile=16384:16384",
            "--ulimit=nproc=4096:4096",
            f"--memory={limits['memory']}",
            "--cpu-period=100000",
            f"--cpu-quota={int(limits['cpu'] * 100000)}",
            f"--volume={pip_settings(self.config)}:/etc/pip.conf:ro",
            f"--file={instructions}",
            f"--tag={tag}",
            str(folder),
        ]
        code, _ = self.run(command, inside=True)
        if code:
            raise BuildFailed("build-failed", component=name, code=code)
        self._inspect(tag, name)
        return tag

    def _inspect(self, tag: str, name: str) -> None:
        """The image is what counts, not what the build claims: bounds on size, no root at start."""
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
        digest = self.config.builder_dir / "work" / f"digest-{self.job.number}"
        command = [
            "skopeo",
            "copy",
            "--quiet",
            f"--dest-cert-dir={control.folder}",
            f"--digestfile={digest}",
            f"containers-storage:{tag}",
            f"docker://localhost:{self.config.agents_port}/{self.job.repository}:build-{self.job.number}",
        ]
        code, text = self.run(command, show=False)
        if code:
            self.say(f"       {text[-500:]}\n")
            raise BuildFailed("unavailable", part="the image registry")
        value = digest.read_text().strip()
        digest.unlink()
        return f"{self.job.repository}@{value}"
