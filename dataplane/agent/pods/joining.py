"""How a cluster's node becomes known: its token lies ready in the cluster, laid there by the plane's controller."""

from __future__ import annotations

import base64
import logging
from typing import Any

from dataplane.agent.pods.cluster import NAMESPACE, Cluster, ClusterError
from dataplane.client import ControlPlane, NotEnrolled, write_private
from infra.config import Config

log = logging.getLogger("cytoplane.agent")


def control_plane(config: Config) -> ControlPlane:
    """The node's way to its control plane, on either engine."""
    if config.engine == "kubernetes":
        return FromCluster(config)
    return ControlPlane(config.agent_dir, config.control_plane)


class FromCluster(ControlPlane):
    """Collects its token as long as it has neither one nor a certificate."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.agent_dir, config.control_plane)
        self._cluster, self._secret = Cluster(config), f"enrol-{config.node}"

    def enrol(self, name: str, facts: dict[str, Any]) -> None:
        """As a node does; the secret goes once it is used. Raises what enrolment raises."""
        if self.enrolled and not (self.folder / "enrolment").exists():
            return
        if not (self.folder / "enrolment").exists():
            self._collect()
        super().enrol(name, facts)
        try:
            self._cluster.forget_secret(NAMESPACE, self._secret)
        except ClusterError as error:
            # The controller takes it away when it hears of the node.
            log.info("the used token stays: %s", error)

    def _collect(self) -> None:
        try:
            found = self._cluster.secret(NAMESPACE, self._secret)
            token = base64.b64decode(found["data"]["token"]) if found else b""
        except (ClusterError, ValueError, LookupError, TypeError) as error:
            raise NotEnrolled(f"the node's token can't be read: {error}") from None
        if not token:
            raise NotEnrolled(
                f"no token for this node yet: the plane's controller lays it into {self._secret}"
            )
        write_private(self.folder / "enrolment", token)
