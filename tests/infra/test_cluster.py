"""The development cluster: what runs on it, what it changes of the machine, what ends it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from infra import base_recipe, supervisor
from infra.cluster import groups, images, network, proxy
from infra.cluster.enter import holder
from infra.cluster.images import BUSYBOX, cluster_environment
from infra.cluster.settings import NODES, Cluster, checked
from tests.cluster import LONGEST, TwoNodes, until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.root,
    pytest.mark.timeout(LONGEST),
    pytest.mark.usefixtures("bare_nodes"),
]
#: Refuses each IPv4 connection of the control group that a node takes for the root; `off` takes it away.
HOOK = """
import ctypes, os, struct, sys
from pathlib import Path
from bpf import sys as bpf
from bpf.machine import cgroup_root
pin, connect4 = Path("/sys/fs/bpf/refuses"), 10
root = os.open(cgroup_root(), os.O_RDONLY)
if sys.argv[1] == "on":
    code = ctypes.create_string_buffer(bytes.fromhex("b700000000000000" "9500000000000000"))  # return 0
    text = ctypes.create_string_buffer(b"GPL")
    head = struct.pack("=IIQQIIQII", 18, 2, ctypes.addressof(code), ctypes.addressof(text), 0, 0, 0, 0, 0)
    program = bpf._call(5, head + bytes(16) + struct.pack("=II", 0, connect4))
    bpf.object_pin(program, pin)
    bpf.attach_cgroup(root, program, connect4)
else:
    bpf.detach_cgroup(root, bpf.object_get(pin), connect4)
    pin.unlink()
