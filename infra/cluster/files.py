"""Settings files of what runs on a node: containerd, the CNI chain, kubelet, kube-proxy.

They are written below the node's home and copied into its /etc when the node is made.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from infra.cluster.images import PAUSE
from infra.cluster.settings import NODES, Cluster

#: Where a node finds them.
ETC = Path("/etc/kubernetes")
SOCKET = "/run/containerd/containerd.sock"
#: Pods on one node; its range has twice as many addresses.
MOST_PODS = 250
_CONTAINERD = f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
# Without the right to raise it containers couldn't start.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/etc/containerd/certs.d"
"""


def write(cluster: Cluster) -> None:
    """Write those of every node anew."""
    for node in NODES:
        etc = cluster.node_home(node) / "etc"
        shutil.rmtree(etc, ignore_errors=True)
        kubernetes = etc / "kubernetes"
        kubernetes.mkdir(parents=True)
        for name in ("authority.pem", f"node{node}.pem", f"node{node}.key", f"node{node}.kubeconfig"):
            shutil.copy2(cluster.pki / name, kubernetes / name.replace(f"node{node}", "kubelet"))
        shutil.copy2(cluster.pki / "proxy.kubeconfig", kubernetes / "proxy.kubeconfig")
        _file(kubernetes / "kubelet.yaml", yaml.safe_dump(kubelet(cluster, node)))
        _file(kubernetes / "proxy.yaml", yaml.safe_dump(proxy(cluster, node)))
        _file(etc / "containerd/config.toml", _CONTAINERD)
        _file(etc / "containerd/certs.d/README", "A folder for each registry: hosts.toml.\n")
        _file(etc / "cni/net.d/10-cluster.conflist", json.dumps(cni(cluster, node), indent=1))
        _file(etc / "hostname", f"node{node}\n")
        _file(etc / "machine-id", hashlib.sha256(f"{cluster.home} {node}".encode()).hexdigest()[:32] + "\n")
        _file(etc / "hosts", _hosts(cluster, node))
        # Names of the world mean nothing here.
        _file(etc / "resolv.conf", "")


def _file(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _hosts(cluster: Cluster, node: int) -> str:
    v4, v6 = cluster.node(node)
    return f"127.0.0.1 localhost\n::1 localhost\n{v4.ip} node{node}\n{v6.ip} node{node}\n"


def kubelet(cluster: Cluster, node: int) -> dict[str, Any]:
    """Certificates from the cluster's own authority for both of its sides; nothing answers strangers."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": str(cluster.node(node)[0].ip),
        "healthzBindAddress": "127.0.0.1",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(ETC / "authority.pem")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(ETC / "kubelet.pem"),
        "tlsPrivateKeyFile": str(ETC / "kubelet.key"),
        "cgroupDriver": "cgroupfs",
        # The node's own group: it sees no other.
        "cgroupRoot": "/",
        "failSwapOn": False,
        "maxPods": MOST_PODS,
        "resolvConf": "/etc/resolv.conf",
        # Nobody answers there: what needs names brings a resolver. Without it each pod gets a warning.
        "clusterDNS": [str(cluster.services[0][10])],
        "clusterDomain": "cluster.local",
        # At once when it is ready, not up to 10 s later.
        "nodeStatusUpdateFrequency": "2s",
        # Of two nodes with a few pods: the usual five requests a second make pods wait to be seen as ready.
        "kubeAPIQPS": 50,
        "kubeAPIBurst": 100,
        "serializeImagePulls": False,
        "featureGates": {"IPv6DualStack": True},
        # The disk is the machine's: a full one is no reason to delete images that nobody can fetch again.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
    }


def proxy(cluster: Cluster, node: int) -> dict[str, Any]:
    """kube-proxy in iptables mode, leaving alone what belongs to the whole machine."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": f"node{node}",
        "clusterCIDR": ",".join(map(str, cluster.all_pods)),
        "clientConnection": {"kubeconfig": str(ETC / "proxy.kubeconfig")},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "featureGates": {"IPv6DualStack": True},
    }


def cni(cluster: Cluster, node: int) -> dict[str, Any]:
    """The chain of plugins. Its addresses are in memory: a node that boots gives them out anew."""
    ipam = {
        "type": "host-local",
        "dataDir": "/run/cni/ipam",
        "ranges": [[{"subnet": str(network)}] for network in cluster.pods(node)],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }
    first: dict[str, Any] = {"type": cluster.cni, "ipMasq": False, "mtu": 1500, "ipam": ipam}
    if cluster.cni == "bridge":
        first |= {"bridge": "cni0", "isGateway": True, "hairpinMode": True}
    return {
        "cniVersion": "0.4.0",
        "name": "cluster",
        "plugins": [first, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }
