"""``python -m infra.cluster.control up|down|status``: what a developer runs (``make cluster``)."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from infra import supervisor
from infra.cluster import files, groups, images, network, parts, pki, proxy
from infra.cluster.client import Client
from infra.cluster.settings import NODES, Cluster, keep, load
from infra.kubernetes import binaries

#: Everything that build.sh has to bring.
BINARIES = (*parts.CONTROL[1:], "kubelet", "kube-proxy", "pause", "busybox")
TOOLS = ("etcd", "containerd", "ctr", "runc", "iptables", "ip")
_SECONDS = 120.0
Say = Callable[[str], None]


class Failed(RuntimeError):
    """The cluster can't be had; the message says why."""


def missing() -> list[str]:
    """What of the binaries and Debian's programs isn't there yet."""
    absent = [name for name in BINARIES if not binaries.built(name)]
    absent += [name for name in TOOLS if shutil.which(name) is None]
    return absent + ([] if Path("/usr/lib/cni/ptp").exists() else ["containernetworking-plugins"])


def _progress() -> Say:
    begun = time.monotonic()
    return lambda text: print(
        f"-----> {text} ({time.monotonic() - begun:.1f} s)", file=sys.stderr, flush=True
    )


@contextlib.contextmanager
def _alone(cluster: Cluster) -> Iterator[None]:
    """One command at a time for a number; the file is in the cache, since the state directory goes."""
    cluster.cache.mkdir(parents=True, exist_ok=True)
    with (cluster.cache / f"{cluster.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def up(cluster: Cluster, say: Say, *, kube_proxy: bool = False) -> None:
    """Start what doesn't run and wait until both nodes are ready. Raises ``Failed`` with a reason."""
    if os.geteuid() != 0:
        raise Failed("A cluster needs root: it makes namespaces and control groups. Run it with sudo.")
    if absent := missing():
        raise Failed(f"Not built or installed: {', '.join(absent)}. Run infra/kubernetes/build.sh cluster.")
    with _alone(cluster):
        network.claim(cluster)
        network.check_free(cluster)
        say("Preparing certificates, namespaces and control groups")
        _prepare(cluster)
        if not supervisor.states(cluster):
            _start_supervisor(cluster)
        else:
            supervisor.reload(cluster)
        nodes = [f"node{node}" for node in NODES]
        say("Starting the control plane and the nodes")
        supervisor.start(cluster, ["etcd", *nodes, *(f"{node}-containerd" for node in nodes)])
        # A kubelet looks for Docker for 5 s before it does anything else: it needn't wait for that too.
        supervisor.start(cluster, ["kube-apiserver", *(f"{node}-kubelet" for node in nodes)])
        _images(cluster)
        with Client(cluster) as client:
            _wait(client.ready, "the API server", cluster.logs / "kube-apiserver.log")
            say("The API server answers")
            _objects(cluster, client)
            supervisor.start(cluster, parts.CONTROL[2:])
            proxy.switch(cluster, kube_proxy)
            _wait(lambda: not unready(client), "a node", cluster.logs / "node1-kubelet.log")
            _wait(lambda: _accounts(client), "service accounts", cluster.logs / "kube-controller-manager.log")
        pki.publish(cluster)
        say("Both nodes are ready")


def _prepare(cluster: Cluster) -> None:
    keep(cluster)
    for folder in (cluster.run, cluster.logs, cluster.home / "etcd"):
        folder.mkdir(exist_ok=True, mode=0o700)
    pki.ensure(cluster)
    if not supervisor.states(cluster):
        # A supervisor that was killed leaves its parts behind.
        groups.kill(cluster)
        files.write(cluster)
    groups.ensure(cluster)
    network.ensure(cluster)
    parts.write(cluster)


def _start_supervisor(cluster: Cluster) -> None:
    program = Path(sys.executable).with_name("supervisord")
    command = [sys.executable, "-m", "infra.cluster.enter", "control", "--", str(program)]
    command += ["-c", str(cluster.home / "supervisor.conf")]
    environment = images.cluster_environment(cluster)
    with (cluster.logs / "start.log").open("wb") as log:
        subprocess.run(
            command, check=True, cwd="/", start_new_session=True, env=environment, stdout=log, stderr=log
        )
    _wait(lambda: bool(supervisor.states(cluster)), "the supervisor", cluster.logs / "start.log")


def _wait(ready: Callable[[], bool], what: str, log: Path) -> None:
    end = time.monotonic() + _SECONDS
    while not ready():
        if time.monotonic() > end:
            said = log.read_text(errors="replace")[-1500:] if log.exists() else ""
            raise Failed(f"{what} isn't there after {_SECONDS:.0f} s. The end of {log}:\n{said}")
        time.sleep(0.1)


def _images(cluster: Cluster) -> None:
    """The two small images that every cluster has."""
    made = {images.PAUSE: images.pause, images.BUSYBOX: images.busybox}

    def names(node: int) -> set[str] | None:
        try:
            return images.present(cluster, node)
        except subprocess.CalledProcessError:
            return None

    for node in NODES:
        _wait(
            lambda node=node: names(node) is not None,  # type: ignore[misc]
            f"containerd of node{node}",
            cluster.logs / f"node{node}-containerd.log",
        )
    for name, make in made.items():
        if lacking := [node for node in NODES if name not in images.present(cluster, node)]:
            images.load(cluster, make(), nodes=lacking)


def _objects(cluster: Cluster, client: Client) -> None:
    """Nodes with their ranges, and the API server's right to ask kubelets."""
    for node in NODES:
        networks = [str(network) for network in cluster.pods(node)]
        labels, ranges = (
            {"kubernetes.io/hostname": f"node{node}"},
            {"podCIDR": networks[0], "podCIDRs": networks},
        )
        client.create(
            "/api/v1/nodes",
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": f"node{node}", "labels": labels},
                "spec": ranges,
                # Old kubelets fall over a node that exists and has nothing yet.
                "status": {"capacity": {"pods": "0"}, "allocatable": {"pods": "0"}},
            },
        )
        # The kubelet was first, or somebody deleted the node and it came back without.
        client.change(f"/api/v1/nodes/node{node}", {"spec": ranges})
    client.create(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "kube-apiserver-asks-kubelets"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "system:kubelet-api-admin",
            },
            "subjects": [
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "kube-apiserver-client"}
            ],
        },
    )


