"""Loading, upgrading and unloading; tables that are safe to interrupt."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import pytest

from bpf import attach, loader, machine, opening
from bpf import sys as bpf
from bpf.reasons import REASONS
from bpf.tables import ALLOW, EGRESS, Policy, Service, Tables
from dataplane.agent import filters, network
from infra.config import Config
from tests.bpf.conftest import REPOSITORY, load, run_loader
from tests.bpf.laboratory import TCP, Laboratory


def test_reasons_in_c_and_python_agree() -> None:
    header = (Path(loader.__file__).parent / "lib" / "reasons.h").read_text()
    in_c = {int(number): name for name, number in re.findall(r"#define REASON_(\w+) (\d+)", header)}
    assert in_c == {number: reason.code for number, reason in REASONS.items()}


@pytest.mark.root
def test_a_connection_survives_loading_again(laboratory: Laboratory) -> None:
    a, b = laboratory.workload("a", 300, 1024), laboratory.workload("b", 301, 1025)
    b.listen(TCP, 8080)
    laboratory.allow(("a", "b", 8080, TCP))
    laboratory.serve(("b", 8080, TCP))
    connection = a.connected(b.service4, 8080)
    load(laboratory.config)
    for member in (a, b):
        attach.attach(laboratory.config, member.namespace.ifindex)
    connection.settimeout(1)
    connection.sendall(b"on")
    assert connection.recv(8) == b"on"
    connection.close()
    assert a.call(b.service6, 8080) == "b"


@pytest.mark.root
def test_enforcement_needs_no_process(laboratory: Laboratory) -> None:
    a, b = laboratory.workload("a", 300, 1024), laboratory.workload("b", 301, 1025)
    b.listen(TCP, 8080)
    b.listen(TCP, 8081)
    laboratory.allow(("a", "b", 8080, TCP))
    # Another instance, as after a restart, finds what is in force and changes nothing.
    again = Tables(laboratory.config)
    entries = [Policy(301, 8080, TCP, EGRESS, ALLOW, 1000)]
    assert again.apply_identity(300, 1, entries) is False
    again.close()
    assert (a.call(b.v4, 8080), a.call(b.v4, 8081)) == ("b", "")


@pytest.mark.root
def test_services_are_read_back_after_a_restart(kernel: Config, laboratory: Laboratory) -> None:
    service = Service(0, str(kernel.services4[50]), 80, TCP, ((str(kernel.workloads4[1024]), 8080),))
    assert laboratory.tables.set_services([service]) == 1
    again = Tables(kernel)
    assert again.set_services([service]) == 0
    assert again.set_services([]) == 1
    again.close()


@pytest.mark.root
def test_foreign_interfaces_are_not_touched(kernel: Config) -> None:
    with pytest.raises(attach.NotOurs):
        attach.attach(kernel, 1)


@pytest.mark.root
def test_status_names_what_is_attached(kernel: Config) -> None:
    status = loader.status(kernel)
    assert (status["loaded"], status["loader"]) == (True, kernel.loader)
    assert set(status["hooks"]) == set(loader.HOOKS)


@pytest.mark.root
def test_unload_leaves_nothing(kernel: Config) -> None:
    loader.unload(kernel)
    left = [hook for hook in loader.HOOKS if attached(kernel, hook)]
    there, status = kernel.bpffs.exists(), loader.status(kernel)
    load(kernel)
    assert (left, there, status) == ([], False, {"loaded": False})
    assert loader.status(kernel)["loaded"]


@pytest.mark.root
def test_loading_again_replaces_each_hook_and_leaves_one_there(kernel: Config) -> None:
    before = {hook: attached(kernel, hook) for hook in loader.HOOKS}
    load(kernel)
    after = {hook: attached(kernel, hook) for hook in loader.HOOKS}
    assert all(len(ids) == 1 for ids in after.values())
    assert all(after[hook] != before[hook] for hook in loader.HOOKS)


@pytest.mark.root
def test_filters_of_existing_interfaces_are_replaced_in_place(laboratory: Laboratory) -> None:
    a, b = laboratory.workload("a", 300, 1024), laboratory.workload("b", 301, 1025)
    b.listen(TCP, 8080)
    laboratory.allow(("a", "b", 8080, TCP))
    connection = a.connected(b.v4, 8080)
    config, ifindex = laboratory.config, a.namespace.ifindex
    load(config)
    fresh = {side: [number] for side, number in filters.current(config).items()}
    assert filters.programs([ifindex])[ifindex] != fresh
    adopted = network.adopt(config, "a", 1024)
    assert adopted is not None and adopted.ifindex == ifindex
    # The new program alone: the earlier one isn't left behind it.
    assert filters.programs([ifindex])[ifindex] == fresh
    connection.settimeout(1)
    connection.sendall(b"on")
    assert connection.recv(8) == b"on"
    connection.close()


@pytest.mark.root
def test_one_loader_takes_over_what_the_other_loaded(laboratory: Laboratory) -> None:
    a, b = laboratory.workload("a", 300, 1024), laboratory.workload("b", 301, 1025)
    b.listen(TCP, 8080)
    laboratory.allow(("a", "b", 8080, TCP))
    laboratory.serve(("b", 8080, TCP))
    connection = a.connected(b.service4, 8080)
    config = laboratory.config
    other = dataclasses.replace(config, loader="prebuilt" if config.loader == "bcc" else "bcc")
    tables = map_ids(config)
    try:
        assert load(other)["loader"] == other.loader
        assert map_ids(config) == tables
        for member in (a, b):
            attach.attach(config, member.namespace.ifindex)
        connection.settimeout(1)
        connection.sendall(b"on")
        assert connection.recv(8) == b"on"
        assert (a.call(b.service6, 8080), a.call(b.v4, 8081)) == ("b", "")
    finally:
        connection.close()
        load(config)


@pytest.mark.root
def test_a_pinned_map_of_another_kind_is_refused_in_words(kernel: Config) -> None:
    pin = loader.pins(kernel) / "maps" / "services"
    kept = bpf.object_get(pin)
    pin.unlink()
    foreign = bpf.map_create(1, 24, 8, 7)
    try:
        bpf.object_pin(foreign, pin)
        done = run_loader(kernel, REPOSITORY)
        error = json.loads(done.stdout)["error"]
        assert done.returncode == 1
        assert "the pinned map services has max_entries 7 instead of 262144" in error and "unload" in error
        assert loader.status(kernel)["loaded"]
    finally:
        pin.unlink()
        bpf.object_pin(kept, pin)
        os.close(kept)
        os.close(foreign)


def test_a_node_that_cannot_compile_takes_prebuilt_programs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = Config(home=tmp_path)
    assert opening.chosen(config) == ("bcc" if machine.can_compile() else "prebuilt")
    monkeypatch.setattr(machine, "can_compile", lambda: False)
    assert opening.chosen(config) == "prebuilt"
    assert opening.chosen(dataclasses.replace(config, loader="bcc")) == "bcc"
    with pytest.raises(loader.LoadError, match="auto, bcc or prebuilt"):
        opening.chosen(dataclasses.replace(config, loader="other"))


def attached(config: Config, hook: str) -> list[int]:
    """Ids of this installation's programs at a hook."""
    with loader._root() as root:
        there = bpf.attached(root, loader.HOOKS[hook])
    ours = {bpf.info(program)["id"] for program in loader._ours(config, hook)}
    return [number for number in there if number in ours]


def map_ids(config: Config) -> dict[str, int]:
    found = {}
    for pin in (loader.pins(config) / "maps").iterdir():
        descriptor = bpf.object_get(pin)
        found[pin.name] = bpf.info(descriptor)["id"]
        os.close(descriptor)
    return found
