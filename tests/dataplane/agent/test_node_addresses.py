"""Which addresses of a node are closed to what runs on it."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataplane.agent.namespaces import run_in
from dataplane.agent.node_addresses import node_addresses
from infra.config import Config

pytestmark = pytest.mark.root
GATEWAY, OTHER = "203.0.113.1", "203.0.113.9"


@pytest.fixture
def node() -> Iterator[Path]:
    """A namespace with two pods' interfaces of a CNI that gives its gateway's address to each."""
    name = f"test-{secrets.token_hex(4)}"
    commands = ["link set lo up", f"address add {OTHER}/24 dev lo"]
    for pod in ("a", "b"):
        commands += [f"link add host-{pod} type veth peer name pod-{pod}", f"link set host-{pod} up"]
        commands += [f"link set pod-{pod} up", f"address add {GATEWAY}/32 dev host-{pod}"]
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for command in commands:
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        yield Path("/run/netns") / name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


def test_an_address_of_many_interfaces_is_closed_once(node: Path, tmp_path: Path) -> None:
    config = Config(home=tmp_path)
    found = run_in(node, lambda: node_addresses(config))
    assert found == [(f"{GATEWAY}/32", "NODE"), (f"{OTHER}/32", "NODE")]
