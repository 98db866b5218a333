"""Control groups of processes and pods: of this machine, and of both versions as files that look like them."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from dataplane.agent import groups
from dataplane.agent.commands import joining

UID = "0a1b2c3d-1111-2222-3333-444455556666"
ONE = "33 31 0:30 {root} {mount}/cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
TWO = "41 31 0:38 / {mount}/unified rw,relatime - cgroup2 cgroup2 rw\n"


def mounted(folder: Path, text: str, root: str = "/") -> Path:
    (folder / "mountinfo").write_text(
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" + text.format(root=root, mount=folder)
    )
    return folder / "mountinfo"


def process(folder: Path, number: int, text: str) -> Path:
    (folder / str(number)).mkdir()
    (folder / str(number) / "cgroup").write_text(text)
    return folder


def test_the_time_of_a_process_of_this_machine_grows_while_it_works() -> None:
    with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as busy:
        try:
            folder = groups.of_process(busy.pid)
            assert folder is not None
            before = groups.seconds(folder)
            end = time.monotonic() + 10
            assert before is not None
            while (groups.seconds(folder) or 0) - before < 0.05 and time.monotonic() < end:
                time.sleep(0.05)
            assert (groups.seconds(folder) or 0) - before >= 0.05
        finally:
            busy.kill()
    assert groups.of_process(busy.pid) is None


@pytest.mark.parametrize(
    ("text", "version", "said"),
    [(ONE + TWO, "1", "2:cpu,cpuacct:/a/b\n0::/other\n"), (TWO, "2", "0::/a/b\n")],
    ids=["version 1 beside 2", "version 2 alone"],
)
def test_a_processs_group_is_that_of_the_hierarchy_that_counts(
    tmp_path: Path, text: str, version: str, said: str
) -> None:
    mounts = mounted(tmp_path, text)
    mount = tmp_path / ("cpuacct" if version == "1" else "unified")
    (mount / "a/b").mkdir(parents=True)
    if version == "1":
        (mount / "a/b/cpuacct.usage").write_text("1500000000\n")
    else:
        (mount / "a/b/cpu.stat").write_text("user_usec 1\nusage_usec 1500000\n")
    folder = groups.of_process(7, process(tmp_path, 7, said), mounts)
    assert folder == mount / "a/b"
    assert groups.seconds(folder) == 1.5


def test_what_is_mounted_of_a_hierarchy_is_all_that_is_seen(tmp_path: Path) -> None:
    mounts = mounted(tmp_path, ONE, root="/docker/x")
    (tmp_path / "cpuacct/b").mkdir(parents=True)
    inside = process(tmp_path, 7, "2:cpu,cpuacct:/docker/x/b\n")
    assert groups.of_process(7, inside, mounts) == tmp_path / "cpuacct/b"
    outside = process(tmp_path, 8, "2:cpu,cpuacct:/../b\n")
    assert groups.of_process(8, outside, mounts) is None
    # Nothing is put there either: it would be another group.
    with pytest.raises(joining.NotPlaced, match="cpu, cpuacct can't be seen"):
        joining.of(8, outside, mounts)
    assert joining.of(7, inside, mounts) == [tmp_path / "cpuacct/b"]


@pytest.mark.parametrize(
    "place",
    [
        f"kubepods/burstable/pod{UID}",
        f"kubepods/pod{UID}",
        f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice",
        f"kubelet/kubepods/besteffort/pod{UID}",
    ],
)
@pytest.mark.parametrize("text", [ONE, TWO], ids=["1", "2"])
def test_a_pods_group_is_found_by_its_uid(tmp_path: Path, text: str, place: str) -> None:
    mounts = mounted(tmp_path, text)
    mount = tmp_path / ("cpuacct" if text == ONE else "unified")
    (mount / place / "container").mkdir(parents=True)
    (mount / "user" / f"pod{UID}").mkdir(parents=True)
    assert groups.of_pod(UID, mounts) == mount / place
    assert groups.of_pod("ffffffff" + UID[8:], mounts) is None


def test_what_isnt_there_has_no_time(tmp_path: Path) -> None:
    assert groups.seconds(tmp_path / "gone") is None
    (tmp_path / "cpu.stat").write_text("usage_usec many\n")
    assert groups.seconds(tmp_path) is None
    assert groups.counting(mounted(tmp_path, "")) is None
    assert groups.of_process(os.getpid(), mounts=tmp_path / "nothing") is None
