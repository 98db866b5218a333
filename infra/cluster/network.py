"""Network namespaces of a cluster: the control plane's, with a bridge to the nodes, and one for each node.

The machine's own namespace holds one end of a veth, its addresses and the routes over it; the other end
is the control plane's. Ranges of pods are routed by the nodes' addresses, without tunnels and without
rewriting. The namespaces' files are all that is mounted.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path

from pyroute2 import netns

from dataplane.agent.namespaces import write_sysctls
from infra.cluster.settings import NETNS, NODES, Cluster

_PLACES = ("control", *(f"node{node}" for node in NODES))
#: What a node's own network is like, whatever the machine's is: sysctls are inherited in part.
_SETTINGS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/default/forwarding": "1",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/all/accept_ra": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/route_localnet": "0",
    "net/ipv4/conf/default/route_localnet": "0",
    "net/ipv4/conf/all/accept_redirects": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
}


class Occupied(RuntimeError):
    """Another cluster has this number."""


def _ip(lines: Sequence[str], namespace: str = "") -> None:
    """``ip`` commands as one batch. Raises ``RuntimeError`` with what it said."""
    command = ["ip", *(["-n", namespace] if namespace else []), "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines) + "\n", text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip failed: {done.stderr.strip()}")


def _link(name: str, namespace: str = "") -> dict | None:
    command = ["ip", *(["-n", namespace] if namespace else []), "-j", "link", "show", "dev", name]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    return json.loads(done.stdout)[0] if done.returncode == 0 else None


def owner(cluster: Cluster) -> str:
    """State directory of the cluster that has this number; "" if none has."""
    link = _link(cluster.name)
    return str(link.get("ifalias", "")) if link else ""


def claim(cluster: Cluster) -> None:
    """Raises ``Occupied`` if the number is another living cluster's."""
    other = owner(cluster)
    if other and other != str(cluster.home) and (Path(other) / "cluster.json").exists():
        raise Occupied(
            f"Number {cluster.number} is the cluster's in {other}. Choose another CYTOPLANE_CLUSTER_NET, "
            f"or end that one with CYTOPLANE_CLUSTER_HOME={other} make cluster-down."
        )


def check_free(cluster: Cluster) -> None:
    """Raises ``Occupied`` if the machine's routes lead addresses of this number somewhere else."""
    own = cluster.everything
    done = subprocess.run(["ip", "-j", "-4", "route"], text=True, capture_output=True, check=True)
    for route in json.loads(done.stdout or "[]"):
        if route["dst"] == "default" or route.get("dev") == cluster.name:
            continue
        if IPv4Network(route["dst"], strict=False).overlaps(own):
            raise Occupied(
                f"{route['dst']} is reached by {route.get('dev', 'another way')} already, and number "
                f"{cluster.number} takes {own}. Choose another CYTOPLANE_CLUSTER_NET."
            )


def _mounted(path: Path) -> bool:
    # pathlib's own question is for folders only.
    return path.exists() and path.stat().st_dev != path.parent.stat().st_dev


def _namespace(path: Path) -> None:
    if path.exists():
        if _mounted(path):
            return
        # Made, but a kill came before it was mounted.
        path.unlink()
    NETNS.mkdir(exist_ok=True)
    netns.create(path.name)


def ensure(cluster: Cluster) -> None:
    """Make namespaces, links, addresses and routes that are missing. Raises ``RuntimeError``, ``OSError``."""
    for place in _PLACES:
        _namespace(cluster.netns(place))
        write_sysctls(cluster.netns(place), _SETTINGS)
    control = cluster.netns("control").name
    if _link(cluster.name) is None:
        _ip([f"link add {cluster.name} type veth peer name machine netns {control}"])
    _ip([f"link set {cluster.name} alias {cluster.home}", f"link set {cluster.name} up"])
    _ip(_addresses(cluster.name, cluster.link(1)))
    if _link("nodes", control) is None:
        _ip(["link add nodes type bridge"], control)
    _ip(["link set lo up", "link set machine up", "link set nodes up"], control)
    _ip([*_addresses("machine", cluster.link(2)), *_addresses("nodes", cluster.control)], control)
    # Without kube-proxy the API's service address is simply the control plane's.
    _ip([f"addr replace {cluster.api_service}/32 dev lo"], control)
    for node in NODES:
        _node(cluster, node)
    for node in NODES:
        _ip(_routes(cluster.pods(node), cluster.node(node)), control)
    beyond = cluster.link(2)
    _ip([*_routes(cluster.all_pods, beyond), *_routes([a.network for a in cluster.control], beyond)])


def _node(cluster: Cluster, node: int) -> None:
    own, control = cluster.netns(f"node{node}").name, cluster.netns("control").name
    if _link("eth0", own) is None:
        _ip([f"link add node{node} type veth peer name eth0 netns {own}"], control)
    _ip([f"link set node{node} master nodes up"], control)
    _ip(["link set lo up", "link set eth0 up", *_addresses("eth0", cluster.node(node))], own)
    v4, v6 = cluster.control
    _ip([f"route replace default via {v4.ip}", f"route replace default via {v6.ip} dev eth0"], own)
    for other in NODES:
        if other != node:
            _ip(_routes(cluster.pods(other), cluster.node(other)), own)


def _addresses(link: str, addresses: Sequence) -> list[str]:
    v4, v6 = addresses
    return [f"addr replace {v4} dev {link}", f"addr replace {v6} dev {link} nodad"]


def _routes(networks: Sequence, via: Sequence) -> list[str]:
    (v4, v6), (via4, via6) = networks, via
    return [f"route replace {v4} via {via4.ip}", f"route replace {v6} via {via6.ip}"]


def remove(cluster: Cluster) -> None:
    """Take everything away; the routes go with their link, all other links with their namespaces."""
    if _link(cluster.name) is not None:
        _ip([f"link del {cluster.name}"])
    for place in _PLACES:
        path = cluster.netns(place)
        while _mounted(path):
            subprocess.run(["umount", "--lazy", str(path)], check=True)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
