"""What lies outside a test's platform: a namespace with public addresses that only this machine routes."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dataplane.agent.namespaces import run_in
from tests.links import await_up


def servers4(net: int) -> list[str]:
    """Addresses there, the name server's first. RFC 5737: nobody has them; each net has its own."""
    return [f"198.51.100.{16 * net + n}" for n in range(4)]


def servers6(net: int) -> list[str]:
    """The same of RFC 3849."""
    return [f"2001:db8:51:{net:x}::{n}" for n in range(1, 5)]


def _ip(*arguments: str, namespace: str = "") -> None:
    prefix = ["ip", "-n", namespace] if namespace else ["ip"]
    subprocess.run([*prefix, *arguments], check=True, capture_output=True)


class Internet:
    """Addresses that answer with what they are."""

    def __init__(self, net: int) -> None:
        self.name, self._link = f"internet-{net}", f"inet{net}"
        self.path = Path("/run/netns") / self.name
        self._sockets: list[socket.socket] = []
        #: A neighbour of the node in a network that is floor, as an operator's own name server is.
        self.private = f"10.200.{net}.53"
        self.servers = [*servers4(net), *servers6(net), self.private]
        self.near4, self.near6 = f"203.0.113.{2 * net + 1}", f"2001:db8:113::{net:x}"

    def open(self) -> None:
        self.close()
        _ip("netns", "add", self.name)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        for address in (f"{self.near4}/32", f"{self.near6}/128"):
            _ip("addr", "add", address, "dev", self._link, *(["nodad"] if ":" in address else []))
        _ip("link", "set", self._link, "up")
        _ip("link", "set", "lo", "up", namespace=self.name)
        _ip("link", "set", "eth0", "up", namespace=self.name)
        for address in self.servers:
            whole = f"{address}/{128 if ':' in address else 32}"
            _ip(
                "addr",
                "add",
                whole,
                "dev",
                "eth0",
                *(["nodad"] if ":" in address else []),
                namespace=self.name,
            )
            _ip("route", "add", whole, "dev", self._link)
        await_up(self._link)
        await_up("eth0", self.name)
        # Back only to what the node masquerades as.
        _ip("route", "add", f"{self.near4}/32", "dev", "eth0", namespace=self.name)
        _ip("route", "add", f"{self.near6}/128", "dev", "eth0", namespace=self.name)

    def returns(self, network: str) -> None:
        """Answers to this network of the machine's find back: nobody masquerades there."""
        _ip("route", "replace", network, "via", self.near4, "dev", "eth0", namespace=self.name)

    def listen(self, address: str, port: int, protocol: int = socket.SOCK_STREAM) -> None:
        """Answer with the address, and with whatever is sent over TCP after that."""

        def opened() -> socket.socket:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            server = socket.socket(family, protocol)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((address, port))
            if protocol == socket.SOCK_STREAM:
                server.listen(16)
            return server

        server = run_in(self.path, opened)
        self._sockets.append(server)
        threading.Thread(target=_serve, args=(server, address, protocol), daemon=True).start()

    def close(self) -> None:
        for opened in self._sockets:
            opened.close()
        subprocess.run(["ip", "link", "del", self._link], capture_output=True, check=False)
        if self.path.exists():
            subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)


def _serve(server: socket.socket, address: str, protocol: int) -> None:
    try:
        while True:
            if protocol == socket.SOCK_DGRAM:
                _, peer = server.recvfrom(2048)
                if peer is None:
                    return  # Closed while it received: there is nobody to answer.
                server.sendto(address.encode(), peer)
                continue
            client, _ = server.accept()
            threading.Thread(target=_echo, args=(client, address), daemon=True).start()
    except OSError:
        return


def _echo(client: socket.socket, address: str) -> None:
    with client:
        try:
            client.sendall(address.encode())
            while data := client.recv(2048):
                client.sendall(data)
        except OSError:
            return


@contextmanager
def internet(net: int) -> Iterator[Internet]:
    made = Internet(net)
    made.open()
    try:
        yield made
    finally:
        made.close()