def unready(client: Client) -> list[str]:
    """Nodes that aren't ready, with the reason that they give."""
    found = []
    states = {item["metadata"]["name"]: item for item in client.document("/api/v1/nodes")["items"]}
    for node in NODES:
        item = states.get(f"node{node}", {})
        conditions = item.get("status", {}).get("conditions", [])
        ready: dict = next((c for c in conditions if c["type"] == "Ready"), {})
        tainted = any(
            t["key"].startswith("node.kubernetes.io/") for t in item.get("spec", {}).get("taints", [])
        )
        if ready.get("status") != "True" or tainted:
            found.append(f"node{node}: {ready.get('message', 'it has never reported')}")
    return found


def _accounts(client: Client) -> bool:
    """Whether pods can be made: each needs its namespace's default account."""
    try:
        return bool(client.document("/api/v1/namespaces/default/serviceaccounts/default").get("secrets"))
    except httpx.HTTPError:
        return False


def down(cluster: Cluster, say: Say) -> None:
    """End and remove everything of the cluster; works on leftovers of any crash."""
    with _alone(cluster):
        network.claim(cluster)
        if cluster.mark.exists() or network.owner(cluster) or groups.processes(cluster):
            say(f"Removing the cluster in {cluster.home}")
        groups.kill(cluster)
        groups.remove(cluster)
        network.remove(cluster)
        if cluster.mark.exists():
            # The mark goes last: a kill on the way leaves what tells that there is more to do.
            for entry in cluster.home.iterdir():
                if entry != cluster.mark:
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            shutil.rmtree(cluster.home)
        say("Nothing of it is left")


def status(cluster: Cluster) -> int:
    """Every part and node with its state; 0 only if all are well."""
    found = supervisor.states(cluster)
    if not found:
        print(f"No cluster runs in {cluster.home}. Start one with `make cluster`.")
        return 1
    bad = []
    for name, state in found.items():
        wanted = state == "RUNNING" or name.endswith("-kube-proxy")
        print(f"{name:<26} {state.lower()}")
        bad += [] if wanted else [name]
    with Client(cluster) as client:
        try:
            bad += unready(client)
        except httpx.HTTPError as error:
            bad.append(f"the API server: {error}")
    for problem in bad:
        print(f" !     {problem}")
    print(f"kubeconfig: {cluster.kubeconfig}")
    return 1 if bad else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Operate the development Kubernetes.")
    parser.add_argument("command", choices=["up", "down", "status"])
    arguments = parser.parse_args()
    say = _progress()
    try:
        cluster = load()
        if arguments.command == "up":
            if missing():
                binaries.build("cluster")
            up(cluster, say, kube_proxy=os.environ.get("KUBE_PROXY", "") not in ("", "0"))
            print(cluster.kubeconfig)
        elif arguments.command == "down":
            down(cluster, say)
        else:
            return status(cluster)
    except (RuntimeError, ValueError, OSError, httpx.HTTPError, subprocess.CalledProcessError) as error:
        print(f" !     {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
