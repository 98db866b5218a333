"""podman over its REST socket, as far as workloads need it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from infra.config import Config

_API = "http://podman/v4.0.0/libpod"


class PodmanError(RuntimeError):
    """podman refused or failed; the message is its own."""


def folders(config: Config) -> tuple[Path, Path]:
    """Storage and run root of the installation's own podman."""
    return config.home / "containers", config.run / "containers"


def state_folder(config: Config) -> Path:
    """What podman knows of what runs. Its usual place is one for all podmans of a machine: whoever resets one
    of them has all others take their containers for ended. Gone with a reboot, by which podman tells one."""
    return Path("/run") / config.name


def socket_path(config: Config) -> Path:
    return config.run / "agent" / "podman.sock"


def containers_conf(config: Config) -> str:
    """podman's settings: nothing that would raise limits or touch the network."""
    return f"""[containers]
default_sysctls = []
default_ulimits = ["nofile=16384:16384", "nproc=4096:4096"]
netns = "none"
log_driver = "k8s-file"
log_size_max = 10485760
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
image_default_transport = "docker://"
no_pivot_root = false
static_dir = "{folders(config)[0]}/libpod"
tmp_dir = "{state_folder(config)}/libpod"
"""


def storage_conf(config: Config) -> str:
    """Where images and containers lie."""
    root, run = folders(config)
    return f'[storage]\ndriver = "overlay"\ngraphroot = "{root}"\nrunroot = "{run}"\n'


def environment(config: Config) -> dict[str, str]:
    """What podman, buildah and skopeo are started with."""
    folder = config.agent_dir / "podman"
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
    }


def write_settings(config: Config) -> None:
    """The settings files, before podman's service starts."""
    folder = config.agent_dir / "podman"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "containers.conf").write_text(containers_conf(config))
    (folder / "storage.conf").write_text(storage_conf(config))
    socket_path(config).parent.mkdir(mode=0o700, parents=True, exist_ok=True)


class Podman:
    """One client for each thread."""

    def __init__(self, config: Config) -> None:
        transport = httpx.HTTPTransport(uds=str(socket_path(config)))
        self._client = httpx.Client(transport=transport, timeout=60)

    def _call(self, method: str, path: str, ok: tuple[int, ...] = (), **more: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, _API + path, **more)
        except httpx.HTTPError as error:
            raise PodmanError(f"podman doesn't answer: {error}") from error
        if not answer.is_success and answer.status_code not in ok:
            try:
                message = answer.json().get("message", answer.text)
            except json.JSONDecodeError:
                message = answer.text
            raise PodmanError(message[:500])
        return answer

    def alive(self) -> bool:
        try:
            return self._client.get(f"{_API}/_ping", timeout=3).is_success
        except httpx.HTTPError:
            return False

    def create(self, specification: dict[str, Any]) -> str:
        """Create a container; its id."""
        return self._call("POST", "/containers/create", json=specification).json()["Id"]

    def init(self, name: str) -> int:
        """Make everything but the process's first instruction; the id of the process that waits for it."""
        self._call("POST", f"/containers/{quote(name)}/init", ok=(304,))
        found = self.inspect(name)
        if found is None:
            raise PodmanError(f"{name} has disappeared")
        return int(found["State"]["Pid"])

    def start(self, name: str) -> None:
        self._call("POST", f"/containers/{quote(name)}/start", ok=(304,))

    def stop(self, name: str, seconds: int) -> None:
        """SIGTERM, then SIGKILL after ``seconds``; fine if it has ended or is gone."""
        self._call(
            "POST",
            f"/containers/{quote(name)}/stop",
            ok=(304, 404),
            params={"timeout": seconds},
            timeout=seconds + 30,
        )

    def remove(self, name: str) -> None:
        self._call(
            "DELETE", f"/containers/{quote(name)}", ok=(404,), params={"force": True, "timeout": 0, "v": True}
        )

    def inspect(self, name: str) -> dict[str, Any] | None:
        """State of a container, None if there is none."""
        answer = self._call("GET", f"/containers/{quote(name)}/json", ok=(404,))
        return None if answer.status_code == 404 else answer.json()

    def listing(self, label: str) -> list[dict[str, Any]]:
        """All containers with a label, running or not."""
        filters = json.dumps({"label": [label]})
        return self._call("GET", "/containers/json", params={"all": True, "filters": filters}).json() or []

    def image(self, name: str) -> dict[str, Any] | None:
        answer = self._call("GET", f"/images/{quote(name, safe='')}/json", ok=(404,))
        return None if answer.status_code == 404 else answer.json()

    def images(self) -> list[dict[str, Any]]:
        return self._call("GET", "/images/json").json() or []

    def remove_image(self, name: str) -> None:
        self._call("DELETE", f"/images/{quote(name, safe='')}", ok=(404, 409))
