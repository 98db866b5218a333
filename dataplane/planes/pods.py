"""Where a cell is on its cluster, and what its images are pulled with.

The token of a cell is made from the master key and the place's name, so nothing has to be kept and no
two places have the same. Desired state holds its digest, the cluster holds the token: who reads one can
pull nothing with it.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from tenants import keys


def token(location: str) -> str:
    """What the images of the cell at a location are pulled with."""
    # The oldest key: a rotation changes it only when that one is taken out of the file.
    key = keys.masters()[-1]
    return hmac.new(key, f"pull:{location}".encode(), hashlib.sha256).hexdigest()


def of(location: str) -> dict[str, Any]:
    """The ``pod`` of an entry of desired state: its namespace, and the digest of the cell's token."""
    return {"namespace": location, "pull": hashlib.sha256(token(location).encode()).hexdigest()}
