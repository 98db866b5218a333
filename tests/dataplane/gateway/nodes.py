"""Two nodes' gateways, each in a namespace of its own with the same platform addresses, and a wire between.

What the host does is the agent's own rules: what a gateway sends to another node leaves with the node's
address, and what comes to the node's port arrives at the gateway's.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dataplane.agent import host
from dataplane.agent.namespaces import run_in
from dataplane.gateway import between
from dataplane.gateway import identity as identity_file
from dataplane.planes import authority, gateways
from tests.dataplane.gateway.stage import Stage, stage

PLANE = 7
#: Node → its number, and its address on the wire.
NODES = {"node1": (11, "192.0.2.1"), "node2": (12, "192.0.2.2")}


@dataclass
class Authority:
    """A control plane's authority, and certificates of it."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        authority.ensure(self.folder)
        self.signer = authority.Authority(self.folder)

    def identity(self, plane: int, node: int) -> tuple[str, str]:
        """(certificate, key) of a node's gateway, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = gateways.certificate(self.signer, request(key), plane, node)
        return certificate, authority.key_pem(key).decode()

    def node(self, node: int) -> tuple[str, str]:
        """(certificate, key) with which a node talks to the control plane."""
        key = ec.generate_private_key(ec.SECP256R1())
        return authority.pem(self.signer.sign_node(request(key), node)), authority.key_pem(key).decode()


def request(key: ec.EllipticCurvePrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


@dataclass
class Nodes:
    """Both nodes; each replica is where ``places`` says."""

    authority: Authority
    stages: dict[str, Stage]
    places: dict[str, str] = field(default_factory=dict)
    peers: list[str] = field(default_factory=list)
    envoys: dict[str, subprocess.Popen] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)

    def application(self, node: str, name: str, index: int) -> list[Any]:
        """A replica on a node; its entry among backends."""
        self.places[name] = node
        return self.stages[node].application(name, index)

    def start(self, node: str) -> None:
        """Let the node's gateway run, with what it was told last."""
        self.envoys[node] = self.stack.enter_context(self.stages[node].envoy())

    def kill(self, node: str) -> None:
        self.envoys[node].kill()
        self.envoys[node].wait()

    def give(self, node: str, identity: tuple[str, str]) -> None:
        """Let the node's gateway have this certificate and key."""
        identity_file.write(self.stages[node].config.gateway_dir / between.IDENTITY, *identity)

    def around(self, node: str) -> dict[str, Any]:
        """What the engine of a node adds to desired state."""
        others = {name: address for name, (_, address) in NODES.items() if name != node}
        pem = self.authority.signer.pem
        return {"own": node, "places": self.places, "nodes": others, "peers": self.peers, "authority": pem}

    def apply(self, document: dict[str, Any], serving: dict[str, set[str] | None] | None = None) -> None:
        """One desired state for both."""
        for node, each in self.stages.items():
            told = {**document, "around": self.around(node)}
            assert each.apply(told, (serving or {}).get(node)) == [], node

    def tls(
        self, identity: tuple[str, str] | None, name: str, folder: Path, *, to: str = "node2"
    ) -> ssl.SSLSocket:
        """A connection of somebody on the wire to a node's port. Raises ``OSError`` where it is refused."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if identity is not None:
            certificate, key = folder / "c.pem", folder / "k.pem"
            certificate.write_text(identity[0])
            key.write_text(identity[1])
            context.load_cert_chain(certificate, key)
        plain = self.wire(to)
        return context.wrap_socket(plain, server_hostname=name)

    def wire(self, to: str) -> socket.socket:
        """A plain connection to a node's port from the other node itself."""
        other = next(node for node in NODES if node != to)
        target = (NODES[to][1], between.PORT)
        return run_in(self.stages[other].path, lambda: socket.create_connection(target, timeout=5))


@contextmanager
def nodes(folder: Path) -> Iterator[Nodes]:
    """Two nodes whose Envoys run and have certificates; they know of nothing yet."""
    with ExitStack() as stack:
        stages = {name: stack.enter_context(stage(name)) for name in NODES}
        made = Nodes(Authority(folder / "authority"), stages, stack=stack)
        made.peers = [gateways.name(PLANE, number) for number, _ in NODES.values()]
        first, second = (each.path.name for each in stages.values())
        _run("ip", "link", "add", "wire", "netns", first, "type", "veth", "peer", "wire", "netns", second)
        for name, each in stages.items():
            number, address = NODES[name]
            _run("ip", "-n", each.path.name, "addr", "add", f"{address}/24", "dev", "wire")
            _run("ip", "-n", each.path.name, "link", "set", "wire", "up")
            rules = host.rules(replace(each.config, engine="kubernetes"))
            _run("ip", "netns", "exec", each.path.name, "nft", "-f", "-", data=rules)
            made.give(name, made.authority.identity(PLANE, number))
            made.start(name)
        yield made


def _run(*command: str, data: str | None = None) -> None:
    subprocess.run(command, input=data, text=True, check=True)


def names(answers: Iterable[Any]) -> set[str]:
    return {answer.asked["name"] for answer in answers}
