"""A plane of one node with everything between a change's commit and the kernel: rows in PostgreSQL, a
worker's process, the agents' listener with its certificates, an agent's process, Envoy.

What isn't there are builds, containers and the web: the test acts as the person and the builder, and
opens sockets in the replicas' namespaces.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from dataplane import addresses
from dataplane.agent import network, sockets
from dataplane.agent.namespaces import run_in
from dataplane.gateway.files import Gateway
from dataplane.planes import enrolment
from dataplane.planes.models import Node
from delivery import machine
from delivery.models import Deployment, Replica
from infra import services, users
from infra.config import Config
from projects.models import Cell
from tests import factories
from tests.bpf import conftest as bpf
from tests.dataplane import processes
from tests.dataplane.agent.agents import REPOSITORY
from tests.dataplane.listener import listening
from tests.factories import World
from tests.services import HOME

#: An agent that starts loads its programs, beside whatever else the machine has to do.
SECONDS = 120.0


@dataclass
class Plane:
    """The node and its control plane."""

    config: Config
    world: World
    opened: list[Any] = field(default_factory=list)

    def replica(self, cell: Cell, component: str) -> Replica:
        """The newest replica of a component."""
        found = Replica.objects.filter(workload__cell=cell, workload__component__name=component)
        row = found.order_by("-pk").first()
        assert row is not None
        return row

    def address(self, row: Replica) -> addresses.Pair:
        return addresses.workload(self.config, row.address_index)

    def path(self, row: Replica) -> Path:
        return network.path_of(self.config, f"r{row.pk}")

    @property
    def gateway(self) -> Path:
        return network.path_of(self.config, "gateway")

    def deploy(self, cell: Cell, text: str) -> None:
        """A release that serves. The node reports meanwhile what it really is like, so a step may be too early."""
        deployment = self.world.push(cell)
        machine.advance(deployment.pk)
        factories.built(deployment, text)

        def live() -> bool:
            machine.advance(deployment.pk)
            deployment.refresh_from_db()
            if deployment.release is not None:
                factories.healthy(deployment)
            state = factories.drained(deployment)
            assert state != Deployment.State.FAILED, self.said()
            return state == Deployment.State.LIVE

        await_true(live, self, f"the release of {cell} isn't live")

    def await_networks(self) -> None:
        """Until every replica has a network of its own."""
        for row in Replica.objects.all():
            link = Path(f"/sys/class/net/{self.config.name}v{row.address_index}/operstate")
            await_true(
                lambda link=link: link.exists() and link.read_text().strip() == "up",  # type: ignore[misc]
                self,
                f"r{row.pk} has no network",
            )

    def said(self) -> str:
        return (self.config.home / "agent.log").read_text()[-2000:]

    def inside(self, row: Replica, work: Any) -> Any:
        made = run_in(self.path(row), work)
        self.opened.append(made)
        return made

    def ends(self, place: Path) -> set[tuple]:
        """Established TCP connections in a namespace that aren't on its loopback."""
        found = sockets.listing(place, (sockets.TCP,), (sockets.ESTABLISHED,))
        return {each.ends for each in found if each.local != each.remote}


def await_true(ready: Callable[[], bool], node: Plane, what: str) -> None:
    """Wait until it is so; what the agent said comes with the failure."""
    try:
        processes.await_true(ready, what, SECONDS)
    except AssertionError:
        raise AssertionError(f"{what}: {node.said()}") from None


@contextmanager
def _patched(config: Config) -> Iterator[None]:
    """Settings and files of the control plane of this installation."""
    patch = pytest.MonkeyPatch()
    patch.setattr(users, "ids", lambda config, part="": processes.nobody())
    patch.setattr(
        settings, "CONFIG", replace(settings.CONFIG, net=config.net, agents_port=config.agents_port)
    )
    try:
        yield
    finally:
        patch.undo()


def _program(config: Config, name: str, command: list[str], home: Path) -> subprocess.Popen:
    """A process of the platform, ended with the test or with its death."""
    environment = {
        **os.environ,
        "CYTOPLANE_HOME": str(home),
        "CYTOPLANE_NET": str(config.net),
        "CYTOPLANE_AGENTS_PORT": str(config.agents_port),
        "CYTOPLANE_DATABASE": connection.settings_dict["NAME"],
        # Quick, and which one loads is the subject of other tests.
        "CYTOPLANE_LOADER": "prebuilt",
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'platform'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "DJANGO_SETTINGS_MODULE": "controlplane.settings",
    }
    with (config.home / f"{name}.log").open("wb") as output:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, *command],
            env=environment, cwd=REPOSITORY, stdout=output, stderr=output,
        )  # fmt: skip


@contextmanager
def _running(config: Config, name: str, command: list[str], home: Path) -> Iterator[None]:
    started = _program(config, name, command, home)
    try:
        yield
    finally:
        started.kill()
        started.wait(processes.SECONDS)


@contextmanager
def worker(config: Config) -> Iterator[None]:
    """A worker as the supervisor starts it; what is queued when it comes is done first."""
    command = ["-m", "celery", "-A", "controlplane.celery", "worker", "--pool", "threads"]
    command += ["--concurrency", "2", "--loglevel", "INFO", "--without-gossip", "--without-mingle"]
    log = config.home / "worker.log"
    with _running(config, "worker", command, HOME):
        processes.await_true(lambda: log.exists() and " ready." in log.read_text(), "the worker isn't ready")
        yield


@contextmanager
def plane(world: World) -> Iterator[Plane]:
    """A plane whose agent has enrolled; there is no worker yet. All of it is gone afterwards."""
    with processes.folder("plane") as home, ExitStack() as stack:
        config = Config(home=home, net=bpf.APART, agents_port=processes.free_port())
        bpf.remove(config)
        stack.callback(partial(bpf.remove, config))
        stack.enter_context(_patched(config))
        services.owned(config.gateway_dir, config, "-gw", 0o700)
        services.owned(config.resolver_dir, config, None, 0o755)
        stack.enter_context(listening(config))
        config.agent_dir.mkdir(mode=0o700)
        (config.agent_dir / "enrolment").write_text(enrolment.create_token(Node.Kind.AGENT, world.plane))
        agent = ["-m", "tests.dataplane.agent.follower"]
        stack.enter_context(_running(config, "agent", agent, home))
        made = Plane(config, world)
        stack.callback(lambda: [each.close() for each in made.opened])
        gateway = Gateway(config)
        bootstrap = processes.envoy_command(config.gateway_dir / "bootstrap.json")
        await_true(lambda: made.gateway.exists() and _up(config), made, "there is no gateway")
        await_true(lambda: Node.objects.filter(plane=world.plane).exists(), made, "nobody enrolled")
        stack.enter_context(
            processes.process(bootstrap, home / "envoy.log", gateway.healthy, namespace=made.gateway)
        )
        yield made


def _up(config: Config) -> bool:
    link = Path(f"/sys/class/net/{config.name}v{addresses.GATEWAY_NORTH}/operstate")
    return link.exists() and link.read_text().strip() == "up"
