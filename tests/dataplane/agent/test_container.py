"""What podman is told about a replica: nothing in it may be more than a workload needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataplane import addresses
from dataplane.agent import container, network, podman, seccomp
from dataplane.builder import images
from infra.config import Config


def endpoint(number: int = addresses.REPLICA_FIRST, **process: Any) -> dict[str, Any]:
    return {
        "id": f"r{number}",
        "number": number,
        "v4": "10.0.0.1",
        "v6": "fd00::1",
        "identity": 300,
        "process": {
            "image": "t1/p1@sha256:" + "a" * 64,
            "command": None,
            "environment": {"PORT": "8080"},
            "limits": {"memory": 64 * 2**20, "cpu": 0.25, "pids": 100},
            "stop_grace": 10,
            "probe": {"type": "none"},
            **process,
        },
        "labels": {"tenant": "acme", "component": "web"},
    }


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(home=tmp_path)


@pytest.fixture
def made(config: Config) -> dict[str, Any]:
    return container.specification(config, endpoint(), "localhost/image")


def test_a_replica_has_no_rights(made: dict[str, Any]) -> None:
    assert made["cap_drop"] == ["ALL"]
    assert made["cap_add"] == []
    assert made["no_new_privileges"] is True
    assert made["read_only_filesystem"] is True
    assert not made.get("privileged")
    assert made["seccomp_profile_path"].endswith("/seccomp.json")
    assert not {"devices", "pidns", "ipcns", "utsns", "cgroupns", "volumes", "selinux_opts"} & set(made)
    assert made["restart_policy"] == "no"
    # /sys is the node's: what it tells of neighbours is hidden.
    assert {"/sys/class/net", "/sys/devices/virtual/net", "/sys/fs/cgroup", "/sys/fs/bpf"} <= set(
        made["mask"]
    )


def test_its_namespace_is_the_agents_and_nothing_is_podmans(config: Config, made: dict[str, Any]) -> None:
    assert made["netns"] == {
        "nsmode": "path",
        "value": str(network.path_of(config, f"r{addresses.REPLICA_FIRST}")),
    }
    assert not {"portmappings", "networks", "Networks", "publish_image_ports"} & set(made)


def test_limits_are_those_of_the_declaration(made: dict[str, Any]) -> None:
    limits = made["resource_limits"]
    assert limits["memory"] == {"limit": 64 * 2**20, "swap": 64 * 2**20}, "no swap beside the memory"
    assert limits["cpu"]["quota"] / limits["cpu"]["period"] == 0.25
    assert limits["pids"] == {"limit": 100}
    bounds = {entry["type"]: entry["hard"] for entry in made["r_limits"]}
    assert bounds["CORE"] == 0 and bounds["NOFILE"] <= 2**20


def test_what_may_be_written_is_bounded_scratch(config: Config, made: dict[str, Any]) -> None:
    for mount in made["mounts"]:
        if mount["type"] == "tmpfs":
            assert {"nosuid", "nodev"} <= set(mount["options"])
            assert any(option.startswith("size=") for option in mount["options"])
        else:
            assert "ro" in mount["options"]
            assert Path(mount["source"]).parent in (config.agent_dir / "shared", config.agent_dir / "hosts")
    assert made["image_volume_mode"] == "tmpfs"


def test_no_two_numbers_share_a_user(config: Config) -> None:
    ranges = []
    for number in (0, 1, 2, addresses.REPLICA_FIRST, addresses.REPLICA_LAST - 1, addresses.REPLICA_LAST):
        mapping = container.specification(config, endpoint(number), "x")["idmappings"]
        assert mapping["UIDMap"] == mapping["GIDMap"]
        assert mapping["HostUIDMapping"] is mapping["HostGIDMapping"] is False
        (entry,) = mapping["UIDMap"]
        assert entry["container_id"] == 0
        ranges.append((entry["host_id"], entry["host_id"] + entry["size"]))
    builds = [(images.first_uid(tenant), images.first_uid(tenant) + 2**16) for tenant in (0, 1, 2**15 - 2)]
    ordered = sorted(ranges + builds)
    assert ordered[0][0] >= 2**20, "users of the machine lie below"
    for (_, end), (start, _) in zip(ordered, ordered[1:], strict=False):
        assert end <= start
    assert ordered[-1][1] <= 2**32 - 1, "the last number is nobody's"


@pytest.mark.parametrize("number", [-1, addresses.REPLICA_LAST + 1, 2**31])
def test_numbers_without_a_range_are_refused(config: Config, number: int) -> None:
    with pytest.raises(ValueError, match="range of user ids"):
        container.specification(config, endpoint(number), "x")


@pytest.mark.parametrize("tenant", [-1, 2**15 - 1, 2**15])
def test_tenants_without_a_range_are_refused(tenant: int) -> None:
    with pytest.raises(ValueError, match="range of user ids"):
        images.first_uid(tenant)


def test_shared_files_are_readable_and_say_whom_to_ask(config: Config) -> None:
    container.write_shared_files(config)
    shared = config.agent_dir / "shared"
    resolver = addresses.workload(config, addresses.RESOLVER)
    assert f"nameserver {resolver.v4}\nnameserver {resolver.v6}\n" in (shared / "resolv.conf").read_text()
    assert json.loads((shared / "seccomp.json").read_text()) == seccomp.profile()
    for file in shared.iterdir():
        assert file.stat().st_mode & 0o777 == 0o644


def test_podmans_own_defaults_give_nothing_away(config: Config) -> None:
    text = podman.containers_conf(config)
    for setting in ("default_sysctls = []", 'netns = "none"', 'runtime = "runc"'):
        assert setting in text


def test_the_profile_refuses_what_the_design_says() -> None:
    profile = seccomp.profile()
    unconditional = {name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]}
    for name in ("unshare", "setns", "clone3", "keyctl", "add_key", "request_key", "bpf", "ptrace", "mount"):
        assert name in unconditional, name
    for name in ("io_uring_setup", "io_uring_enter", "io_uring_register", "userfaultfd", "perf_event_open"):
        assert name in unconditional, name
    assert all(rule["action"] == "SCMP_ACT_ERRNO" for rule in profile["syscalls"])
    refused = {rule["args"][0]["value"] for rule in profile["syscalls"] if rule["names"] == ["clone"]}
    for flag in (0x10000000, 0x40000000, 0x00020000, 0x20000000, 0x08000000, 0x04000000, 0x02000000):
        assert flag in refused, hex(flag)
    families = {rule["args"][0]["value"] for rule in profile["syscalls"] if "socketpair" in rule["names"]}
    assert 17 in families, "packet sockets"


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "nginx",
        "t1/p1:latest",
        "t1/p1@sha256:" + "A" * 64,
        "t1/p1@sha256:" + "a" * 63,
        "x/t1/p1@sha256:" + "a" * 64,
    ]
    + [
        "t1/p1@sha256:" + "a" * 64 + "\n",
        "../t1/p1@sha256:" + "a" * 64,
        "t1/p1@sha256:" + "a" * 64 + " --insecure",
    ],
)
def test_only_digests_of_the_platforms_registry_are_pulled(reference: str) -> None:
    from dataplane.agent.images import ImageError, local_name

    with pytest.raises(ImageError):
        local_name(reference)


def test_a_replica_knows_its_own_name_and_nobody_elses(config: Config) -> None:
    config.agent_dir.mkdir()
    replica = endpoint()
    container.write_hosts(config, replica)
    lines = container.hosts_path(config, replica["id"]).read_text().splitlines()
    own = container.specification(config, replica, "image")["hostname"]
    assert lines[:2] == ["127.0.0.1 localhost", "::1 localhost"]
    assert lines[2:] == [f"{replica[family]} {own}" for family in ("v4", "v6")]
