"""The world outside two nodes: one namespace with a link to each, with documentation addresses."""

from __future__ import annotations

import subprocess
from pathlib import Path

from dataplane.agent.namespaces import run_in
from infra.cluster.settings import NODES, Cluster
from tests.conformance.outside import serve_all
from tests.conformance.world import FLOORED, NODE, OUTSIDE
from tests.links import await_up

#: On a node. Not of the form of the platform's own interfaces: it is an uplink to them.
_LINK = "uplink"
#: Of both nodes' links: IPv6 takes a gateway by an interface only if no other way leads to it.
_NEAR, _FAR = "fe80::1", "fe80::2"


class OutsideNodes:
    """``sockets`` are its servers', ``node_sockets`` those of the nodes: for the engine to answer on."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.name = f"{cluster.name}-outside"
        self.path = Path("/run/netns") / self.name
        self.close()
        _ip("", f"netns add {self.name}")
        lines = ["link set lo up"]
        for address in (*OUTSIDE, *FLOORED):
            lines.append(f"addr add {address}/{128 if ':' in address else 32} dev lo")
        _ip(self.name, *lines)
        for node in NODES:
            self._connect(node)
        # One for each address: an answer to a datagram comes from where it went.
        everything = [*OUTSIDE, *FLOORED]
        self.sockets = run_in(self.path, lambda: serve_all(everything))
        self.node_sockets = [
            opened
            for node in NODES
            for opened in run_in(cluster.netns(f"node{node}"), lambda: serve_all(list(NODE)))
        ]

    def _connect(self, node: int) -> None:
        place, link = self._cluster.netns(f"node{node}").name, f"node{node}"
        v4, v6 = NODE
        _ip(place, f"link add {_LINK} type veth peer name {link} netns {self.name}")
        _ip(
            place,
            f"addr add {v4}/32 dev {_LINK}",
            f"addr add {v6}/128 dev {_LINK} nodad",
            f"addr add {_NEAR}/64 dev {_LINK} nodad",
            f"link set {_LINK} up",
        )
        lines = [f"addr add {_FAR}/64 dev {link} nodad", f"link set {link} up"]
        if node == NODES[0]:
            # Both nodes have one address towards the outside; strangers reach the first.
            lines += [f"route add {v4} dev {link}", f"route add {v6} dev {link}"]
        lines += [f"route add {network} via {v4} dev {link} onlink" for network in self._pods(node, 4)]
        lines += [f"route add {network} via {_NEAR} dev {link}" for network in self._pods(node, 6)]
        _ip(self.name, *lines)
        await_up(_LINK, place)
        await_up(link, self.name)
        # A neighbour of IPv6 answers for what its interface has, and the addresses are on another one.
        far = (f"{address} via {_FAR}" if ":" in address else address for address in (*OUTSIDE, *FLOORED))
        _ip(place, *(f"route add {way} dev {_LINK}" for way in far))

    def _pods(self, node: int, version: int) -> list[str]:
        return [str(network) for network in self._cluster.pods(node) if network.version == version]

    def close(self) -> None:
        """Also what a run that was killed left behind."""
        for opened in (*getattr(self, "sockets", ()), *getattr(self, "node_sockets", ())):
            opened.close()
        for node in NODES:
            place = self._cluster.netns(f"node{node}").name
            subprocess.run(["ip", "-n", place, "link", "del", _LINK], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)


def _ip(namespace: str, *lines: str) -> None:
    command = ["ip", *(["-n", namespace] if namespace else []), "-batch", "-"]
    subprocess.run(command, input="\n".join(lines) + "\n", text=True, check=True, capture_output=True)
