"""Containers of podman as it keeps them on the node."""

from __future__ import annotations

import json
from pathlib import Path

from dataplane.agent import container
from dataplane.agent.commands import CantEnter
from dataplane.agent.commands.entering import Target
from dataplane.agent.podman import Podman, PodmanError
from infra.config import Config


def find(config: Config, replica: str) -> Target:
    """A replica's container. Raises ``CantEnter``."""
    try:
        found = Podman(config).inspect(container.name_of(config, replica))
        if found is None or not found["State"].get("Running") or not found["State"].get("Pid"):
            raise CantEnter("The replica doesn't run.")
        return Target(
            found["Id"], int(found["State"]["Pid"]), json.loads(Path(found["OCIConfigPath"]).read_text())
        )
    except (PodmanError, OSError, KeyError, ValueError) as error:
        raise CantEnter(f"The node can't look at the replica: {error}"[:300]) from None
