"""Interfaces that somebody else made: pods', whose network a cluster's CNI has set up.

A pod's ``eth0`` is one end of a veth whose other end is on the node, alone (as ``ptp`` makes it) or in a
bridge (as ``bridge`` does). The programs are put on the node's end before the tables know it, and until
they do nothing passes. Anything that isn't such a veth is refused: a plugin that leads packets past the
node's end would lead them past the programs.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bpf import attach
from bpf.tables import Tables
from dataplane.agent import namespaces, netlink
from dataplane.agent.interfaces import INSIDE, Address, Namespace, NetworkError, ip, mac
from infra.config import Config

#: By whom the node was told of a neighbour, in the kernel's words: 112 to 127 are the platform's.
_TOLD = 112
_GET_NAMESPACE_ID, _NAMESPACE_ID, _NAMESPACE_FD = 90, 1, 3
#: The node's end of a pod's veth. What makes it findable (ARP, forwarding) is its CNI's.
_HOST_SIDE = {
    "net/ipv4/conf/{}/route_localnet": "0",
    "net/ipv4/conf/{}/accept_source_route": "0",
    "net/ipv4/conf/{}/accept_redirects": "0",
    "net/ipv6/conf/{}/accept_ra": "0",
    "net/ipv6/conf/{}/accept_redirects": "0",
}


@dataclass(frozen=True)
class Foreign(Namespace):
    """A pod's namespace with the veth that its CNI made. ``bridge``: interface index of the bridge that
    the node's end is in; 0: none. ``addresses``: what the pod has, v4 and v6, link-local ones left out."""

    bridge: int = 0
    addresses: tuple[str, ...] = ()


def find_foreign(name: str, path: Path, inner: str = "eth0") -> Foreign:
    """The interface ``inner`` of the namespace at ``path`` and the node's end of it.

    Raises ``NetworkError`` with a sentence if it isn't a veth whose other end is on this node by itself or
    in a bridge.
    """
    inside = _describe(inner, path)
    if inside.get("linkinfo", {}).get("info_kind") != "veth":
        raise NetworkError(f"{inner} of the pod isn't a veth: its CNI plugin isn't supported")
    try:
        ifname = socket.if_indextoname(int(inside.get("link_index", 0)))
    except OSError:
        raise NetworkError(f"the other end of the pod's {inner} isn't on this node") from None
    host = _describe(ifname)
    back = (host.get("linkinfo", {}).get("info_kind"), host.get("link_index"), host.get("link_netnsid"))
    if back != ("veth", inside["ifindex"], _namespace_id(path)):
        raise NetworkError(f"the other end of the pod's {inner} isn't on this node")
    bridge = 0
    if host.get("master"):
        above = _describe(host["master"])
        if above.get("linkinfo", {}).get("info_kind") != "bridge":
            raise NetworkError(f"{ifname} belongs to {host['master']}, which isn't a bridge")
        bridge = int(above["ifindex"])
    own = [a["local"] for a in inside.get("addr_info", []) if a.get("scope") == "global"]
    return Foreign(
        name=name,
        path=path,
        ifname=ifname,
        ifindex=int(host["ifindex"]),
        cookie=namespaces.cookie(path),
        mac=mac(inside),
        host_mac=mac(host),
        bridge=bridge,
        addresses=tuple(own),
    )


def _describe(ifname: str, path: Path | None = None) -> dict:
    """One link with its addresses, as ``ip`` describes it."""
    enter = ["nsenter", f"--net={path}", "--"] if path else []
    command = [*enter, "ip", "-j", "-d", "address", "show", "dev", ifname]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        raise NetworkError(done.stderr.strip() or f"there is no {ifname}")
    for entry in json.loads(done.stdout or "[]"):
        if entry.get("ifname") == ifname:
            return entry
    raise NetworkError(f"there is no {ifname}")


