"""A machine joins a plane elsewhere by the printed command alone: another home, another number, no database."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from dataplane.planes import private, server_certificate
from dataplane.planes.models import EnrolmentToken, Node
from infra.config import Config
from tests.bpf.conftest import APART
from tests.cluster import until
from tests.dataplane.listener import config, said  # noqa: F401  a fixture
from tests.factories import World

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]


class Machine:
    """Where the command is typed."""

    def __init__(self, home: Path) -> None:
        self.home = home
        kept = {
            "PATH": os.environ["PATH"],
            "CYTOPLANE_CACHE": os.environ.get("CYTOPLANE_CACHE", "/var/cache/cytoplane"),
        }
        kept |= {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "SSL_"))}
        self.environment = {**kept, "CYTOPLANE_HOME": str(home), "CYTOPLANE_APPS_PORT": "17911"}

    def type(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", line], env=self.environment, cwd="/", capture_output=True, text=True, timeout=240
        )

    def operate(self, verb: str) -> subprocess.CompletedProcess[str]:
        return self.type(f"{self.home}/bin/cytoplane-node {verb}")


@pytest.fixture
def machine() -> Iterator[Machine]:
    """Short a path, for its sockets."""
    made = Machine(Path(f"/var/tmp/cytoplane-node-{APART}"))
    shutil.rmtree(made.home, ignore_errors=True)
    try:
        yield made
    finally:
        if (made.home / "bin").exists():
            done = made.operate("purge")
            assert done.returncode == 0, done.stderr
        assert not made.home.exists() or not list(made.home.iterdir())


@pytest.fixture
def listening(config: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The control plane says of its listener what is true of the tests'."""
    monkeypatch.setattr(settings, "CONFIG", said(config))
    return config


@pytest.mark.capability("join", "machine")
def test_a_machine_joins_by_the_printed_command_and_leaves_nothing_behind(
    committed_world: World, listening: Config, machine: Machine
) -> None:
    owner = committed_world.actor("owner")
    invitation = private.create(acting_user=owner, name="own", engine="machine", owner="acme", net=APART)
    done = machine.type(invitation.command)
    # The command itself gives up waiting after a minute and a half, which a busy machine may need longer for.
    assert done.returncode == 0 or "Not every part is healthy" in done.stderr, done.stdout + done.stderr
    until(lambda: machine.operate("status").returncode == 0, 150, done.stdout)
    assert invitation.token not in done.stdout + done.stderr
    node = Node.objects.get(plane=invitation.plane)
    assert EnrolmentToken.objects.get(plane=invitation.plane).used_at
    until(
        lambda: Node.objects.filter(pk=node.pk, health__healthy=True).exists(), 30, "the node isn't heard of"
    )
    # It got what a node needs, and nothing of a control plane.
    for name in ("platform", "web", "dataplane/planes"):
        assert not (machine.home / "app" / name).exists()
    assert not (machine.home / "secrets").exists()
    # Whoever finds the command later gets neither code nor a certificate.
    again = machine.type(invitation.command)
    assert again.returncode != 0
    assert "token is used" in again.stderr
    assert machine.operate("status").returncode == 0, "a refused command changes nothing"


def test_the_script_believes_no_listener_but_the_one_that_the_command_names(
    committed_world: World, listening: Config, machine: Machine
) -> None:
    owner = committed_world.actor("owner")
    command = private.create(acting_user=owner, name="own", engine="machine", owner="acme").command
    other = command.replace("sha256//", "sha256//AAAA", 1)
    done = machine.type(other)
    assert "pinned" in done.stderr
    assert not machine.home.exists()
    assert not EnrolmentToken.objects.get().used_at
    assert server_certificate.RENEW_AFTER > 3600, "a command outlives no renewal but the one just after it"


def test_an_installation_with_a_control_plane_is_left_alone(
    committed_world: World, listening: Config, machine: Machine
) -> None:
    machine.home.mkdir()
    (machine.home / "config.toml").write_text('role = "platform"\n')
    owner = committed_world.actor("owner")
    command = private.create(acting_user=owner, name="own", engine="machine", owner="acme").command
    done = machine.type(command)
    assert done.returncode != 0
    assert "control plane" in done.stderr
    assert [path.name for path in machine.home.iterdir()] == ["config.toml"]
    shutil.rmtree(machine.home)
