"""The supervisor's settings: every part of a cluster, where it runs and with which options."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from infra.cluster.files import ETC, SOCKET
from infra.cluster.settings import NODES, Cluster
from infra.kubernetes import binaries

CONTROL = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
_STORE = "https://127.0.0.1:2379"


@dataclass
class Part:
    """A supervised process and the place (``control``, ``node1``, …) that it runs in."""

    name: str
    place: str
    command: list[str]


def _options(values: dict[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items()]


def _comma(values: Iterable[object]) -> str:
    return ",".join(map(str, values))


def etcd(cluster: Cluster) -> list[str]:
    pki = cluster.pki
    values = {
        "name": "development",
        "data-dir": cluster.home / "etcd",
        "listen-client-urls": _STORE,
        "advertise-client-urls": _STORE,
        "listen-peer-urls": "http://127.0.0.1:2380",
        "initial-advertise-peer-urls": "http://127.0.0.1:2380",
        "initial-cluster": "development=http://127.0.0.1:2380",
        "client-cert-auth": "true",
        "cert-file": pki / "etcd.pem",
        "key-file": pki / "etcd.key",
        "trusted-ca-file": pki / "authority.pem",
        # A development cluster is made again, not restored: it needn't wait for the disk at each write.
        "unsafe-no-fsync": "true",
        "logger": "zap",
        "log-level": "warn",
    }
    return ["etcd", *_options(values)]


def api_server(cluster: Cluster) -> list[str]:
    pki = cluster.pki
    values = {
        "bind-address": "0.0.0.0",
        "secure-port": 443,
        "advertise-address": cluster.control[0].ip,
        "etcd-servers": _STORE,
        "etcd-cafile": pki / "authority.pem",
        "etcd-certfile": pki / "client.pem",
        "etcd-keyfile": pki / "client.key",
        "tls-cert-file": pki / "server.pem",
        "tls-private-key-file": pki / "server.key",
        "client-ca-file": pki / "authority.pem",
        "kubelet-certificate-authority": pki / "authority.pem",
        "kubelet-client-certificate": pki / "client.pem",
        "kubelet-client-key": pki / "client.key",
        "kubelet-preferred-address-types": "InternalIP",
        "authorization-mode": "Node,RBAC",
        "anonymous-auth": "false",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "service-cluster-ip-range": _comma(cluster.services),
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": pki / "accounts.key",
        "service-account-signing-key-file": pki / "accounts.key",
        "feature-gates": "IPv6DualStack=true",
    }
    return [str(binaries.cache() / "kube-apiserver"), *_options(values)]


def controllers(cluster: Cluster) -> list[str]:
    pki = cluster.pki
    config = pki / "controllers.kubeconfig"
    values = {
        "kubeconfig": config,
        "authentication-kubeconfig": config,
        "authorization-kubeconfig": config,
        "bind-address": "127.0.0.1",
        "port": 0,
        "leader-elect": "false",
        "use-service-account-credentials": "true",
        "service-account-private-key-file": pki / "accounts.key",
        "root-ca-file": pki / "authority.pem",
        "cluster-signing-cert-file": pki / "authority.pem",
        "cluster-signing-key-file": pki / "authority.key",
        # Nodes have their ranges from the start.
        "allocate-node-cidrs": "false",
        "cluster-cidr": _comma(cluster.all_pods),
        "service-cluster-ip-range": _comma(cluster.services),
        "resource-quota-sync-period": "5s",
        # The usual 20 are for all controllers together: namespaces that come and go use them up.
        "kube-api-qps": 200,
        "kube-api-burst": 400,
        "feature-gates": "IPv6DualStack=true",
    }
    return [str(binaries.cache() / "kube-controller-manager"), *_options(values)]


def scheduler(cluster: Cluster) -> list[str]:
    config = cluster.pki / "scheduler.kubeconfig"
    values = {
        "kubeconfig": config,
        "authentication-kubeconfig": config,
        "authorization-kubeconfig": config,
        "bind-address": "127.0.0.1",
        "port": 0,
        "leader-elect": "false",
        "feature-gates": "IPv6DualStack=true",
    }
    return [str(binaries.cache() / "kube-scheduler"), *_options(values)]


def kubelet(cluster: Cluster, node: int) -> list[str]:
    values = {
        "config": ETC / "kubelet.yaml",
        "kubeconfig": ETC / "kubelet.kubeconfig",
        "container-runtime": "remote",
        "container-runtime-endpoint": f"unix://{SOCKET}",
        "hostname-override": f"node{node}",
        "node-ip": _comma(address.ip for address in cluster.node(node)),
    }
    return [str(binaries.cache() / "kubelet"), *_options(values)]


def kube_proxy() -> list[str]:
    return [str(binaries.cache() / "kube-proxy"), f"--config={ETC / 'proxy.yaml'}"]


def parts(cluster: Cluster) -> list[Part]:
    """All parts; kube-proxy too, which runs only if it is asked for."""
    found = [
        Part("etcd", "control", etcd(cluster)),
        Part("kube-apiserver", "control", api_server(cluster)),
        Part("kube-controller-manager", "control", controllers(cluster)),
        Part("kube-scheduler", "control", scheduler(cluster)),
    ]
    for node in NODES:
        place = f"node{node}"
        found += [
            Part(place, "", [sys.executable, "-m", "infra.cluster.node", str(node)]),
            Part(f"{place}-containerd", place, ["containerd"]),
            Part(f"{place}-kubelet", place, kubelet(cluster, node)),
            Part(f"{place}-kube-proxy", place, kube_proxy()),
        ]
    return found


def write(cluster: Cluster) -> Path:
    """supervisord's settings file."""
    # Everything it starts would otherwise know the way of whoever called: only this is needed.
    repository = Path(__file__).resolve().parents[2]
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": f"{repository}:{repository}/platform",
        "PYTHONDONTWRITEBYTECODE": "1",
        # kubelet asks each cloud for credentials of its registry first, and waits for answers.
        "AWS_EC2_METADATA_DISABLED": "true",
        "CYTOPLANE_CLUSTER_HOME": str(cluster.home),
        "CYTOPLANE_CACHE": str(cluster.cache),
    }
    lines = [
        "[unix_http_server]",
        f"file={cluster.run}/supervisor.sock",
        "chmod=0700",
        "[supervisord]",
        f"logfile={cluster.logs}/supervisor.log",
        "logfile_maxbytes=5MB",
        "logfile_backups=1",
        f"pidfile={cluster.run}/supervisor.pid",
        "directory=/",
        "environment=" + ",".join(f'{key}="{value}"' for key, value in environment.items()),
        "minfds=1024",
        "minprocs=200",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        "[supervisorctl]",
        f"serverurl=unix://{cluster.run}/supervisor.sock",
    ]
    for part in parts(cluster):
        # The supervisor is in the control plane's place already.
        enter = [sys.executable, "-m", "infra.cluster.enter", part.place, "--"]
        command = part.command if part.place in ("", "control") else [*enter, *part.command]
        lines += [
            f"[program:{part.name}]",
            f"command={' '.join(command)}",
            "autostart=false",
            "autorestart=true",
            "startsecs=1",
            "startretries=1000000",
            "stopwaitsecs=5",
            "redirect_stderr=true",
            f"stdout_logfile={cluster.logs}/{part.name}.log",
            "stdout_logfile_maxbytes=10MB",
            "stdout_logfile_backups=1",
        ]
    path = cluster.home / "supervisor.conf"
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o600)
    return path
