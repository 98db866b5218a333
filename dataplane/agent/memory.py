"""Memory that was needed once goes back to the node: taking up a whole desired state needs much, keeping it little."""

from __future__ import annotations

import ctypes
import gc

_libc = ctypes.CDLL(None)


def give_back() -> None:
    """Free what nothing refers to, and hand pages that are free to the kernel where the C library can."""
    gc.collect()
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)
