"""Puts the tc programs on interfaces that the platform made, and takes them off again."""

from __future__ import annotations

import os

from pyroute2 import IPRoute

from bpf import sys as bpf
from bpf.loader import pins
from infra.config import Config

#: clsact's two sides, seen from the host: what comes from the workload, what goes to it.
_INGRESS, _EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
_FILTERS = ((_INGRESS, "from_workload"), (_EGRESS, "to_workload"))
_PRIORITY, _HANDLE = 1, 1


class NotOurs(RuntimeError):
    """The interface isn't a veth of this installation; it isn't touched."""


def _veth(ip: IPRoute, config: Config, ifindex: int) -> str:
    (link,) = ip.get_links(ifindex)
    name = link.get_attr("IFLA_IFNAME")
    details = link.get_attr("IFLA_LINKINFO")
    kind = details.get_attr("IFLA_INFO_KIND") if details else None
    if kind != "veth" or not name.startswith(f"{config.name}v"):
        raise NotOurs(f"interface {name} ({kind or 'physical'}) isn't a veth of this installation")
    return name


def attach(config: Config, ifindex: int) -> None:
    """Attach both programs, replacing earlier versions in place."""
    with IPRoute() as ip:
        name = _veth(ip, config, ifindex)
        if not any(q.get_attr("TCA_KIND") == "clsact" for q in ip.get_qdiscs(index=ifindex)):
            ip.tc("add", "clsact", ifindex)
        for parent, program in _FILTERS:
            descriptor = bpf.object_get(pins(config) / "programs" / program)
            try:
                ip.tc(
                    "replace-filter",
                    "bpf",
                    ifindex,
                    _HANDLE,
                    fd=descriptor,
                    name=program,
                    parent=parent,
                    prio=_PRIORITY,
                    protocol=0x0003,  # ETH_P_ALL
                    direct_action=True,
                )
            finally:
                os.close(descriptor)
        del name


def attach_foreign(config: Config, ifindex: int) -> None:
    raise NotImplementedError


def attach_underlay(config: Config, ifindex: int) -> None:
    raise NotImplementedError


def detach_underlay(config: Config, ifindex: int) -> None:
    raise NotImplementedError


def detach_all(config: Config) -> None:
    """Remove the programs from every interface of this installation."""
    with IPRoute() as ip:
        for link in ip.get_links():
            if not link.get_attr("IFLA_IFNAME").startswith(f"{config.name}v"):
                continue
            index = link["index"]
            if any(q.get_attr("TCA_KIND") == "clsact" for q in ip.get_qdiscs(index=index)):
                ip.tc("del", "clsact", index)
