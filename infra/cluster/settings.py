"""One place for every name, path and address of a development cluster.

A cluster is a state directory (``CYTOPLANE_CLUSTER_HOME``) and a number (``CYTOPLANE_CLUSTER_NET``).
Several may live on one machine if both differ; no port is taken on the machine itself.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path

from infra import config as installation

NODES = (1, 2)
CNIS = ("ptp", "bridge")
NETNS = Path("/run/netns")


@dataclass(frozen=True)
class Cluster:
    """A cluster's settings. IPv4 addresses are in 10.(112 + number).0.0/16, IPv6 in fd63:7970:c00N::/48."""

    home: Path
    #: 0..15; selects address ranges and the names of namespaces, links and control groups.
    number: int = 0
    #: What connects pods of a node: ``ptp`` (a routed veth each) or ``bridge``.
    cni: str = "ptp"
    cache: Path = Path("/var/cache/cytoplane")

    @property
    def name(self) -> str:
        """Of the link on the machine's side, and the prefix of the namespaces, e.g. ``cyk0``."""
        return f"cyk{self.number}"

    @property
    def group(self) -> str:
        """Control group of everything that runs, in every hierarchy."""
        return f"cytoplane-cluster-{self.number}"

    @property
    def run(self) -> Path:
        """The supervisor's socket, and which process is which node."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def pki(self) -> Path:
        """Certificates, keys and kubeconfigs of every part."""
        return self.home / "pki"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.home / "kubeconfig"

    @property
    def mark(self) -> Path:
        """What tells a cluster's state directory from any other folder, and remembers its settings."""
        return self.home / "cluster.json"

    def node_home(self, node: int) -> Path:
        """What a node keeps: its /var, its /etc, the files of its parts."""
        return self.home / f"node{node}"

    def netns(self, place: str) -> Path:
        """Network namespace of ``control``, ``node1``, ``node2``."""
        return NETNS / f"{self.name}-{place}"

    # Addresses.
    @cached_property
    def _v4(self) -> int:
        return int(IPv4Address(f"10.{112 + self.number}.0.0"))

    @cached_property
    def _v6(self) -> int:
        return int(IPv6Address(f"fd63:7970:c{self.number:03x}::"))

    def _v6_subnet(self, subnet: int) -> int:
        return self._v6 + (subnet << 64)

    @property
    def everything(self) -> IPv4Network:
        """All IPv4 addresses of this number."""
        return IPv4Network((self._v4, 16))

    def link(self, side: int) -> tuple[IPv4Interface, IPv6Interface]:
        """Of the veth between the machine (1) and the control plane (2)."""
        return IPv4Interface((self._v4 + side, 30)), IPv6Interface((self._v6 + side, 64))

    def lan(self, host: int) -> tuple[IPv4Interface, IPv6Interface]:
        """On the network of nodes and control plane."""
        return (
            IPv4Interface((self._v4 + 256 + host, 24)),
            IPv6Interface((self._v6_subnet(1) + host, 64)),
        )

    @property
    def control(self) -> tuple[IPv4Interface, IPv6Interface]:
        """The control plane on the nodes' network."""
        return self.lan(1)

    def node(self, node: int) -> tuple[IPv4Interface, IPv6Interface]:
        return self.lan(10 + node)

    def pods(self, node: int) -> tuple[IPv4Network, IPv6Network]:
        """Addresses of a node's pods."""
        return (
            IPv4Network((self._v4 + ((128 + 2 * (node - 1)) << 8), 23)),
            IPv6Network((self._v6_subnet(0x10 + node), 64)),
        )

    @property
    def all_pods(self) -> tuple[IPv4Network, IPv6Network]:
        return IPv4Network((self._v4 + (128 << 8), 17)), IPv6Network((self._v6_subnet(0x10), 60))

    @property
    def services(self) -> tuple[IPv4Network, IPv6Network]:
        """Service addresses; only this cluster's own namespaces know them, so all clusters share the first."""
        return IPv4Network("10.96.0.0/16"), IPv6Network((self._v6_subnet(0x60), 112))

    @property
    def api_service(self) -> IPv4Address:
        """What pods know as ``KUBERNETES_SERVICE_HOST``."""
        return self.services[0][1]

    @property
    def server(self) -> str:
        """The API server's address: the same for the machine, nodes and pods."""
        return f"https://{self.link(2)[0].ip}:443"


def load() -> Cluster:
    """The environment's settings, then those that the state directory remembers. Raises ``ValueError``."""
    home = Path(os.environ.get("CYTOPLANE_CLUSTER_HOME", "/var/lib/cytoplane-cluster")).absolute()
    kept: dict = {}
    if (home / "cluster.json").exists():
        kept = json.loads((home / "cluster.json").read_text())
    number = int(os.environ.get("CYTOPLANE_CLUSTER_NET", kept.get("number", 0)))
    cni = os.environ.get("CYTOPLANE_CLUSTER_CNI", kept.get("cni", "ptp"))
    return checked(Cluster(home, number, cni, installation.load().cache))


def checked(cluster: Cluster) -> Cluster:
    """The same, if it can be. Raises ``ValueError``."""
    if not 0 <= cluster.number <= 15:
        raise ValueError(f"CYTOPLANE_CLUSTER_NET must be 0 to 15, not {cluster.number}")
    if cluster.cni not in CNIS:
        raise ValueError(f"CYTOPLANE_CLUSTER_CNI must be one of {', '.join(CNIS)}, not {cluster.cni}")
    if len(str(cluster.home)) > 70 or any(c in str(cluster.home) for c in ' "%\\\n'):
        raise ValueError(f"{cluster.home} is too long or has characters that a settings file can't hold")
    return cluster


def keep(cluster: Cluster) -> None:
    """Remember the settings, so that later commands need the state directory only."""
    cluster.home.mkdir(parents=True, exist_ok=True, mode=0o755)
    fresh = cluster.home / "cluster.json.new"
    fresh.write_text(json.dumps({"number": cluster.number, "cni": cluster.cni}) + "\n")
    fresh.replace(cluster.mark)
