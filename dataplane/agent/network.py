"""Namespaces and veths of workloads: routed, without a shared layer 2, closed until they are known.

Each namespace has ``eth0`` with a /32 and a /128, a default route to fixed neighbours, and the
programs of ``bpf`` on the host side of its veth. Neighbours are permanent on both sides, so neither
side ever asks. The host's side is named ``<installation>v<number>``; that name is the only
thing by which interfaces are recognised as ours.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bpf import attach
from bpf.tables import Tables
from dataplane.agent import namespaces, selftest
from dataplane.agent.foreign import (
    Foreign,
    adopt_foreign,
    ensure_underlays,
    find_foreign,
    hold_neighbours,
    introduce_foreign,
    release_foreign,
    sweep_neighbours,
)
from dataplane.agent.host import ensure_host, remove_host, remove_rules, set_platform
from dataplane.agent.interfaces import INSIDE as _INSIDE
from dataplane.agent.interfaces import Address, Namespace, NetworkError
from dataplane.agent.interfaces import ip as _ip
from dataplane.agent.interfaces import links as _links
from dataplane.agent.interfaces import mac as _mac
from infra.config import Config

__all__ = [
    "Address",
    "Foreign",
    "Namespace",
    "NetworkError",
    "adopt",
    "adopt_foreign",
    "connect",
    "create",
    "destroy",
    "ensure_host",
    "ensure_underlays",
    "find_foreign",
    "hold_neighbours",
    "introduce_foreign",
    "listing",
    "release_foreign",
    "remove_host",
    "remove_rules",
    "set_platform",
    "sweep",
    "sweep_neighbours",
]

#: Namespaces that processes beside the agent live in.
LASTING = ("gateway", "resolver")
GATEWAY4, GATEWAY6 = "169.254.1.1", "fe80::1"

_HOST_SIDE = {
    "net/ipv4/conf/{}/rp_filter": "0",
    "net/ipv4/conf/{}/proxy_arp": "0",
    "net/ipv4/conf/{}/route_localnet": "0",
    "net/ipv4/conf/{}/accept_source_route": "0",
    "net/ipv4/conf/{}/accept_redirects": "0",
    "net/ipv4/conf/{}/send_redirects": "0",
    "net/ipv4/conf/{}/arp_ignore": "8",
    "net/ipv6/conf/{}/accept_ra": "0",
    "net/ipv6/conf/{}/accept_redirects": "0",
    "net/ipv6/conf/{}/proxy_ndp": "0",
    "net/ipv6/conf/{}/forwarding": "1",
}


def full_name(config: Config, name: str) -> str:
    """Name of a namespace on the node, e.g. ``cy0-gateway``."""
    return f"{config.name}-{name}"


def path_of(config: Config, name: str) -> Path:
    """Where the namespace is mounted."""
    return config.netns_dir / full_name(config, name)


def create(config: Config, name: str, number: int, pairs: Sequence[tuple[str, str]]) -> Namespace:
    """Make a namespace whose link is still down, with the programs attached.

    ``number`` is unique on the node and names the interface; ``pairs`` are its IPv4 and IPv6
    addresses. What a crash left half-made under this name is removed first. Raises
    ``NetworkError`` or ``OSError``; then nothing is left behind.
    """
    destroy(config, name, number)
    whole = full_name(config, name)
    outside = f"{config.name}v{number}"
    if not _made_before(config, name):
        _ip([f"netns add {whole}"])
    try:
        _ip([f"link add {outside} type veth peer name eth0 netns {whole}"])
        attach.attach(config, int(_links()[outside]["ifindex"]))
        namespaces.write_sysctls(path_of(config, name), _INSIDE)
        for setting, value in _HOST_SIDE.items():
            file = Path("/proc/sys") / setting.format(outside)
            if file.exists():
                file.write_text(value)
        found = _describe(config, name, outside)
        _addresses(found, pairs)
    except BaseException:
        destroy(config, name, number)
        raise
    return found


def _made_before(config: Config, name: str) -> bool:
    """Whether it is a mount of the node's (``dataplane.node.prepare``), which outlives the agent's container.

    It is used as it is found; with a link go its addresses and routes.
    """
    return config.engine == "kubernetes" and name in LASTING and os.path.ismount(path_of(config, name))


def _describe(config: Config, name: str, outside: str) -> Namespace:
    host, inner = _links()[outside], _links(full_name(config, name))["eth0"]
    path = path_of(config, name)
    return Namespace(
        name=name,
        path=path,
        ifname=outside,
        ifindex=int(host["ifindex"]),
        cookie=namespaces.cookie(path),
        mac=_mac(inner),
        host_mac=_mac(host),
    )


def _addresses(namespace: Namespace, pairs: Sequence[tuple[str, str]]) -> None:
    """Addresses and fixed neighbours inside; the link stays down."""
    host_mac = namespace.host_mac.hex(":")
    lines = ["link set lo up", "link set eth0 addrgenmode none"]
    for v4, v6 in pairs:
        lines += [f"addr add {v4}/32 dev eth0", f"addr add {v6}/128 dev eth0 nodad"]
    lines += [
        "link set eth0 up",
        f"neigh replace {GATEWAY4} lladdr {host_mac} dev eth0 nud permanent",
        f"neigh replace {GATEWAY6} lladdr {host_mac} dev eth0 nud permanent",
        f"route replace default via {GATEWAY4} dev eth0 onlink",
        f"route replace default via {GATEWAY6} dev eth0",
    ]
    _ip(lines, full_name_of(namespace))


def full_name_of(namespace: Namespace) -> str:
    return namespace.path.name


def up(namespace: Namespace, pairs: Sequence[tuple[str, str]]) -> None:
    """Bring up the host's side with its routes: from now on packets can flow."""
    mac, link = namespace.mac.hex(":"), namespace.ifname
    lines = [f"link set {link} addrgenmode none", f"link set {link} up"]
    for v4, v6 in pairs:
        lines += [
            f"neigh replace {v4} lladdr {mac} dev {link} nud permanent",
            f"neigh replace {v6} lladdr {mac} dev {link} nud permanent",
            f"route replace {v4}/32 dev {link}",
            f"route replace {v6}/128 dev {link}",
        ]
    _ip(lines)


