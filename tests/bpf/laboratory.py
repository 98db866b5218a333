"""Workloads made of nothing but a namespace and some sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bpf import layout
from bpf.reasons import REASONS
from bpf.tables import ALLOW, DENY, EGRESS, INGRESS, Policy, Service, Tables
from dataplane.agent import network
from dataplane.agent.namespaces import run_in
from infra.config import Config

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
#: A silent drop shows as a timeout; loopback-fast paths answer in well under this.
PATIENCE = 0.35
#: So long silence is listened to when no program has refused anything meanwhile: the machine may be busy.
_LONG = 2.5


@dataclass
class Member:
    """A workload: ``replies`` names it in what its sockets answer."""

    name: str
    identity: int
    v4: str
    v6: str
    service4: str
    service6: str
    namespace: network.Namespace
    sockets: list[socket.socket] = field(default_factory=list)
    #: How many packets the programs have refused so far, if somebody counts them.
    refused: Callable[[], int] | None = None

    def address(self, family: int, by_service: bool = False) -> str:
        if by_service:
            return self.service4 if family == 4 else self.service6
        return self.v4 if family == 4 else self.v6

    def listen(self, protocol: int, port: int) -> None:
        """Answer everybody with the workload's name, over both families."""

        def open_socket() -> socket.socket:
            kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
            server = socket.socket(socket.AF_INET6, kind)
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("::", port))
            if protocol == TCP:
                server.listen(64)
            return server

        server = run_in(self.namespace.path, open_socket)
        self.sockets.append(server)
        threading.Thread(target=self._serve, args=(server, protocol), daemon=True).start()

    def _serve(self, server: socket.socket, protocol: int) -> None:
        try:
            while True:
                if protocol == UDP:
                    _, peer = server.recvfrom(2048)
                    # Who asked may have gone.
                    with contextlib.suppress(OSError):
                        server.sendto(self.name.encode(), peer)
                    continue
                connection, _ = server.accept()
                threading.Thread(target=self._echo, args=(connection,), daemon=True).start()
        except OSError:
            return

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.sendall(self.name.encode())
                while data := connection.recv(2048):
                    connection.sendall(data)
            except OSError:
                return

    def call(self, address: str, port: int, protocol: int = TCP, patience: float = PATIENCE) -> str:
        """Who answered, or "" if nobody did. Silence without a refusal is listened to for longer."""

        def attempt(seconds: float) -> str | None:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
            with socket.socket(family, kind) as client:
                client.settimeout(seconds)
                try:
                    if protocol == UDP:
                        client.sendto(b"who", (address, port))
                        answer, peer = client.recvfrom(64)
                        if peer[0] != address or peer[1] != port:
                            return f"answer from {peer[0]}"
                        return answer.decode()
                    client.connect((address, port))
                    return client.recv(64).decode()
                except TimeoutError:
                    return None
                except OSError:
                    return ""

        before = self.refused() if self.refused else 0
        answer = run_in(self.namespace.path, lambda: attempt(patience))
        if answer is None and self.refused and self.refused() == before:
            answer = run_in(self.namespace.path, lambda: attempt(_LONG))
        return answer or ""

    def connected(self, address: str, port: int) -> socket.socket:
        """An open TCP connection; the greeting has been read."""

        def attempt() -> socket.socket:
            client = socket.create_connection((address, port), timeout=2)
            client.recv(64)
            return client

        return run_in(self.namespace.path, attempt)

    def frame(self, packet: bytes) -> None:
        """Send a raw Ethernet frame, as root inside could if it had the capability."""

        def send() -> None:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind(("eth0", 0))
                raw.send(packet)

        run_in(self.namespace.path, send)


class Laboratory:
    """Namespaces on the real programs with policy by hand."""

    def __init__(self, config: Config, tables: Tables) -> None:
        self.config, self.tables = config, tables
        self.members: dict[str, Member] = {}

    def workload(self, name: str, identity: int, index: int) -> Member:
        config = self.config
        address = network.Address(str(config.workloads4[index]), str(config.workloads6[index]), identity)
        namespace = network.connect(config, self.tables, name, index, [address])
        member = Member(
            name,
            identity,
            address.v4,
            address.v6,
            str(config.services4[index]),
            str(config.services6[index]),
            namespace,
            refused=self._refused,
        )
        self.members[name] = member
        self.tables.apply_identity(identity, 1, [])
        return member

    def allow(self, *edges: tuple[str, str, int, int], rule: int = 1000) -> None:
        """Put exactly these (consumer, provider, port, protocol) in force for all members."""
        policy: dict[int, list[Policy]] = {member.identity: [] for member in self.members.values()}
        for consumer, provider, port, protocol in edges:
            source, target = self.members[consumer].identity, self.members[provider].identity
            policy[source].append(Policy(target, port, protocol, EGRESS, ALLOW, rule))
            policy[target].append(Policy(source, port, protocol, INGRESS, ALLOW, rule))
        for identity, entries in policy.items():
            self.tables.apply_identity(identity, 1, entries)

    def serve(self, *ports: tuple[str, int, int]) -> None:
        """Services of (provider, port, protocol): the same port at the service address."""
        services = []
        for name, port, protocol in ports:
            member = self.members[name]
            for service, address in ((member.service4, member.v4), (member.service6, member.v6)):
                services.append(Service(0, service, port, protocol, ((address, port),)))
        self.tables.set_services(services)

    def _refused(self) -> int:
        """Packets in the programs' counts of what was refused; what kernels say by themselves left out."""
        total = 0
        for key, value in self.tables._maps["edges"].items():
            *_, verdict, reason, _ = layout.EDGE.unpack(key)
            if verdict == DENY and REASONS[reason].code not in ("NEIGHBOUR", "MULTICAST"):
                total += layout.EDGE_COUNT.unpack(value)[0]
        return total

    def denials(self, wait: float = 0.0) -> set[tuple[str, int]]:
        """(reason, port) of the denials since the last time; kernel housekeeping left out."""
        time.sleep(wait)
        return {
            (f.reason, f.port) for f in self.tables.drain_flows() if not f.allowed and f.reason != "NEIGHBOUR"
        }

    def close(self) -> None:
        for name, member in self.members.items():
            for opened in member.sockets:
                opened.close()
            self.tables.remove_endpoint(member.namespace.ifindex, member.namespace.cookie)
            self.tables.remove_identity(member.identity)
            network.destroy(self.config, name, int(member.namespace.ifname.partition("v")[2]))
        self.tables.set_services([])
        self.tables.set_floor([])