def _namespace_id(path: Path) -> int:
    """The number by which this namespace knows the one at ``path``; -1 if it has none for it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        body = struct.pack("=B3xHHI", 0, 8, _NAMESPACE_FD, descriptor)
        with netlink.Conversation(socket.NETLINK_ROUTE) as kernel:
            for answer in kernel.ask(_GET_NAMESPACE_ID, netlink.ACK, body):
                raw = netlink.attributes(answer[4:]).get(_NAMESPACE_ID)
                if raw:
                    return struct.unpack("=i", raw)[0]
    finally:
        os.close(descriptor)
    return -1


def introduce_foreign(
    config: Config,
    tables: Tables,
    found: Foreign,
    owned: Sequence[Address],
    translate: bool = True,
    *,
    judged: bool = True,
) -> None:
    """Take a pod's interface over: closed by the programs first, then known to the tables.

    ``owned``: its addresses, "" for a family it doesn't have. Unless ``judged``, programs that are there
    stay (an upgrade is on its way); an interface without any gets them in any case. Raises ``NetworkError``, ``attach.NotOurs`` or ``OSError``; the
    interface may be closed then, and never is open.
    """
    if judged or not attach.is_attached(config, found.ifindex):
        attach.attach_foreign(config, found.ifindex)
    namespaces.write_sysctls(found.path, INSIDE)
    for setting, value in _HOST_SIDE.items():
        file = Path("/proc/sys") / setting.format(found.ifname)
        if file.exists():
            file.write_text(value)
    tables.set_endpoint(
        found.ifindex,
        owned[0].identity,
        found.mac,
        found.host_mac,
        found.cookie,
        translate,
        foreign=True,
        bridge=found.bridge,
    )
    for address in owned:
        for text in (address.v4, address.v6):
            if text:
                tables.set_address(text, address.identity, found.ifindex)
    if found.bridge:
        _hold_port(found)
        hold_neighbours(config, [found])


def _hold_port(found: Foreign) -> None:
    """Its bridge learns from nobody else where the pod's hardware address is."""
    command = ["bridge", "fdb", "replace", found.mac.hex(":"), "dev", found.ifname]
    done = subprocess.run(
        [*command, "master", "static", "sticky"], text=True, capture_output=True, check=False
    )
    if done.returncode:
        raise NetworkError(done.stderr.strip() or "the bridge doesn't take an entry")


def hold_neighbours(config: Config, pods: Iterable[Foreign]) -> None:
    """Where a bridge's other ports may lie, the node doesn't learn who has the pods' addresses: it is told.

    The kernel forgets it when a bridge gets another hardware address, which a new port may do: to be told
    again from time to time. Raises ``NetworkError``.
    """
    lines = []
    for pod in pods:
        with contextlib.suppress(OSError):  # a bridge that is gone has no neighbours
            told = f"lladdr {pod.mac.hex(':')} dev {socket.if_indextoname(pod.bridge)}"
            told += f" nud permanent protocol {_TOLD + config.net}"
            lines += [f"neigh replace {text} {told}" for text in pod.addresses]
    if lines:
        ip(lines)


def _let_neighbours_go(found: Foreign) -> None:
    """The bridge's entry goes with its port; the node's would outlive the pod, whose addresses others get."""
    if not found.bridge:
        return
    try:
        bridge = socket.if_indextoname(found.bridge)
    except OSError:
        return
    for text in found.addresses:
        subprocess.run(["ip", "neigh", "del", text, "dev", bridge], capture_output=True, check=False)


def sweep_neighbours(config: Config, tables: Tables) -> None:
    """Take back what the node was told of pods that are gone, by an agent that died before it heard of it."""
    done = subprocess.run(
        ["ip", "-j", "neigh", "show", "nud", "permanent"], text=True, capture_output=True, check=False
    )
    own = {text for text, (_, ifindex) in tables.addresses().items() if ifindex}
    for entry in json.loads(done.stdout or "[]"):
        if str(entry.get("protocol")) == str(_TOLD + config.net) and entry["dst"] not in own:
            command = ["ip", "neigh", "del", entry["dst"], "dev", entry["dev"]]
            subprocess.run(command, capture_output=True, check=False)


def adopt_foreign(
    config: Config, name: str, path: Path, inner: str = "eth0", *, judged: bool = True
) -> Foreign | None:
    """The pod's interface as it is, with the newest programs if ``judged``; None unless it is whole."""
    try:
        found = find_foreign(name, path, inner)
    except (NetworkError, OSError, KeyError):
        return None
    if judged:
        attach.attach_foreign(config, found.ifindex)
    return found


def release_foreign(tables: Tables, found: Foreign) -> None:
    """Forget a pod's interface and its addresses. What is left of it passes nothing any more."""
    tables.remove_endpoint(found.ifindex, found.cookie)
    _let_neighbours_go(found)


def ensure_underlays(config: Config, tables: Tables, names: Iterable[str]) -> set[int]:
    """These interfaces, and no others, lead to the plane's other nodes; their indexes.

    They are guarded before they are trusted. Raises ``OSError`` for a name that isn't there.
    """
    wanted = {socket.if_nametoindex(name) for name in names}
    for ifindex in wanted:
        attach.attach_underlay(config, ifindex)
    before = tables.underlays()
    tables.set_underlays(wanted)
    for ifindex in before - wanted:
        attach.detach_underlay(config, ifindex)
    return wanted
