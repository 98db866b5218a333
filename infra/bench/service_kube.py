"""Short HTTP connections at 5,000 services: through the platform's, and through real kube-proxy's, against
direct ones with and without it.

Client and server are pods of one node of the development cluster (``clusters``).
``CYTOPLANE_BENCH_SERVICES``: another number of services.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bpf.tables import Service
from infra import supervisor
from infra.bench import clusters
from infra.bench import pair as pairs
from infra.bench.report import show
from infra.cluster import images, proxy
from infra.cluster.client import Client
from infra.cluster.settings import Cluster, load

SERVICES, ROUNDS, SECONDS = clusters.number("SERVICES", 5000), 3, 2
_NAMESPACE, _NODE = "bench-services", 1
_SLICES = f"/apis/discovery.k8s.io/v1beta1/namespaces/{_NAMESPACE}/endpointslices"
_OBJECTS = f"/api/v1/namespaces/{_NAMESPACE}"
_WAIT_SECONDS = 600.0
#: Entries of connections that ended make room at once: the table's size is the whole machine's.
_CONNTRACK = ("time_wait", "close", "fin_wait", "last_ack")


def run() -> None:
    cluster = load()
    if supervisor.states(cluster) and proxy.runs(cluster):
        raise SystemExit("kube-proxy runs already: `make cluster` without KUBE_PROXY first.")
    with (
        clusters.running(cluster),
        Client(cluster, seconds=60) as client,
        tempfile.TemporaryDirectory() as folder,
    ):
        traffic = pairs.build(Path(folder))
        with _pods(cluster, client) as (near, far, address):
            server = pairs.serve(traffic, far)
            try:
                # The server ends connections first: what it remembers of those through one address refuses
                # the client's next ones from the same port through another.
                for pod in (near, far):
                    pairs.tune(pod)
                with _short_lived(cluster), _services(client, address):
                    rows = _ours() + _measured(cluster, near, address)
            finally:
                server.kill()
                server.wait()
    show("service_kube", rows, f"wrk with Connection: close, {SECONDS} s each, median of {ROUNDS} rounds.")


def _ours() -> list[dict[str, Any]]:
    """The same between two namespaces on the platform's programs, with as many services."""
    with pairs.pair() as two:
        services = [
            Service(0, str(two.config.services4[3000 + n]), pairs.PORT, 6, ((two.server4, pairs.PORT),))
            for n in range(SERVICES)
        ]
        two.tables.set_services(services)
        ways = (("direct", two.server4), ("its last service", services[-1].address))
        rates = _in_turn(ways, lambda host: two.wrk(host, SECONDS))
    return [
        {"way": f"Cytoplane at {SERVICES}: {way}", "connections/s": rate, "of direct": rate / rates["direct"]}
        for way, rate in rates.items()
    ]


def _in_turn(ways: Iterable[tuple[str, str]], through: Callable[[str], float]) -> dict[str, float]:
    """Way → the median of its rounds, each round once through all ways."""
    rounds = [{way: through(host) for way, host in ways} for _ in range(ROUNDS)]
    return {way: statistics.median(each[way] for each in rounds) for way in rounds[0]}


