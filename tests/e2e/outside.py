"""What lies outside a whole installation: the name server that it is set to ask, and what the names lead to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.dataplane.internet import Internet, internet, servers4
from tests.dataplane.resolver.nameserver import NameServer

PORT, OTHER = 8443, 9443
#: What the caller gets to hear, by what it tried.
_CALL = """
import json, os, socket
found = {{"host": os.environ.get("PARTNER_HOST", ""), "port": os.environ.get("PARTNER_PORT", "")}}
def attempt(key, host, port):
    try:
        with socket.create_connection((host, port), timeout=3) as client:
            found[key] = client.recv(64).decode()
    except OSError as error:
        found[key] = type(error).__name__
attempt("name", "api.example.test", {port})
attempt("other port", "api.example.test", {other})
attempt("address", {first!r}, {port})
attempt("another address", {second!r}, {port})
attempt("inside", "rebinding.example.test", {port})
attempt("another name", "other.test", {port})
print(json.dumps(found))
"""


@dataclass
class Outside:
    internet: Internet
    server: NameServer
    first: str
    second: str

    @property
    def call(self) -> str:
        """A program that tries names, addresses and ports, and prints as JSON what came of it."""
        return _CALL.format(port=PORT, other=OTHER, first=self.first, second=self.second)

    def check(self, found: dict[str, str]) -> None:
        """What a caller must have found that declared ``api.example.test`` and ``rebinding.example.test``."""
        assert found == {
            "host": "api.example.test",
            "port": str(PORT),
            "name": self.first,
            "other port": found["other port"],
            "address": self.first,
            "another address": found["another address"],
            "inside": "gaierror",
            "another name": "gaierror",
        }
        assert found["other port"] != self.first
        assert found["another address"] != self.second


@contextmanager
def outside(net: int) -> Iterator[Outside]:
    """The outer world of the installation with this number."""
    asked, first, second, _ = servers4(net)
    with internet(net) as world:
        for address in (first, second):
            for port in (PORT, OTHER):
                world.listen(address, port)
        server = NameServer().open(asked, 53, world.path)
        server.zone = {
            "api.example.test": (10, ["=edge.cdn.test"]),
            "edge.cdn.test": (10, [first]),
            "rebinding.example.test": (60, ["169.254.169.254", "10.0.0.1"]),
            "other.test": (60, [second]),
        }
        try:
            yield Outside(world, server, first, second)
        finally:
            server.close()
