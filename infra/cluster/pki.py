"""Certificates, keys and kubeconfigs of every part, made once for a cluster's life."""

from __future__ import annotations

import contextlib
import shutil
from datetime import timedelta
from pathlib import Path

from infra.cluster.settings import NODES, Cluster
from infra.kubernetes.certificates import Authority, signing_key, write_secret
from infra.kubernetes.kubeconfig import kubeconfig

_LIFETIME = timedelta(days=365)
_ADMINS = ("system:masters",)
#: Part of the control plane → the user that it is to the API server.
_PARTS = {
    "controllers": "system:kube-controller-manager",
    "scheduler": "system:kube-scheduler",
    "proxy": "system:kube-proxy",
}


def ensure(cluster: Cluster) -> None:
    """Make them all, unless they are there: a kill leaves either all or none."""
    if cluster.pki.exists():
        return
    fresh = cluster.home / "pki.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    authority = Authority("development cluster", _LIFETIME)
    (fresh / "authority.pem").write_bytes(authority.pem)
    write_secret(fresh / "authority.key", authority.key)
    signing_key(fresh / "accounts.key")
    control = cluster.control[0].ip
    names = [str(pair[i].ip) for pair in (cluster.link(2), cluster.control) for i in (0, 1)]
    _pair(fresh / "etcd", authority.issue("etcd", address="127.0.0.1"))
    _pair(
        fresh / "server",
        authority.issue(
            "kube-apiserver",
            address=str(control),
            names=(
                "127.0.0.1",
                str(cluster.api_service),
                *names,
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
            ),
        ),
    )
    # What the API server is to etcd, and to the nodes' kubelets.
    _pair(fresh / "client", authority.issue("kube-apiserver-client"))
    _pair(fresh / "admin", authority.issue("admin", _ADMINS))
    for part, user in _PARTS.items():
        _config(fresh / f"{part}.kubeconfig", kubeconfig(cluster.server, authority, user))
    for node in NODES:
        addresses = [str(address.ip) for address in cluster.node(node)]
        user, groups = f"system:node:node{node}", ("system:nodes",)
        _config(fresh / f"node{node}.kubeconfig", kubeconfig(cluster.server, authority, user, groups))
        pair = authority.issue(user, groups, address=addresses[0], names=(*addresses[1:], f"node{node}"))
        _pair(fresh / f"node{node}", pair)
    _config(fresh / "admin.kubeconfig", kubeconfig(cluster.server, authority, "admin", _ADMINS))
    fresh.rename(cluster.pki)


def publish(cluster: Cluster) -> None:
    """Put the administrator's kubeconfig where people look for it."""
    with contextlib.suppress(FileNotFoundError):
        cluster.kubeconfig.unlink()
    _config(cluster.kubeconfig, (cluster.pki / "admin.kubeconfig").read_text())


def _pair(path: Path, pair: tuple[bytes, bytes]) -> None:
    certificate, key = pair
    path.with_suffix(".pem").write_bytes(certificate)
    write_secret(path.with_suffix(".key"), key)


def _config(path: Path, text: str) -> None:
    write_secret(path, text.encode())
