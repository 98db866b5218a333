"""Memory that was needed once goes back to the node: taking up a whole desired state needs much, keeping it little."""

from __future__ import annotations

import ctypes
import gc

_libc = ctypes.CDLL(None)
#: Young objects after which Python looks for cycles among them. Its default, 700, has a change of a large
#: plane pay for looks at everything that is kept, tens of milliseconds each.
_YOUNG = 5_000


def give_back() -> None:
    """Free what nothing refers to, and hand pages that are free to the kernel where the C library can.

    What is left stays for long: the collector doesn't look at it again until the next time.
    """
    gc.set_threshold(_YOUNG, 20, 20)
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)
