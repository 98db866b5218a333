"""What a deployment does whose plane is offline: fail at once, or wait until it is back, as asked.

Asked by the environment's setting, and by a push for itself (``git push -o wait``, ``-o no-wait``).
"""

from __future__ import annotations

from datetime import datetime

from controlplane.errors import CytoplaneError
from dataplane.planes import presence
from delivery import log
from delivery.models import Deployment

#: Words of a push's option → whether it waits.
OPTIONS = {"wait": True, "no-wait": False}


def option(words: list[str]) -> bool | None:
    """What a push's options ask for; None if nothing. Raises `source-rejected` for others."""
    for word in words:
        if word not in OPTIONS:
            raise CytoplaneError("source-rejected", reason=f"`{word[:40]}` is no option of a push")
    return OPTIONS[words[-1]] if words else None


def waits(deployment: Deployment) -> bool:
    """Whether it waits for an offline plane."""
    asked = deployment.waits
    return deployment.cell.environment.waits if asked is None else asked


def held(deployment: Deployment) -> bool:
    """Whether the deployment has to wait now, and says so once. Raises `plane-offline` if it doesn't want to."""
    plane = deployment.cell.environment.plane
    since = presence.gone_since(plane) if plane else None
    if plane is None or since is None:
        return False
    if not waits(deployment):
        raise CytoplaneError("plane-offline", plane=plane.name, since=moment(since))
    text = f"The data plane {plane.name} is offline since {moment(since)}; this deployment waits for it"
    if not deployment.log.filter(text__contains=text).exists():
        log.say(deployment, text)
    return True


def moment(at: datetime) -> str:
    """A time as people read it in a log."""
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")
