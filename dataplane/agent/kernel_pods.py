"""Pods in the kernel's tables: their interfaces are a CNI's, their addresses the cluster's."""

from __future__ import annotations

import threading

from bpf.tables import Tables
from dataplane.agent import network
from dataplane.agent.connections import Connections
from infra.config import Config


class PodTables:
    """What a node of a cluster asks of the tables besides; under the lock of ``Kernel``, which is one."""

    config: Config
    connections: Connections
    holding: bool
    _lock: threading.RLock
    _tables: Tables
    _known: dict[str, network.Namespace]

    def _changed(self, identities: set[int]) -> None:
        raise NotImplementedError

    def take_pod(self, found: network.Foreign, own: network.Address, translate: bool) -> None:
        """A pod's interface: closed first, then known. Raises what ``network.introduce_foreign`` does."""
        with self._lock:
            network.introduce_foreign(
                self.config, self._tables, found, [own], translate, judged=not self.holding
            )
            self._known[found.name] = found
            self.connections.placed(found.name, found.path, found.ifindex, {own.identity})
        self._changed({own.identity})

    def release_pod(self, name: str) -> None:
        """Forget a pod; what it still sends is dropped."""
        with self._lock:
            known = self._known.pop(name, None)
            if isinstance(known, network.Foreign):
                network.release_foreign(self._tables, known)
        self.connections.removed(name)

    def hold_neighbours(self) -> None:
        """Tell the node again who has its pods' addresses, where a bridge's other ports may lie."""
        with self._lock:
            pods = [k for k in self._known.values() if isinstance(k, network.Foreign) and k.bridge]
            network.hold_neighbours(self.config, pods)

    def forget_interface(self, ifindex: int) -> None:
        """Forget an interface that is gone, which no namespace of this agent has."""
        with self._lock:
            if ifindex in self._tables.endpoints():
                self._tables.remove_endpoint(ifindex)
            network.sweep_neighbours(self.config, self._tables)

    def forget_pods(self, but: set[int]) -> set[int]:
        """Forget all pods' interfaces but these: what is still there passes nothing any more. Their indexes."""
        with self._lock:
            strangers = self._tables.foreign() - but
            for ifindex in strangers:
                self._tables.remove_endpoint(ifindex)
            if strangers:
                network.sweep_neighbours(self.config, self._tables)
        return strangers

    def elsewhere(self, owners: dict[str, int]) -> None:
        """Addresses of pods of other nodes, and whose they are; no others."""
        with self._lock:
            present = {a: owner for a, (owner, ifindex) in self._tables.addresses().items() if not ifindex}
            gone = present.items() - owners.items()
            fresh = owners.items() - present.items()
            for address, _ in gone:
                if address not in owners:
                    self._tables.remove_address(address)
            for address, identity in fresh:
                self._tables.set_address(address, identity, 0)
        self._changed({identity for _, identity in (*gone, *fresh)})

    def underlays(self, names: list[str]) -> None:
        """The interfaces by which other nodes' pods are reached. Raises ``OSError`` or ``attach.NotOurs``."""
        with self._lock:
            network.ensure_underlays(self.config, self._tables, names)
