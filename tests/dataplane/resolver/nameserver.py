"""A real name server for tests: answers from a zone that the test changes, and can misbehave on demand."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dnslib import AAAA, CNAME, QTYPE, RCODE, RR, SOA, A, DNSLabel, DNSRecord

from dataplane.agent.namespaces import run_in

#: What a name has: addresses, or ("CNAME", target); seconds.
Zone = dict[str, tuple[int, list[str]]]


@dataclass
class Asked:
    """A question as it came."""

    name: str
    kind: int
    id: int
    port: int
    tcp: bool
    edns: bool


@dataclass
class NameServer:
    """Names → (ttl, data); data are addresses or ``=target`` of an alias. ``spoil`` changes answers over UDP."""

    zone: Zone = field(default_factory=dict)
    #: Whether answers hold the whole chain, as those of servers that ask others do.
    recursive: bool = True
    spoil: Callable[[DNSRecord, DNSRecord], bytes | None] | None = None
    asked: list[Asked] = field(default_factory=list)
    address: str = "127.0.0.1"
    port: int = 0

    def open(self, address: str = "127.0.0.1", port: int = 0, namespace: Path | None = None) -> NameServer:
        """Answer at an address (of a namespace), UDP and TCP."""

        def sockets() -> tuple[socket.socket, socket.socket]:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            tcp = socket.socket(family, socket.SOCK_STREAM)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((address, port))
            tcp.listen(16)
            udp = socket.socket(family, socket.SOCK_DGRAM)
            udp.bind((address, tcp.getsockname()[1]))
            return udp, tcp

        udp, tcp = run_in(namespace, sockets) if namespace else sockets()
        self._sockets = [udp, tcp]
        self.address, self.port = address, tcp.getsockname()[1]
        threading.Thread(target=self._udp, args=(udp,), daemon=True).start()
        threading.Thread(target=self._tcp, args=(tcp,), daemon=True).start()
        return self

    def close(self) -> None:
        for each in self._sockets:
            # Whoever waits in it is woken.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def names(self) -> list[str]:
        """Names that were asked for, as they are meant."""
        return [each.name.lower() for each in self.asked]

    def _udp(self, server: socket.socket) -> None:
        while True:
            try:
                data, peer = server.recvfrom(2048)
            except OSError:
                return
            if not data:
                return
            query = DNSRecord.parse(data)
            reply = self._reply(query, peer[1], tcp=False)
            answer = self.spoil(query, reply) if self.spoil else bytes(reply.pack())
            if answer is not None:
                server.sendto(answer, peer)

    def _tcp(self, server: socket.socket) -> None:
        while True:
            try:
                client, peer = server.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError, struct.error):
                size = struct.unpack("!H", client.recv(2))[0]
                reply = bytes(self._reply(DNSRecord.parse(client.recv(size)), peer[1], tcp=True).pack())
                client.sendall(struct.pack("!H", len(reply)) + reply)

    def _reply(self, query: DNSRecord, port: int, tcp: bool) -> DNSRecord:
        edns = any(row.rtype == QTYPE.OPT for row in query.ar)
        self.asked.append(
            Asked(str(query.q.qname).rstrip("."), query.q.qtype, query.header.id, port, tcp, edns)
        )
        reply = query.reply()
        name = str(query.q.qname).rstrip(".").lower()
        owner: DNSLabel | str = query.q.qname
        for _ in range(30):
            if name not in self.zone:
                if owner is query.q.qname:
                    reply.header.rcode = RCODE.NXDOMAIN
                break
            ttl, values = self.zone[name]
            target = next((value[1:] for value in values if value.startswith("=")), "")
            if not target:
                for value in values:
                    kind = QTYPE.AAAA if ":" in value else QTYPE.A
                    if kind == query.q.qtype:
                        rdata = AAAA(value) if kind == QTYPE.AAAA else A(value)
                        reply.add_answer(RR(owner, kind, rdata=rdata, ttl=ttl))
                break
            reply.add_answer(RR(owner, QTYPE.CNAME, rdata=CNAME(target), ttl=ttl))
            owner = name = target
            if not self.recursive:
                return reply
        if not any(row.rtype == query.q.qtype for row in reply.rr):
            times = (1, 3600, 600, 86400, 60)
            reply.add_auth(RR("test", QTYPE.SOA, rdata=SOA("ns.test", "hostmaster.test", times), ttl=60))
        return reply
