"""What podman is told about a replica: no rights, no network of podman's, a user namespace of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dataplane import addresses
from dataplane.agent import network, seccomp
from infra.config import Config

#: Label by which an installation knows its containers.
LABEL = "cytoplane.net"
#: Users of workloads: a range for each address, below those of builds.
_FIRST_UID, _UIDS = 1 << 20, 1 << 16
#: CPU time is given in slices of this many microseconds.
_PERIOD = 100_000
_SCRATCH_MIB = 64
#: What the kernel shows of the node and of everybody on it: names and traffic of others' interfaces, memory
#: and processor time of others' containers, names of the kernel side's tables. /sys is the node's, since
#: only who owns a network namespace may mount one of its own.
MASKED = ("/sys/class/net", "/sys/devices/virtual/net", "/sys/fs/bpf", "/sys/fs/cgroup")


def name_of(config: Config, endpoint: str) -> str:
    return f"{config.name}-{endpoint}"


def log_path(config: Config, endpoint: str) -> Path:
    """Where podman writes what the process prints."""
    return config.agent_dir / "logs" / f"{endpoint}.log"


def write_shared_files(config: Config) -> None:
    """Files that every container gets read-only."""
    folder = config.agent_dir / "shared"
    folder.mkdir(parents=True, exist_ok=True)
    resolver = addresses.workload(config, addresses.RESOLVER)
    files = {
        "resolv.conf": f"nameserver {resolver.v4}\nnameserver {resolver.v6}\n"
        "search cy.internal\noptions timeout:2 attempts:2\n",
        "seccomp.json": json.dumps(seccomp.profile()),
    }
    for file, text in files.items():
        (folder / file).write_text(text)
        (folder / file).chmod(0o644)
    (config.agent_dir / "logs").mkdir(exist_ok=True)


def hosts_path(config: Config, endpoint: str) -> Path:
    """A replica's /etc/hosts."""
    return config.agent_dir / "hosts" / endpoint


def write_hosts(config: Config, endpoint: dict[str, Any]) -> None:
    """A replica knows itself by name: programs ask for it at their start, and nobody else could answer."""
    file = hosts_path(config, endpoint["id"])
    file.parent.mkdir(exist_ok=True)
    own = hostname(endpoint)
    file.write_text(f"127.0.0.1 localhost\n::1 localhost\n{endpoint['v4']} {own}\n{endpoint['v6']} {own}\n")
    file.chmod(0o644)


def hostname(endpoint: dict[str, Any]) -> str:
    return f"{endpoint['labels']['component']}-{endpoint['id']}"


def _ids(number: int) -> list[dict[str, int]]:
    if not 0 <= number <= addresses.REPLICA_LAST:
        raise ValueError(f"workload {number} has no range of user ids")
    return [{"container_id": 0, "host_id": _FIRST_UID + number * _UIDS, "size": _UIDS}]


def specification(config: Config, endpoint: dict[str, Any], image: str) -> dict[str, Any]:
    """The body of podman's create call for an endpoint of the snapshot. ``number`` gives its user ids."""
    process, number = endpoint["process"], endpoint["number"]
    limits = process["limits"]
    shared = config.agent_dir / "shared"
    scratch = ["rw", "nosuid", "nodev", f"size={_SCRATCH_MIB}m", "mode=1777"]
    return {
        "name": name_of(config, endpoint["id"]),
        "image": image,
        **({"command": process["command"], "entrypoint": []} if process["command"] else {}),
        "env": process["environment"],
        "hostname": hostname(endpoint),
        "labels": {LABEL: str(config.net), "cytoplane.endpoint": endpoint["id"]},
        "netns": {"nsmode": "path", "value": str(network.path_of(config, endpoint["id"]))},
        "userns": {"nsmode": "private"},
        "idmappings": {
            "HostUIDMapping": False,
            "HostGIDMapping": False,
            "UIDMap": _ids(number),
            "GIDMap": _ids(number),
        },
        "cap_drop": ["ALL"],
        "cap_add": [],
        "no_new_privileges": True,
        "read_only_filesystem": True,
        "seccomp_profile_path": str(shared / "seccomp.json"),
        "mask": list(MASKED),
        "mounts": [
            {"type": "tmpfs", "destination": place, "options": scratch}
            for place in ("/tmp", "/run", "/var/tmp")  # noqa: S108
        ]
        + [
            {"type": "bind", "source": str(file), "destination": f"/etc/{name}", "options": ["ro", "bind"]}
            for name, file in (
                ("resolv.conf", shared / "resolv.conf"),
                ("hosts", hosts_path(config, endpoint["id"])),
            )
        ],
        "shm_size": _SCRATCH_MIB * 2**20,
        "image_volume_mode": "tmpfs",
        "resource_limits": {
            "memory": {"limit": limits["memory"], "swap": limits["memory"]},
            "cpu": {"quota": max(1000, int(limits["cpu"] * _PERIOD)), "period": _PERIOD},
            "pids": {"limit": limits["pids"]},
        },
        "r_limits": [
            {"type": "NOFILE", "hard": 16384, "soft": 16384},
            {"type": "NPROC", "hard": 4096, "soft": 4096},
            {"type": "CORE", "hard": 0, "soft": 0},
        ],
        "log_configuration": {
            "driver": "k8s-file",
            "path": str(log_path(config, endpoint["id"])),
            "size": 10485760,
        },
        "restart_policy": "no",
        "stop_timeout": int(process["stop_grace"]),
        "use_image_hosts": True,
        "use_image_resolve_conf": True,
        "systemd": "false",
    }


def open_output(pid: int) -> None:
    """Let the process, whatever its user, open ``/dev/stdout`` and ``/dev/stderr`` again by name.

    They are pipes that belong to a user who doesn't exist in its user namespace. Only its own
    processes see them.
    """
    for descriptor in (1, 2):
        Path(f"/proc/{pid}/fd/{descriptor}").chmod(0o622)