def _measured(cluster: Cluster, near: Path, address: str) -> list[dict[str, Any]]:
    def through(host: str) -> float:
        return pairs.wrk(near, host, SECONDS)

    bare = _in_turn([("direct", address)], through)["direct"]
    rows: list[dict[str, Any]] = [{"way": "direct, no kube-proxy", "connections/s": bare, "of direct": 1.0}]
    begun = time.monotonic()
    proxy.switch(cluster, True, nodes=[_NODE])
    try:
        while len(found := _in_order(cluster)) < SERVICES:
            if time.monotonic() > begun + _WAIT_SECONDS:
                raise SystemExit(f"kube-proxy wrote {len(found)} of {SERVICES} services")
            time.sleep(1)
        ways = [
            ("direct", address),
            ("its first service", found[0]),
            ("its middle service", found[len(found) // 2]),
            ("its last service", found[-1]),
        ]
        for way, rate in _in_turn(ways, through).items():
            rows.append(
                {"way": f"kube-proxy at {SERVICES}: {way}", "connections/s": rate, "of direct": rate / bare}
            )
    finally:
        proxy.switch(cluster, False)
    return rows


def _in_order(cluster: Cluster) -> list[str]:
    """Addresses of this measurement's services, as a packet meets them."""
    done = _inside(cluster, "iptables-save", "-t", "nat")
    line = re.compile(rf'^-A KUBE-SERVICES -d ([0-9.]+)/32 .*"{_NAMESPACE}/.* -j KUBE-SVC', re.M)
    return line.findall(done)


def _inside(cluster: Cluster, *command: str) -> str:
    enter = [sys.executable, "-m", "infra.cluster.enter", f"node{_NODE}", "--", *command]
    environment = images.cluster_environment(cluster)
    return subprocess.run(enter, env=environment, capture_output=True, text=True, check=True).stdout


@contextlib.contextmanager
def _pods(cluster: Cluster, client: Client) -> Iterator[tuple[Path, Path, str]]:
    """(Network namespace of the client's pod, of the server's, the server's address)."""
    client.create(
        "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}}
    )
    found = []
    try:
        for name in ("client", "server"):
            container = {"name": name, "image": images.BUSYBOX, "command": ["sleep", "1000000"]}
            spec = {
                "nodeName": f"node{_NODE}",
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 0,
                "containers": [container],
            }
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
            _until_created(client, pod)
            found.append(_started(cluster, client, name))
        yield found[0][0], found[1][0], found[1][1]
    finally:
        client.remove(f"/api/v1/namespaces/{_NAMESPACE}")


def _until_created(client: Client, pod: dict[str, Any]) -> None:
    # The namespace's account comes a moment after it.
    end = time.monotonic() + _WAIT_SECONDS
    while client.post(f"{_OBJECTS}/pods", json=pod).is_error:
        if time.monotonic() > end:
            raise SystemExit("no pod can be made")
        time.sleep(0.2)


def _started(cluster: Cluster, client: Client, name: str) -> tuple[Path, str]:
    end = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < end:
        status = client.document(f"{_OBJECTS}/pods/{name}")["status"]
        if status["phase"] == "Running":
            container = status["containerStatuses"][0]["containerID"].removeprefix("containerd://")
            tasks = _inside(cluster, "ctr", "-n", images.NAMESPACE, "tasks", "list")
            pid = next(line.split()[1] for line in tasks.splitlines() if line.startswith(container))
            return Path(f"/proc/{pid}/ns/net"), status["podIP"]
        time.sleep(0.2)
    raise SystemExit(f"the pod {name} doesn't start")


@contextlib.contextmanager
def _short_lived(cluster: Cluster) -> Iterator[None]:
    names = [f"net.netfilter.nf_conntrack_tcp_timeout_{state}" for state in _CONNTRACK]
    before = {name: _inside(cluster, "sysctl", "-n", name).strip() for name in names}
    _inside(cluster, "sysctl", "-q", "-w", *(f"{name}=1" for name in names))
    try:
        yield
    finally:
        _inside(cluster, "sysctl", "-q", "-w", *(f"{name}={value}" for name, value in before.items()))


@contextlib.contextmanager
def _services(client: Client, address: str) -> Iterator[None]:
    """All for the one server; slices are made here, where a controller would take minutes."""

    def make(number: int) -> None:
        name = f"s{number}"
        client.create(
            f"{_OBJECTS}/services",
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name},
                "spec": {"ports": [{"port": pairs.PORT}]},
            },
        )
        client.create(
            _SLICES,
            {
                "apiVersion": "discovery.k8s.io/v1beta1",
                "kind": "EndpointSlice",
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
                "ports": [{"name": "", "port": pairs.PORT, "protocol": "TCP"}],
            },
        )

    def unmake(number: int) -> None:
        client.remove(f"{_OBJECTS}/services/s{number}")

    with ThreadPoolExecutor(8) as pool:
        try:
            begun = time.monotonic()
            list(pool.map(make, range(SERVICES)))
            print(f"-----> {SERVICES} services in {time.monotonic() - begun:.0f} s", file=sys.stderr)
            yield
        finally:
            client.remove(_SLICES)
            list(pool.map(unmake, range(SERVICES)))
