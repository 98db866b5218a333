"""``python -m dataplane.node.keeper``: keeps the plugin and its entry on a node.

It runs beside the agent and has no right but to write two folders of the node. Each second it looks whether
the chain of CNI plugins still ends with the platform's; other software rewrites that file too. While it
isn't whole the node is tainted, so that no pod is put there that would wait or, worse, wouldn't have to.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

from dataplane.agent.pods import leaving
from dataplane.agent.pods.cluster import NAMESPACE, Cluster, ClusterError
from dataplane.cni import build, chain
from dataplane.node import requests
from infra import config as installation
from infra.config import Config

log = logging.getLogger("cytoplane.keeper")
LOOK_SECONDS = 1.0
#: How often the cluster is asked what it thinks of this node.
CLUSTER_SECONDS = 15.0
#: So long the agent may take to leave the node before it is given up; the hook waits for the keeper.
AGENT_SECONDS = 60.0
#: Of the file that says that all is well; a probe looks at its age.
READY = "keeper.ready"


class Keeper:
    """``binaries`` and ``configurations`` are the node's folders of CNI plugins and of their settings; ``pod``
    is what it runs in, if it is one."""

    def __init__(
        self,
        config: Config,
        plugin: Path,
        binaries: Path,
        configurations: Path,
        cluster: Cluster | None = None,
        pod: str = "",
    ) -> None:
        self._config, self._plugin = config, plugin
        self._binaries, self._configurations = binaries, configurations
        self._cluster, self._pod = cluster or Cluster(config), pod
        self._socket = config.run / "cni.sock"
        #: Whether the node is known to be tainted; None: not known.
        self._tainted: bool | None = None
        self._asked = self._leaving_asked = float("-inf")
        self._leaving = False
        #: When the agent was asked, on the monotonic clock; 0: it wasn't.
        self._left_since = 0.0

    @property
    def ready(self) -> Path:
        return self._config.run / READY

    def look(self) -> bool:
        """Put back what is missing; whether the chain is whole now."""
        try:
            self._put_plugin()
            changed = chain.install(self._configurations, self._socket)
        except (chain.ChainError, OSError) as error:
            log.warning("%s", error)
            return False
        if changed:
            log.info("the plugin's entry is put into %s", self._configurations)
        return True

    def _put_plugin(self) -> None:
        target = self._binaries / build.NAME
        try:
            same = target.stat().st_size == self._plugin.stat().st_size and os.access(target, os.X_OK)
        except FileNotFoundError:
            same = False
        if not same or target.read_bytes() != self._plugin.read_bytes():
            build.put(self._plugin, self._binaries)
            log.info("the plugin is put into %s", self._binaries)

    def taint(self, wanted: bool) -> None:
        """Have the node tainted or not; asks the cluster when that changes, and now and then."""
        now = time.monotonic()
        if wanted == self._tainted and now - self._asked < CLUSTER_SECONDS:
            return
        self._asked = now
        try:
            requests.taint(self._cluster, self._config.node, wanted)
            self._tainted = wanted
        except ClusterError as error:
            self._tainted = None
            log.warning("the node's taint can't be changed: %s", error)

    def leaving(self) -> bool:
        """Whether the chart is being taken away: then the entry goes too, and isn't put back."""
        now = time.monotonic()
        if not self._leaving and now - self._leaving_asked >= LOOK_SECONDS * 3:
            self._leaving_asked = now
            # What isn't known changes nothing.
            with contextlib.suppress(ClusterError):
                self._leaving = leaving.announced(self._cluster, self._pod)
        return self._leaving

    def leave(self) -> None:
        """Take out what was put in, then ask the agent for the same; the hook waits for both. Pods of cells that
        are still there keep what they have."""
        chain.remove(self._configurations)
        (self._binaries / build.NAME).unlink(missing_ok=True)
        self.taint(False)
        if not self._left_since:
            self._left_since = time.monotonic()
            leaving.asked_file(self._config).touch()
        if leaving.left_file(self._config).exists():
            self.ready.unlink(missing_ok=True)
        elif time.monotonic() - self._left_since > AGENT_SECONDS:
            log.warning("the agent doesn't say that it has left this node")
            self.ready.unlink(missing_ok=True)

    def stay(self) -> None:
        """What was said when an earlier installation went isn't about this one."""
        for file in (leaving.asked_file(self._config), leaving.left_file(self._config)):
            file.unlink(missing_ok=True)

    def round(self) -> None:
        if self.leaving():
            self.leave()
            return
        self.stay()
        whole = self.look()
        self.taint(not whole)
        if whole:
            self.ready.touch()
        else:
            self.ready.unlink(missing_ok=True)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # As the first process of a container it would otherwise be asked in vain.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    config, environment = installation.load(), os.environ
    folders: Any = (environment.get("CNI_BIN", "/opt/cni/bin"), environment.get("CNI_CONF", "/etc/cni/net.d"))
    plugin, pod = config.cache / build.NAME, environment.get("POD_NAME", "")
    keeper = Keeper(config, plugin, Path(folders[0]), Path(folders[1]), pod=pod)
    log.info("keeping the chain in %s for namespace %s", folders[1], NAMESPACE)
    while True:
        try:
            keeper.round()
        except OSError as error:
            log.warning("%s", error)
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main()
