"""What an engine offers to the checks: a place where a world runs and can be asked.

``engine_machine.py`` is one, on namespaces. One for Kubernetes puts pods in their place: a module with a
``Site`` of its own, and its name in ``SITES`` of ``run.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from cells.boundary.model import Boundary, Topology
from infra.config import Config
from tests.conformance.probes import Probe
from tests.conformance.world import World


class Report(NamedTuple):
    """A call that passed and was reported, as the kernel knows it."""

    source: int
    destination: int
    port: int
    protocol: int


class Engine(Protocol):
    """A world that runs."""

    def apply(self, boundary: Boundary) -> None:
        """Put a compiled boundary in force."""

    def ask(self, probes: Iterable[Probe]) -> dict[Probe, str]:
        """Who answered each probe: a replica's index, ``outside``, ``node``, ``pong``, or ``""`` for nobody."""

    def reports(self) -> set[Report]:
        """What was let through and reported since the last time."""

    def close(self) -> None:
        """Take down everything that was set up."""


class Site(Protocol):
    """Where worlds are set up, one after the other. ``config`` has the ranges that addresses come from."""

    @property
    def config(self) -> Config: ...

    def engine(self, world: World, topology: Topology, boundary: Boundary) -> Engine:
        """Set up a world. ``topology`` is what the boundary was made of."""
