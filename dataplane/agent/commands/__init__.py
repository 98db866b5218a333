"""Commands of people in replicas of this node: taken from the control plane, ended with whoever asked for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

#: Of output, at once.
LARGEST_PIECE = 32 * 1024


class CantEnter(RuntimeError):
    """The command can't be started; the message is a sentence for the person."""


@dataclass(frozen=True)
class Command:
    """What is to run. ``size``: rows and columns of the terminal, if there is to be one."""

    session: int
    replica: str
    words: list[str]
    tty: bool
    size: tuple[int, int]


class Process(Protocol):
    """A command that runs. ``output`` and ``wait`` are one thread's, everything else another's."""

    def output(self) -> Iterator[tuple[str, bytes]]:
        """What it writes as (``out`` or ``err``, bytes), until it has ended."""

    def wait(self) -> int | None:
        """Its exit code once its output has ended; None if nobody knows."""

    def write(self, data: bytes) -> None:
        """Give it input; waits for as long as it reads nothing. Raises ``OSError`` once it reads no more."""

    def close_input(self) -> None:
        """There is no more input."""

    def resize(self, rows: int, columns: int) -> None:
        """Its terminal has another size."""

    def signal(self, name: str) -> None:
        """Send a signal, named without ``SIG``."""

    def kill(self) -> None:
        """End it and what it has started. Its output ends then."""

    def close(self) -> None:
        """Once it is killed and nobody reads or writes any more."""
