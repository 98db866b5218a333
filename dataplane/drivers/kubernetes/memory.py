"""Files that exist in memory only, for tools that want a path to something secret.

They are reachable through this process alone, by the same user, and vanish with it however it
ends: nothing secret is left on a disk by a worker that was killed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def memory_file(text: str) -> Iterator[str]:
    """A path that children of this process can read ``text`` from while the context is open."""
    descriptor = os.memfd_create("cytoplane")
    try:
        with os.fdopen(os.dup(descriptor), "w") as handle:
            handle.write(text)
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)
