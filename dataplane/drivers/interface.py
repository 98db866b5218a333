"""The driver interface: a cell's place on a plane is ensured, looked at and removed.

Every call may be repeated, and may follow one that was killed at any point: it goes on from what is
there. Calls for one cell must not overlap; calls for different cells may.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

#: Names as the platform validates them (tenants.names), checked again where they leave the platform.
_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?")
_LOCATION = re.compile(r"cell-([1-9][0-9]{0,18})-[0-9a-f]{8}")


@dataclass(frozen=True)
class Quota:
    """The most that a cell may hold at once: pods or replicas, thousandths of a core, MiB."""

    replicas: int
    cpu: int
    memory: int

    def __post_init__(self) -> None:
        if min(self.replicas, self.cpu, self.memory) < 1:
            raise ValueError("a quota is at least one of each")


@dataclass(frozen=True)
class PlacedCell:
    """A cell and its place. ``location`` is made once by ``location_for`` and names it on the plane.

    ``endpoints`` is what runs of it, as desired state says it, with the variables filled in; ``pull``
    what its images are pulled with, "" where no one asks. Raises ``ValueError`` for what can't be a name, a number or a location: none of them is ever
    escaped later.
    """

    number: int
    location: str
    tenant: str
    project: str
    environment: str
    quota: Quota
    endpoints: tuple[dict[str, Any], ...] = field(default=(), repr=False, hash=False)
    pull: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        for name in (self.tenant, self.project, self.environment):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name[:60]!r} can't be a name")
        match = _LOCATION.fullmatch(self.location)
        if match is None or int(match[1]) != self.number:
            raise ValueError(f"{self.location[:80]!r} isn't a location of cell {self.number}")


def location_for(number: int) -> str:
    """A new location for a cell: its number and something random, no words of people.

    Random, because two installations may use one cluster and both have a cell 1.
    """
    return f"cell-{number}-{secrets.token_hex(4)}"


class CellState(StrEnum):
    """What is there of a cell."""

    ABSENT = "absent"
    #: As it was ensured last.
    READY = "ready"
    #: Something is missing, changed or too much; ``ensure`` repairs it.
    DRIFTED = "drifted"
    #: An earlier call ended in the middle; ``ensure`` and ``remove`` go on from there.
    INTERRUPTED = "interrupted"
    #: Going away. Nothing to do but wait.
    REMOVING = "removing"


@dataclass(frozen=True)
class CellStatus:
    """State, the number of times that it was installed or upgraded, and sentences about what is wrong."""

    state: CellState
    revision: int = 0
    problems: tuple[str, ...] = ()


class DriverError(Exception):
    """What stopped a driver, as a sentence for the platform's admins. Never holds a secret.

    ``passing`` says whether trying again later, with nothing changed, may help.
    """

    code = "driver"
    passing = False


class Unreachable(DriverError):
    """The plane doesn't answer."""

    code = "unreachable"
    passing = True


class Denied(DriverError):
    """The plane knows these credentials not, or they lack a right."""

    code = "denied"


class Taken(DriverError):
    """Something that isn't ours has the place."""

    code = "taken"


class Rejected(DriverError):
    """The plane refuses what the cell is made of."""

    code = "rejected"


class NoRoom(Rejected):
    """What the cell may hold is used up; until something of it ends."""

    passing = True


class Driver(Protocol):
    """An engine's driver. All methods raise ``DriverError``."""

    def reports(self, cell: PlacedCell, before: dict[str, str]) -> list[dict[str, Any]]:
        """What is known of the replicas of ``endpoints``: id, phase and why, as a node would report it.

        ``before``: id → the phase that was reported last. What was healthy once doesn't fail any more,
        it is unwell.
        """
        ...

    def ensure(self, cell: PlacedCell) -> CellStatus:
        """Make the cell's place what it should be: made, upgraded, repaired; nothing if it is already."""
        ...

    def status(self, cell: PlacedCell) -> CellStatus:
        """Look, change nothing."""
        ...

    def remove(self, cell: PlacedCell) -> CellStatus:
        """Begin or continue removal: ``REMOVING`` until nothing is left, then ``ABSENT``."""
        ...