"""
#: Settings of the whole machine that kubelet and kube-proxy change where they can.
SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "net/netfilter/nf_conntrack_max",
)
WEB = {
    "name": "web",
    "image": BUSYBOX,
    "command": ["sh", "-c", "hostname > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"],
    "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
    "resources": {"limits": {"cpu": "100m", "memory": "32Mi"}},
}


def web(two_nodes: TwoNodes, namespace: str) -> dict[str, dict]:
    """A Deployment with a replica on each node, and a service of both families; its pods by node."""
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    spec = {
        "containers": [WEB],
        "terminationGracePeriodSeconds": 0,
        "topologySpreadConstraints": [spread],
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": spec},
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {
            "ipFamilyPolicy": "RequireDualStack",
            "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    }
    with two_nodes.client() as client:
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        client.create(path, deployment)
        client.create(f"/api/v1/namespaces/{namespace}/services", service)
        until(
            lambda: client.document(f"{path}/web")["status"].get("readyReplicas") == 2,
            90,
            "the Deployment doesn't get ready",
        )
    return {pod["spec"]["nodeName"]: pod for pod in two_nodes.pods(namespace, "app=web").values()}


def addresses(pod: dict) -> list[str]:
    return [entry["ip"] for entry in pod["status"].get("podIPs", [])]


def ended(two_nodes: TwoNodes, namespace: str, pod: str) -> bool:
    return two_nodes.pods(namespace)[pod]["status"]["phase"] in ("Succeeded", "Failed")


def answers(two_nodes: TwoNodes, url: str) -> bool:
    """Whether node1 gets an answer there."""
    return two_nodes.ran("node1", "curl", "-sS", "-m", "2", url).returncode == 0


def quoted(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def test_replicas_spread_over_both_nodes_and_reach_each_other_over_both_families(
    two_nodes: TwoNodes,
) -> None:
    with two_nodes.namespace() as namespace:
        pods = web(two_nodes, namespace)
        assert set(pods) == {"node1", "node2"}
        for node in NODES:
            v4, v6 = two_nodes.cluster.pods(node)
            found = addresses(pods[f"node{node}"])
            assert len(found) == 2
            assert IPv4Address(found[0]) in v4
            assert IPv6Address(found[1]) in v6
        for own, other in (("node1", "node2"), ("node2", "node1")):
            lines = [
                f"timeout 5 wget -q -O - http://{quoted(address)}:8080/"
                for address in (*addresses(pods[other]), *addresses(pods[own]))
            ]
            two_nodes.create_pod(namespace, f"ask-{own}", " && ".join(lines), own)
        for own, other in (("node1", "node2"), ("node2", "node1")):
            name = f"ask-{own}"
            until(partial(ended, two_nodes, namespace, name), 60, f"{name} doesn't end")
            names = [pods[other]["metadata"]["name"]] * 2 + [pods[own]["metadata"]["name"]] * 2
            # Through the API server to kubelet: its certificate and rights are right too.
            assert two_nodes.log(namespace, name).split() == names


def test_the_machine_reaches_pods_and_pods_reach_the_api_by_its_service_address(two_nodes: TwoNodes) -> None:
    with two_nodes.namespace() as namespace:
        for pod in web(two_nodes, namespace).values():
            for address in addresses(pod):
                url = f"http://{quoted(address)}:8080/"
                answer = subprocess.run(
                    ["curl", "-sS", "--noproxy", "*", "-m", "5", url],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert answer.stdout.strip() == pod["metadata"]["name"], answer.stderr
        service = two_nodes.cluster.api_service
        two_nodes.create_pod(namespace, "ask", f"nc -w 5 {service} 443 </dev/null && echo reached")
        until(
            lambda: two_nodes.pods(namespace)["ask"]["status"]["phase"] == "Succeeded",
            60,
            "the API isn't reached",
        )
        assert two_nodes.log(namespace, "ask").strip() == "reached"


def test_kube_proxy_is_there_when_asked_for_and_takes_its_rules_along(two_nodes: TwoNodes) -> None:
    cluster = two_nodes.cluster
    with two_nodes.namespace() as namespace:
        web(two_nodes, namespace)
        with two_nodes.client() as client:
            spec = client.document(f"/api/v1/namespaces/{namespace}/services/web")["spec"]
        assert len(spec["clusterIPs"]) == 2
        asks = [f"http://{quoted(address)}/" for address in spec["clusterIPs"]]
        assert proxy.rules(cluster, 1) == 0
        assert not answers(two_nodes, asks[0])
        try:
            proxy.switch(cluster, True, nodes=[1])
            for ask in asks:
                until(partial(answers, two_nodes, ask), 60, f"{ask} doesn't answer")
            assert proxy.rules(cluster, 1) > 4
            assert proxy.rules(cluster, 2) == 0
            assert proxy.runs(cluster) == {"node1-kube-proxy"}
        finally:
            proxy.switch(cluster, False)
        assert proxy.rules(cluster, 1) == 0


def test_a_node_sees_its_own_network_groups_and_programs_only(two_nodes: TwoNodes) -> None:
    script = """
        readlink /proc/self/ns/cgroup /proc/self/ns/net /proc/self/ns/mnt
        mkdir -p /sys/fs/bpf/seen-by-$(hostname) && ls /sys/fs/bpf
        cat /proc/self/cgroup
    """
    said = [two_nodes.ran(f"node{node}", "sh", "-c", script).stdout.splitlines() for node in NODES]
    machine = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("cgroup", "net", "mnt")]
    assert all(len({said[0][i], said[1][i], machine[i]}) == 3 for i in range(3))
    for node, lines in zip(NODES, said, strict=True):
        assert [line for line in lines if line.startswith("seen-by")] == [f"seen-by-node{node}"]
        # Its group is the root, or `system` in it: what is attached there meets this node alone.
        assert {line.rsplit(":", 1)[1] for line in lines if line.count(":") == 2} <= {"/", "/system"}
    assert not Path("/sys/fs/bpf/seen-by-node1").exists()
    links = json.loads(two_nodes.ran("node1", "ip", "-j", "link").stdout)
    assert {"lo", "eth0"} <= {link["ifname"] for link in links}
    assert "node1" in two_nodes.ran("node1", "hostname").stdout


def test_a_program_at_a_nodes_root_meets_that_node_alone(two_nodes: TwoNodes) -> None:
    def reaches(place: str) -> str:
        url = f"https://{two_nodes.cluster.control[0].ip}/"
        return two_nodes.ran(place, "curl", "-sSk", "-m", "5", "-o", "/dev/null", url).stderr

    def hook(what: str) -> None:
        done = two_nodes.ran("node1", sys.executable, "-c", HOOK, what)
        assert done.returncode == 0, done.stderr

    assert reaches("node1") == reaches("node2") == ""
    hook("on")
    try:
        # curl's words for a connect() that the kernel refused at once.
        assert "Couldn't connect" in reaches("node1")
        assert reaches("node2") == reaches("control") == ""
        assert not Path("/sys/fs/bpf/refuses").exists()
        assert two_nodes.ran("node2", "ls", "/sys/fs/bpf/refuses").returncode != 0
    finally:
        hook("off")
    assert reaches("node1") == ""


def test_an_archive_gets_onto_both_nodes(two_nodes: TwoNodes, tmp_path: Path) -> None:
    name = "cytoplane.dev/greeting:1"
    file = tmp_path / "greeting.tar"
    file.write_bytes(images.archive(name, {"greeting": (b"hello", 0o644)}, {}))
    images.load(two_nodes.cluster, file)
    for node in NODES:
        assert name in images.present(two_nodes.cluster, node)
    with pytest.raises(RuntimeError, match="doesn't take the image"):
        images.load(two_nodes.cluster, b"no archive", nodes=[1])
    nameless = tmp_path / "nameless.tar"
    with tarfile.open(file) as named, tarfile.open(nameless, "w") as archive:
        for entry in named:
            content = named.extractfile(entry)
            assert content is not None
            data = content.read()
            if entry.name == "index.json":
                index = json.loads(data)
                del index["manifests"][0]["annotations"]
                data = json.dumps(index).encode()
                entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    with pytest.raises(RuntimeError, match="names no image"):
        images.load(two_nodes.cluster, nameless, nodes=[1])


def test_the_base_image_is_whole_on_both_nodes_and_nothing_else_has_its_name(two_nodes: TwoNodes) -> None:
    name = images.load_base(two_nodes.cluster)
    with tarfile.open(base_recipe.archive_in(two_nodes.cluster.cache)) as archive:
        index = archive.extractfile("index.json")
        assert index is not None
        (entry,) = json.load(index)["manifests"]
    for node in (f"node{number}" for number in NODES):
        listed = two_nodes.ran(node, "ctr", "--namespace", "k8s.io", "images", "list", f"name=={name}").stdout
        assert [line.split()[2] for line in listed.splitlines()[1:]] == [entry["digest"]], listed
        checked = two_nodes.ran(
            node, "ctr", "--namespace", "k8s.io", "images", "check", f"name=={name}"
        ).stdout
        assert "complete" in checked and "incomplete" not in checked, checked


def test_what_dies_comes_back_and_a_node_that_died_starts_its_pods_anew(two_nodes: TwoNodes) -> None:
    cluster = two_nodes.cluster
    with two_nodes.namespace() as namespace:
        pods = web(two_nodes, namespace)
        pids = supervisor.pids(cluster)
        for part in (
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "node2-kubelet",
            "node2-containerd",
        ):
            os.kill(pids[part], signal.SIGKILL)
        first = holder(cluster, "node1")
        # All that the node runs goes with it, as when the power goes.
        os.kill(first, signal.SIGKILL)

        def well() -> bool:
            found = supervisor.states(cluster)
            return holder(cluster, "node1") not in (0, first) and all(
                state == "RUNNING" for name, state in found.items() if not name.endswith("kube-proxy")
            )

        until(well, 90, lambda: f"not everything came back: {supervisor.states(cluster)}")
        # Nobody is left to bring anything back, until somebody asks for the cluster again.
        os.kill(int((cluster.run / "supervisor.pid").read_text()), signal.SIGKILL)
        two_nodes.start()

        def serves() -> bool:
            found = [
                address for pod in two_nodes.pods(namespace, "app=web").values() for address in addresses(pod)
            ]
            command = [
                "curl",
                "-sS",
                "--noproxy",
                "*",
                "-m",
                "2",
                *(f"http://{quoted(a)}:8080/" for a in found),
            ]
            return (
                len(found) == 4 and subprocess.run(command, capture_output=True, check=False).returncode == 0
            )

        until(serves, 120, "the pods don't serve again")
        # The node went, its pods didn't: they were started anew, not replaced.
        again = {pod["metadata"]["name"] for pod in two_nodes.pods(namespace, "app=web").values()}
        assert again == {pod["metadata"]["name"] for pod in pods.values()}


def traces(cluster: Cluster) -> dict[str, list[str]]:
    """Everything of the cluster that can be found on the machine."""
    sets = [
        subprocess.run([*command], capture_output=True, text=True, check=False).stdout
        for command in (["iptables-save"], ["ip6tables-save"], ["nft", "list", "ruleset"])
    ]
    routes = subprocess.run(["ip", "-o", "-6", "route"], capture_output=True, text=True, check=True).stdout
    routes += subprocess.run(["ip", "-o", "-4", "route"], capture_output=True, text=True, check=True).stdout
    marker = f"CYTOPLANE_CLUSTER_HOME={cluster.home}".encode()
    running = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if marker in (folder / "environ").read_bytes().split(b"\0"):
                    running.append((folder / "comm").read_text().strip())
            except OSError:
                continue
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return {
        "links": [
            link
            for link in os.listdir("/sys/class/net")
            if link == cluster.name or link.startswith(f"{cluster.name}-")
        ],
        "routes": [line for line in routes.splitlines() if f"dev {cluster.name} " in line],
        "rules": [line for text in sets for line in text.splitlines() if "KUBE-" in line or "CNI-" in line],
        "namespaces": [path.name for path in network.NETNS.glob(f"{cluster.name}-*")],
        "mounts": [line for line in mounts if f"{cluster.name}-" in line or str(cluster.home) in line],
        "groups": [
            str(m / cluster.group) for m, _, _ in groups.hierarchies() if (m / cluster.group).exists()
        ],
        "processes": running,
        "state": [str(cluster.home)] if cluster.home.exists() else [],
    }


def values() -> dict[str, str]:
    return {
        name: Path("/proc/sys", name).read_text() for name in SETTINGS if Path("/proc/sys", name).exists()
    }


def test_a_start_killed_at_any_point_goes_on_and_the_end_leaves_nothing(two_nodes: TwoNodes) -> None:
    cluster = two_nodes.cluster
    two_nodes.stop()
    try:
        assert not any(traces(cluster).values()), traces(cluster)
        before = values()
        command = [sys.executable, "-m", "infra.cluster.control", "up"]
        for seconds in (0.3, 0.8, 2, 5):
            with subprocess.Popen(
                command,
                env=cluster_environment(cluster),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ) as process:
                time.sleep(seconds)
                process.kill()
        two_nodes.start(kube_proxy=True)
        there = traces(cluster)
        # The machine's own network got one link with three routes to what is behind it, and no rules.
        assert there["links"] == [cluster.name]
        assert not there["rules"]
        assert {line.split(" on ")[0] for line in there["mounts"]}
        assert all(" - nsfs " in line for line in there["mounts"]), (
            "only names of network namespaces are mounted"
        )
        assert values() == before
        # The worst time to end it: the supervisor is gone, nobody knows what it had started.
        os.kill(int((cluster.run / "supervisor.pid").read_text()), signal.SIGKILL)
        two_nodes.stop()
        until(lambda: not any(traces(cluster).values()), 10, f"left: {traces(cluster)}")
        assert values() == before
    finally:
        two_nodes.start()


def test_a_number_that_another_cluster_has_is_refused(two_nodes: TwoNodes, tmp_path: Path) -> None:
    other = Cluster(tmp_path, two_nodes.cluster.number, cache=two_nodes.cluster.cache)
    with pytest.raises(network.Occupied, match=str(two_nodes.cluster.home)):
        TwoNodes(other).start()
    with pytest.raises(network.Occupied):
        TwoNodes(other).stop()
    assert holder(two_nodes.cluster, "node1")


def test_a_range_that_leads_somewhere_else_is_refused(two_nodes: TwoNodes, tmp_path: Path) -> None:
    number = two_nodes.cluster.number
    neighbour = Cluster(tmp_path, (number + 1) % 16)
    route = ["ip", "route", "add", f"10.{112 + neighbour.number}.7.0/24", "dev", two_nodes.cluster.name]
    subprocess.run(route, check=True)
    try:
        with pytest.raises(network.Occupied, match=two_nodes.cluster.name):
            network.check_free(neighbour)
    finally:
        subprocess.run(["ip", "route", "del", *route[3:]], check=True)
    network.check_free(two_nodes.cluster)


def test_settings_that_nothing_could_be_made_of_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 to 15"):
        checked(Cluster(tmp_path, 16))
    with pytest.raises(ValueError, match="CNI"):
        checked(Cluster(tmp_path, cni="calico"))
    with pytest.raises(ValueError, match="characters"):
        checked(Cluster(Path("/var/tmp/a b")))


def test_clusters_share_no_address() -> None:
    networks = []
    for number in range(16):
        cluster = Cluster(Path("/nowhere"), number)
        networks += [cluster.all_pods[0], cluster.lan(1)[0].network, cluster.link(1)[0].network]
        assert all(cluster.pods(node)[i].subnet_of(cluster.all_pods[i]) for node in NODES for i in (0, 1))  # type: ignore[arg-type]
    assert not any(a.overlaps(b) for i, a in enumerate(networks) for b in networks[:i])
