"""Puts the tc programs on interfaces, and takes them off again.

An installation's own veths are known by their names. On interfaces that others made (pods', and those to
other nodes) the filters carry the installation's name, by which they are found again; what others put
there stays as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from bpf import layout
from bpf import sys as bpf
from bpf.loader import pins
from infra.config import Config

#: clsact's two sides, seen from the host: what comes from the workload, what goes to it.
_INGRESS, _EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
_WORKLOAD = ((_INGRESS, "from_workload"), (_EGRESS, "to_workload"))
_UNDERLAY = ((_EGRESS, "to_underlay"),)
_PRIORITY, _HANDLE = 1, 1
#: The name that an installation's filters have where others made the interface; its number is in it.
_NAMED = re.compile(r"cy([0-9]+):")
_ALL = 0x0003  # ETH_P_ALL


class NotOurs(RuntimeError):
    """The interface isn't a veth of this installation, or others' filters are in the way; it isn't touched."""


def _kind(link: Any) -> str:
    details = link.get_attr("IFLA_LINKINFO")
    return (details.get_attr("IFLA_INFO_KIND") if details else None) or "physical"


def _is_own(config: Config, link: Any) -> bool:
    return _kind(link) == "veth" and link.get_attr("IFLA_IFNAME").startswith(f"{config.name}v")


def _is_known_foreign(config: Config, ifindex: int) -> bool:
    """Whether the tables say that a CNI made it and that it is a workload's."""
    try:
        table = bpf.Map(pins(config) / "maps" / "endpoints", layout.U32.size, layout.ENDPOINT.size)
    except OSError:
        return False
    try:
        known = table.get(layout.U32.pack(ifindex))
    finally:
        table.close()
    return known is not None and bool(layout.ENDPOINT.unpack(known)[1] & layout.ENDPOINT_FOREIGN)


def attach(config: Config, ifindex: int) -> None:
    """Attach both programs to a workload's interface, replacing earlier versions in place."""
    with IPRoute() as ip:
        (link,) = ip.get_links(ifindex)
        if _is_own(config, link):
            _put(ip, config, ifindex, _WORKLOAD, "")
        elif _is_known_foreign(config, ifindex):
            _put(ip, config, ifindex, _WORKLOAD, _prefix(config))
        else:
            name = link.get_attr("IFLA_IFNAME")
            raise NotOurs(f"interface {name} ({_kind(link)}) isn't a veth of this installation")


def attach_foreign(config: Config, ifindex: int) -> None:
    """Attach both programs to the node's end of a veth that a CNI made: from now on it is closed until
    the tables know it. Raises ``NotOurs`` if it isn't a veth, or if others' filters judge there first."""
    with IPRoute() as ip:
        (link,) = ip.get_links(ifindex)
        if _kind(link) != "veth":
            raise NotOurs(f"interface {link.get_attr('IFLA_IFNAME')} ({_kind(link)}) isn't a veth")
        _put(ip, config, ifindex, _WORKLOAD, _prefix(config))


def is_attached(config: Config, ifindex: int) -> bool:
    """Whether some version of both programs is on an interface that a CNI made."""
    with IPRoute() as ip:
        return _has_clsact(ip, ifindex) and all(
            any(name == _prefix(config) + program for _, _, name in _filters(ip, ifindex, parent))
            for parent, program in _WORKLOAD
        )


def attach_underlay(config: Config, ifindex: int) -> None:
    """Guard an interface to other nodes: nobody's packets leave by it with a workload's address but its own."""
    with IPRoute() as ip:
        _put(ip, config, ifindex, _UNDERLAY, _prefix(config))


def detach_underlay(config: Config, ifindex: int) -> None:
    """Take the guard off; no error if the interface is gone."""
    with IPRoute() as ip:
        for at, parent, program in list(_elsewhere(ip, config)):
            if at == ifindex and program == "to_underlay":
                _take_off(ip, at, parent)


def _prefix(config: Config) -> str:
    return f"{config.name}:"


