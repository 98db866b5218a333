"""Running code in a network namespace without ever leaving the process's own for the rest of it.

A namespace belongs to a thread, so the work is done in a thread that ends afterwards. Sockets that
it opens stay in the namespace.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_CLONE_NEWNET = 0x40000000
_SO_NETNS_COOKIE = 71
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def run_in(path: Path, function: Callable[[], T]) -> T:
    """Run ``function`` inside the namespace at ``path``; its result or its exception comes back."""
    outcome: list = []

    def work() -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number), str(path))
            finally:
                os.close(descriptor)
            outcome.append((function(), None))
        except BaseException as error:  # handed to the caller below
            outcome.append((None, error))

    thread = threading.Thread(target=work, name=f"in {path.name}")
    thread.start()
    thread.join()
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def cookie(path: Path) -> int:
    """The number by which the socket hooks know the namespace; never reused while the kernel runs."""

    def read() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            raw = probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        return int.from_bytes(raw, "little")

    return run_in(path, read)


def write_sysctls(path: Path, values: dict[str, str]) -> None:
    """Set network settings (``net/...`` paths below /proc/sys) of a namespace."""

    def write() -> None:
        for name, value in values.items():
            file = Path("/proc/sys") / name
            if file.exists():
                file.write_text(value)

    run_in(path, write)