def connect(
    config: Config,
    tables: Tables,
    name: str,
    number: int,
    owned: Sequence[Address],
    hooked: bool = True,
    translate: bool = True,
) -> Namespace:
    """Make a namespace known to the kernel programs, and only then bring it up.

    Forged packets are reported under the identity of the first address. ``hooked``: the socket
    hooks take its callers for that identity; not for the gateway, which has many. Unless ``translate``,
    they leave service addresses alone, which then lead nowhere.
    """
    pairs = [(address.v4, address.v6) for address in owned]
    namespace = create(config, name, number, pairs)
    try:
        introduce(tables, namespace, owned, hooked, translate)
        up(namespace, pairs)
    except BaseException:
        tables.remove_endpoint(namespace.ifindex, namespace.cookie)
        destroy(config, name, number)
        raise
    return namespace


def introduce(
    tables: Tables,
    namespace: Namespace,
    owned: Sequence[Address],
    hooked: bool = True,
    translate: bool = True,
) -> None:
    """Write who is behind the interface and which addresses are its own."""
    cookie = namespace.cookie if hooked else 0
    tables.set_endpoint(
        namespace.ifindex, owned[0].identity, namespace.mac, namespace.host_mac, cookie, translate
    )
    for address in owned:
        tables.set_address(address.v4, address.identity, namespace.ifindex)
        tables.set_address(address.v6, address.identity, namespace.ifindex)


def set_addresses(
    tables: Tables, namespace: Namespace, owned: Sequence[Address], gone: Sequence[tuple[str, str]] = ()
) -> None:
    """Add addresses to a running namespace (the gateway's) and take others away."""
    for v4, v6 in gone:
        tables.remove_address(v4)
        tables.remove_address(v6)
    link, name = namespace.ifname, full_name_of(namespace)
    if gone:
        outside = [f"route del {v4}/32 dev {link}" for v4, _ in gone]
        outside += [f"route del {v6}/128 dev {link}" for _, v6 in gone]
        _ip(outside)
        _ip([f"addr del {a} dev eth0" for v4, v6 in gone for a in (f"{v4}/32", f"{v6}/128")], name)
    if owned:
        for address in owned:
            tables.set_address(address.v4, address.identity, namespace.ifindex)
            tables.set_address(address.v6, address.identity, namespace.ifindex)
        inside = [f"addr replace {a.v4}/32 dev eth0" for a in owned]
        inside += [f"addr replace {a.v6}/128 dev eth0 nodad" for a in owned]
        _ip(inside, name)
        up(namespace, [(address.v4, address.v6) for address in owned])


def adopt(config: Config, name: str, number: int, *, judged: bool = True) -> Namespace | None:
    """The namespace as it is, with the newest programs if ``judged``; None unless it is whole.

    What a restarted agent finds goes on undisturbed: only the programs are replaced, atomically.
    """
    outside = f"{config.name}v{number}"
    try:
        found = _describe(config, name, outside)
    except (KeyError, OSError, NetworkError):
        return None
    if _links()[outside].get("operstate") not in ("UP", "UNKNOWN"):
        return None
    if judged:
        attach.attach(config, found.ifindex)
    return found


def destroy(config: Config, name: str, number: int) -> None:
    """Remove a namespace, unless it was made before the agent, and its veth; no error if it is gone already."""
    outside = f"{config.name}v{number}"
    subprocess.run(["ip", "link", "del", outside], capture_output=True, check=False)
    if path_of(config, name).exists() and not _made_before(config, name):
        subprocess.run(["ip", "netns", "del", full_name(config, name)], capture_output=True, check=False)


def sweep(tables: Tables) -> None:
    """Forget interfaces that are gone: of an agent that was killed between telling the tables and bringing one
    up, the next makes another."""
    for ifindex in tables.endpoints():
        try:
            socket.if_indextoname(ifindex)
        except OSError:
            tables.remove_endpoint(ifindex)


def listing(config: Config) -> list[str]:
    """Names of this installation's namespaces, without the prefix."""
    prefix = f"{config.name}-"
    if not config.netns_dir.exists():
        return []
    return sorted(n.removeprefix(prefix) for n in os.listdir(config.netns_dir) if n.startswith(prefix))


def remove_all(config: Config) -> None:
    """Remove every namespace and veth of the installation, for purge."""
    for ifname in _links():
        if ifname.startswith(f"{config.name}v"):
            subprocess.run(["ip", "link", "del", ifname], capture_output=True, check=False)
    for name in listing(config):
        subprocess.run(["ip", "netns", "del", full_name(config, name)], capture_output=True, check=False)
    selftest.purge(config)
