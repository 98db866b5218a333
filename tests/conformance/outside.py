"""The world outside: a namespace of its own behind the node, with documentation addresses."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from dataplane.agent import host
from dataplane.agent.namespaces import run_in
from infra.config import Config
from tests.conformance.world import FLOORED, NODE, OUTSIDE, OUTSIDE_PORTS
from tests.links import await_up


class Outside:
    """Its servers' sockets are for the engine to answer on; ``node_sockets`` are those of the node."""

    def __init__(self, config: Config) -> None:
        # Not of the form of the platform's own interfaces: it is an uplink to them.
        self.name, self._link = f"cyo{config.net}", f"cyo{config.net}"
        self.close()
        self.path = Path("/run/netns") / self.name
        v4, v6 = NODE
        _ip(
            f"netns add {self.name}",
            f"link add {self._link} type veth peer name eth0 netns {self.name}",
            f"addr add {v4}/32 dev {self._link}",
            f"addr add {v6}/128 dev {self._link} nodad",
            f"link set {self._link} up",
        )
        inside = [
            "link set lo up",
            "link set eth0 up",
            f"route add {v4} dev eth0",
            f"route add {v6} dev eth0",
        ]
        for address in (*OUTSIDE, *FLOORED):
            whole = f"{address}/128" if ":" in address else f"{address}/32"
            inside.append(f"addr add {whole} dev eth0{' nodad' if ':' in address else ''}")
        inside += [
            f"route add default via {v4} dev eth0 onlink",
            f"route add default via {v6} dev eth0 onlink",
        ]
        _ip(*inside, namespace=self.name)
        _ip(*(f"route add {address} dev {self._link}" for address in (*OUTSIDE, *FLOORED)))
        await_up(self._link)
        await_up("eth0", self.name)
        host.ensure_host(config)
        # One for each address: an answer to a datagram comes from where it went.
        everything = [*OUTSIDE, *FLOORED]
        self.sockets = run_in(self.path, lambda: serve_all(everything))
        self.node_sockets = serve_all(list(NODE))

    def close(self) -> None:
        """Also what a run that was killed left behind."""
        for opened in (*getattr(self, "sockets", ()), *getattr(self, "node_sockets", ())):
            opened.close()
        for command in (["link", "del", self._link], ["netns", "del", self.name]):
            subprocess.run(["ip", *command], capture_output=True, check=False)


def _ip(*lines: str, namespace: str = "") -> None:
    command = ["ip", *(["-n", namespace] if namespace else []), "-batch", "-"]
    subprocess.run(command, input="\n".join(lines) + "\n", text=True, check=True, capture_output=True)


def serve_all(addresses: list[str]) -> list[socket.socket]:
    """Sockets of every kind that is asked for, on each of the addresses, in the calling thread's namespace."""
    return [_serve(address, number, word) for address in addresses for number, word in OUTSIDE_PORTS]


def _serve(address: str, number: int, word: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM if word == "tcp" else socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, number))
    if word == "tcp":
        server.listen(512)
    server.setblocking(False)
    return server
