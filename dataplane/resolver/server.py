"""DNS over UDP and TCP for workloads. Answers from the table and asks nobody else.

The asker is known by its address, which the programs on its veth have made unforgeable. A name that
it may not reach is answered like one that doesn't exist.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections import Counter

from dnslib import AAAA, EDNS0, QTYPE, RCODE, RR, A, DNSHeader, DNSRecord, EDNSOption
from dnslib.dns import DNSError

from dataplane.resolver.denials import Denials
from dataplane.resolver.table import Table

log = logging.getLogger("cytoplane.resolver")
TTL = 5
#: RFC 8914: blocked (15) and prohibited (18).
_PROHIBITED = 18
_LARGEST_UDP = 1232
_TCP_IDLE = 10.0
REPORT_SECONDS = 1.0
#: Connections in all and of one asker, which must not take all of them.
_MOST_TCP, _MOST_TCP_EACH = 256, 16


def answer(table: Table, asker: str, data: bytes, denials: Denials | None = None) -> bytes | None:
    """The response to a query; None to what isn't one. Names in vain are noted in ``denials``."""
    try:
        query = DNSRecord.parse(data)
    except (DNSError, struct.error, ValueError, IndexError, UnicodeError):
        return None
    if query.header.qr or len(query.questions) != 1:
        return None
    reply = DNSRecord(
        DNSHeader(id=query.header.id, qr=1, aa=1, ra=1, rd=query.header.rd, opcode=query.header.opcode),
        q=query.q,
    )
    if query.header.opcode:
        reply.header.rcode = RCODE.NOTIMP
        return reply.pack()
    wants_edns = any(record.rtype == QTYPE.OPT for record in query.ar)
    found = table.lookup(asker, str(query.q.qname))
    reason = ""
    if found is None:
        reply.header.rcode, reason = RCODE.REFUSED, "unknown asker"
    elif not found:
        name = table.plain(str(query.q.qname))
        # Asking what an address is called, as servers do at their start, is no attempt to call anybody.
        if denials is not None and not name.endswith(".arpa"):
            denials.note(table.identity(asker), name)
        reply.header.rcode, reason = RCODE.NXDOMAIN, "no declared connection reaches this name"
    else:
        for address in found:
            v6 = ":" in address
            if query.q.qtype in (QTYPE.ANY, QTYPE.AAAA if v6 else QTYPE.A):
                data_type = AAAA(address) if v6 else A(address)
                kind = QTYPE.AAAA if v6 else QTYPE.A
                reply.add_answer(RR(query.q.qname, kind, rdata=data_type, ttl=TTL))
    if wants_edns:
        options = [EDNSOption(15, struct.pack("!H", _PROHIBITED) + reason.encode())] if reason else []
        reply.add_ar(EDNS0(udp_len=_LARGEST_UDP, opts=options))
    return reply.pack()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, table: Table, denials: Denials) -> None:
        self._table, self._denials = table, denials

    def connection_made(self, transport) -> None:  # type: ignore[no-untyped-def]
        self._transport = transport

    def datagram_received(self, data: bytes, addr) -> None:  # type: ignore[no-untyped-def]
        self._table.refresh()
        response = answer(self._table, addr[0], data, self._denials)
        if response is not None:
            self._transport.sendto(response, addr)


async def serve(table: Table, denials: Denials, addresses: list[str], port: int = 53) -> None:
    """Answer on all addresses until cancelled."""
    loop = asyncio.get_running_loop()
    connected: Counter[str] = Counter()

    async def tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asker = writer.get_extra_info("peername")[0]
        if connected.total() >= _MOST_TCP or connected[asker] >= _MOST_TCP_EACH:
            writer.close()
            return
        connected[asker] += 1
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, TimeoutError, OSError):
                while True:
                    size = await asyncio.wait_for(reader.readexactly(2), _TCP_IDLE)
                    data = await asyncio.wait_for(reader.readexactly(int.from_bytes(size)), _TCP_IDLE)
                    table.refresh()
                    response = answer(table, asker, data, denials)
                    if response is None:
                        break
                    writer.write(struct.pack("!H", len(response)) + response)
                    await asyncio.wait_for(writer.drain(), _TCP_IDLE)
        finally:
            connected[asker] -= 1
            if not connected[asker]:
                del connected[asker]
            writer.close()

    for address in addresses:
        await loop.create_datagram_endpoint(lambda: _Udp(table, denials), local_addr=(address, port))
        await asyncio.start_server(tcp, address, port)
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        denials.send()
