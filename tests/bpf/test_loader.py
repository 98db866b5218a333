"""Loading, upgrading and unloading; tables that are safe to interrupt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bpf import attach, loader
from bpf.reasons import REASONS
from bpf.tables import ALLOW, EGRESS, Policy, Service, Tables
from infra.config import Config
from tests.bpf.conftest import load
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
    assert status["loaded"] is True
    assert set(status["hooks"]) == set(loader.HOOKS)


@pytest.mark.root
def test_unload_leaves_nothing(tmp_path: Path) -> None:
    config = Config(home=tmp_path, net=12)
    loader.unload(config)
    load(config)
    assert loader.status(config)["loaded"]
    loader.unload(config)
    assert not config.bpffs.exists()
    assert loader.status(config) == {"loaded": False}