def _filters(ip: IPRoute, ifindex: int, parent: int) -> Iterator[tuple[int, int, str]]:
    """(priority, handle, name) of the filters on one side; "" for what isn't a program."""
    for found in ip.get_filters(index=ifindex, parent=parent):
        if not found["handle"]:
            continue  # the chain's head
        options = found.get_attr("TCA_OPTIONS") if found.get_attr("TCA_KIND") == "bpf" else None
        yield found["info"] >> 16, found["handle"], (options and options.get_attr("TCA_BPF_NAME")) or ""


def _has_clsact(ip: IPRoute, ifindex: int) -> bool:
    return any(q.get_attr("TCA_KIND") == "clsact" for q in ip.get_qdiscs(index=ifindex))


def _abandoned(config: Config, name: str) -> bool:
    """Whether a filter is that of an installation whose pins are gone: nobody could change or remove it."""
    found = _NAMED.match(name)
    return found is not None and not _pins_of(config, found[1]).exists()


def _pins_of(config: Config, net: str) -> Path:
    """Where the installation with another number pins what it has."""
    return config.bpffs.with_name(config.bpffs.name.removesuffix(str(config.net)) + net)


def _put(
    ip: IPRoute, config: Config, ifindex: int, filters: tuple[tuple[int, str], ...], prefix: str
) -> None:
    if not _has_clsact(ip, ifindex):
        ip.tc("add", "clsact", ifindex)
    elif prefix:
        for parent, program in filters:
            for priority, handle, name in list(_filters(ip, ifindex, parent)):
                if priority > _PRIORITY or name == prefix + program:
                    continue
                if not _abandoned(config, name):
                    raise NotOurs(f"interface {ifindex} has a filter of somebody else's that judges first")
                ip.tc("del-filter", "bpf", ifindex, handle, parent=parent, prio=priority, protocol=_ALL)
    for parent, program in filters:
        descriptor = bpf.object_get(pins(config) / "programs" / program)
        try:
            ip.tc(
                "replace-filter",
                "bpf",
                ifindex,
                _HANDLE,
                fd=descriptor,
                name=prefix + program,
                parent=parent,
                prio=_PRIORITY,
                protocol=_ALL,
                direct_action=True,
            )
        finally:
            os.close(descriptor)


def _elsewhere(ip: IPRoute, config: Config) -> Iterator[tuple[int, int, str]]:
    """(interface, side, program) of this installation's filters on interfaces that others made."""
    for index in sorted({q["index"] for q in ip.get_qdiscs() if q.get_attr("TCA_KIND") == "clsact"}):
        for parent in (_INGRESS, _EGRESS):
            for _, _, name in _filters(ip, index, parent):
                if name.startswith(_prefix(config)):
                    yield index, parent, name.removeprefix(_prefix(config))


def _take_off(ip: IPRoute, ifindex: int, parent: int) -> None:
    """Remove our filter, and what holds filters if there are no others."""
    ip.tc("del-filter", "bpf", ifindex, _HANDLE, parent=parent, prio=_PRIORITY, protocol=_ALL)
    if not any(True for side in (_INGRESS, _EGRESS) for _ in _filters(ip, ifindex, side)):
        ip.tc("del", "clsact", ifindex)


def renew(config: Config) -> None:
    """Put this layout's programs in place of earlier ones, wherever this installation has any."""
    with IPRoute() as ip:
        for link in ip.get_links():
            if link.get_attr("IFLA_IFNAME").startswith(f"{config.name}v"):
                attach(config, link["index"])
        for ifindex, parent, program in list(_elsewhere(ip, config)):
            _put(ip, config, ifindex, ((parent, program),), _prefix(config))


def detach_all(config: Config) -> None:
    """Remove the programs from every interface of this installation, and from others' where it has put them."""
    with IPRoute() as ip:
        for link in ip.get_links():
            if not link.get_attr("IFLA_IFNAME").startswith(f"{config.name}v"):
                continue
            if _has_clsact(ip, link["index"]):
                ip.tc("del", "clsact", link["index"])
        for ifindex, parent, _ in list(_elsewhere(ip, config)):
            _take_off(ip, ifindex, parent)
