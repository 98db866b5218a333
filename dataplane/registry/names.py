"""What pods call images, and the paths by which a container runtime asks for them."""

from __future__ import annotations

import re
from typing import NamedTuple

#: The self-check of cells' pods. Each node has it from its agent's image: no registry is asked for it, and
#: nobody needs a secret. Nodes keep what they have by its tag, and every replica names it, so the tag changes
#: with the check and not with each version of the platform.
CHECK_REPOSITORY, CHECK_TAG = "cytoplane/check", "2"
DIGEST = r"sha256:[0-9a-f]{64}"
_REFERENCE = re.compile(rf"(t[1-9][0-9]{{0,17}}/p[1-9][0-9]{{0,17}})@({DIGEST})")
_PATH = re.compile(
    rf"/v2/(?P<repository>[a-z0-9]+/[a-z0-9]+)/(?P<kind>manifests|blobs)/(?P<reference>{DIGEST}|[a-zA-Z0-9_.-]+)"
)


class Asked(NamedTuple):
    """What a request is about. ``kind``: ``manifests`` or ``blobs``; ``reference``: a digest, or a tag."""

    repository: str
    kind: str
    reference: str


def asked(path: str) -> Asked | None:
    """None for everything that isn't a piece of an image."""
    match = _PATH.fullmatch(path)
    return None if match is None else Asked(match["repository"], match["kind"], match["reference"])


def reference(text: str) -> tuple[str, str] | None:
    """Repository and digest of an image as desired state names it."""
    match = _REFERENCE.fullmatch(text)
    return None if match is None else (match[1], match[2])


def on_node(port: int, image: str) -> str:
    """What a pod calls an image of desired state."""
    return f"127.0.0.1:{port}/{image}"


def check_image(port: int) -> str:
    """What a pod calls the self-check."""
    return on_node(port, f"{CHECK_REPOSITORY}:{CHECK_TAG}")
