"""What starts processes on a node and gives them their addresses: podman with the agent, or Kubernetes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from dataplane.agent.commands import Command, Process
from dataplane.agent.following import Rules
from dataplane.agent.kernel import Kernel
from dataplane.agent.load import Measured
from dataplane.agent.logs import Tail
from dataplane.client import ControlPlane
from infra.config import Config


class Engine(Protocol):
    """One for an agent. All but ``begin`` is called from the agent's own loops, one call at a time each."""

    def prepare(self) -> None:
        """Files that must be there before the kernel side is."""

    def begin(self, kernel: Kernel) -> None:
        """The kernel side is up; desired state isn't known yet."""

    def adapted(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Desired state with the addresses that things have on this engine, to be applied as it is."""

    def rules(self, rules: Rules | None) -> Rules | None:
        """Changed rules of identities, with what this engine adds to them."""

    def take_over(self, document: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Everything that runs must be in new tables: endpoints that the kernel side has to look for."""

    def start(self, document: Mapping[str, Any]) -> None:
        """Let run what is to run, once it may."""

    def published(self, document: Mapping[str, Any]) -> None:
        """The kernel's tables and the resolver's say what this document does."""

    def end(self, document: Mapping[str, Any]) -> list[str]:
        """Let end what isn't to run any more; no service leads there. Ids that are gone."""

    def down(self) -> set[str]:
        """Replicas that get no new connections."""

    def running(self) -> list[str]:
        """Ids of the replicas of this node that there is something to know about."""

    def tail(self, replica: str, place: tuple[int, int]) -> Tail | None:
        """What a replica writes, from a place on; None if nothing is known of it yet."""

    def measured(self) -> dict[str, Measured]:
        """Replicas of this node whose load the control plane asks for."""

    def reports(self) -> list[dict[str, Any]]:
        """What the control plane is to know of replicas."""

    def problems(self) -> list[str]:
        """What is wrong with the engine, as sentences."""

    def noted(self, health: dict[str, Any]) -> None:
        """What the node says of itself, every few seconds."""

    def enter(self, command: Command) -> Process:
        """Run a command in a replica of this node. Raises ``CantEnter``. Called by any thread."""

    def clear(self) -> None:
        """End commands in replicas that an agent before this one began."""

    def tidy(self, document: Mapping[str, Any]) -> None:
        """Take away what nothing needs any more; called now and then."""


def make(
    config: Config, control: ControlPlane, changed: Callable[[], None], again: Callable[[], None]
) -> Engine:
    """The engine of the node. ``changed`` is called when what serves is something else, ``again`` when
    desired state has to be applied once more."""
    if config.engine == "kubernetes":
        from dataplane.agent.engines.kubernetes import Kubernetes

        return Kubernetes(config, again)
    from dataplane.agent.engines.machine import Machine

    return Machine(config, control, changed)
