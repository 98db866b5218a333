"""What interfaces are to the agent, and the commands by which it reads and changes them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: Network settings inside the namespace of a workload, whoever made it.
INSIDE = {
    "net/ipv4/ip_unprivileged_port_start": "0",
    "net/ipv4/conf/all/accept_redirects": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/all/accept_source_route": "0",
    "net/ipv6/conf/all/accept_ra": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv6/conf/all/accept_redirects": "0",
    "net/ipv6/conf/all/accept_source_route": "0",
    "net/ipv6/conf/default/dad_transmits": "0",
    "net/ipv6/conf/default/router_solicitations": "0",
}


@dataclass(frozen=True)
class Address:
    """A pair of addresses and the identity that it stands for."""

    v4: str
    v6: str
    identity: int


@dataclass(frozen=True)
class Namespace:
    """A namespace with its veth. ``mac`` is the workload's, ``host_mac`` that of the host's side."""

    name: str
    path: Path
    ifname: str
    ifindex: int
    cookie: int
    mac: bytes
    host_mac: bytes


class NetworkError(RuntimeError):
    """A command on links or addresses failed; the message is the command's."""


def ip(lines: Sequence[str], namespace: str | None = None) -> None:
    """Run ``ip`` commands as one batch; nothing is passed to a shell."""
    command = ["ip", *(["-n", namespace] if namespace else []), "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines) + "\n", text=True, capture_output=True, check=False)
    if done.returncode:
        raise NetworkError(done.stderr.strip() or f"ip failed with {done.returncode}")


def links(namespace: str | None = None) -> dict[str, dict]:
    """Veths by name, as ``ip`` describes them."""
    command = ["ip", *(["-n", namespace] if namespace else []), "-j", "link", "show", "type", "veth"]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        raise NetworkError(done.stderr.strip())
    return {link["ifname"]: link for link in json.loads(done.stdout or "[]")}


def mac(link: dict) -> bytes:
    """Hardware address of a link as ``links`` gives it."""
    return bytes.fromhex(link["address"].replace(":", ""))
