"""Asking upstream servers: each question from a port of its own, with an id and a spelling that can't be guessed.

An answer counts only if it comes from the server that was asked, to that port, with that id and the
question spelled as it was sent (draft-vixie-dnsext-dns0x20). Whatever else comes is a reason to ask again
over TCP, where nobody can slip in an answer; so is an answer that didn't fit.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import struct
import time
from collections.abc import Sequence

from dnslib import EDNS0, RCODE, DNSHeader, DNSLabel, DNSQuestion, DNSRecord
from dnslib.dns import DNSError

PORT = 53
#: Seconds for one question over UDP, over TCP, and for all of a look-up.
UDP_SECONDS, TCP_SECONDS, ALL_SECONDS = 1.2, 2.0, 4.0
ROUNDS = 2
#: A server that gave no answer comes last for so long.
_REST_SECONDS = 10.0
_SIZE = 1232
#: Octets of an answer and records in it at most, several times what is taken of one: everybody waits while it is
#: read, and who owns a name decides what is in it.
LARGEST, MOST_RECORDS = 8192, 128
_COUNTS = struct.Struct("!6x3H")
_ENDS = (RCODE.NOERROR, RCODE.NXDOMAIN)
#: All that damaged messages make dnslib raise.
BROKEN = (DNSError, struct.error, ValueError, IndexError, KeyError, TypeError, AttributeError, UnicodeError)


class NoAnswer(Exception):
    """No server gave a usable answer; the message says what they did."""


class _Doubtful(Exception):
    """Over UDP something came that isn't the answer, or not all of it."""


class Upstream:
    """The servers in use. One for a process."""

    def __init__(self, port: int = PORT) -> None:
        self.servers: Sequence[str] = ()
        self._port = port
        self._resting: dict[str, float] = {}
        #: When the last question was answered and when the last one wasn't; monotonic.
        self.answered_at = self.failed_at = 0.0

    async def ask(self, name: str, kind: int) -> DNSRecord:
        """The answer (NOERROR or NXDOMAIN) to one question. Raises ``NoAnswer``."""
        if not self.servers:
            raise NoAnswer("no upstream server is known")
        said: dict[str, str] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ALL_SECONDS):
                for _ in range(ROUNDS):
                    for server in self._ordered():
                        record = await self._try(server, name, kind, said)
                        if record is not None:
                            self.answered_at = time.monotonic()
                            return record
        self.failed_at = time.monotonic()
        raise NoAnswer("; ".join(f"{server} {what}" for server, what in said.items()) or "no answer in time")

    def _ordered(self) -> list[str]:
        now = time.monotonic()
        self._resting = {s: until for s, until in self._resting.items() if until > now and s in self.servers}
        return sorted(self.servers, key=lambda server: server in self._resting)

    async def _try(self, server: str, name: str, kind: int, said: dict[str, str]) -> DNSRecord | None:
        try:
            record = await self._exchange(server, name, kind)
        except TimeoutError:
            said[server] = "doesn't answer"
        except (OSError, asyncio.IncompleteReadError) as error:
            said[server] = f"can't be asked ({error})"
        except (_Doubtful, *BROKEN):
            said[server] = "gives answers that don't fit"
        else:
            if record.header.rcode in _ENDS:
                self._resting.pop(server, None)
                return record
            said[server] = f"says {RCODE.get(record.header.rcode)}"
        self._resting[server] = time.monotonic() + _REST_SECONDS
        return None

    async def _exchange(self, server: str, name: str, kind: int) -> DNSRecord:
        query = _question(name, kind)
        try:
            record = await self._udp(server, query)
            if record.header.rcode == RCODE.FORMERR:  # it never heard of EDNS
                query = _question(name, kind, edns=False)
                record = await self._udp(server, query)
        except _Doubtful:
            async with asyncio.timeout(TCP_SECONDS):
                return await self._tcp(server, query)
        return record

    async def _udp(self, server: str, query: DNSRecord) -> DNSRecord:
        loop = asyncio.get_running_loop()
        got: asyncio.Future[bytes] = loop.create_future()
        # A socket of its own for each question: a port that the kernel draws, one peer.
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _One(got), remote_addr=(server, self._port)
        )
        try:
            transport.sendto(query.pack())
            async with asyncio.timeout(UDP_SECONDS):
                data = await got
        finally:
            transport.close()
        record = _read(query, data)
        if record.header.tc:
            raise _Doubtful
        return record

    async def _tcp(self, server: str, query: DNSRecord) -> DNSRecord:
        reader, writer = await asyncio.open_connection(server, self._port)
        try:
            data = query.pack()
            writer.write(struct.pack("!H", len(data)) + data)
            size = int.from_bytes(await reader.readexactly(2))
            if size > LARGEST:
                raise _Doubtful
            return _read(query, await reader.readexactly(size))
        finally:
            writer.close()


class _One(asyncio.DatagramProtocol):
    """Waits for one datagram."""

    def __init__(self, got: asyncio.Future[bytes]) -> None:
        self._got = got

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self._got.done():
            self._got.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._got.done():
            self._got.set_exception(exc)


def _question(name: str, kind: int, edns: bool = True) -> DNSRecord:
    """A query with a random id and every letter's case drawn anew."""
    drawn = secrets.randbits(len(name))
    spelled = "".join(c.upper() if drawn >> place & 1 else c for place, c in enumerate(name))
    query = DNSRecord(DNSHeader(id=secrets.randbits(16), rd=1), q=DNSQuestion(DNSLabel(spelled), kind))
    if edns:
        query.add_ar(EDNS0(udp_len=_SIZE))
    return query


def _read(query: DNSRecord, data: bytes) -> DNSRecord:
    """The record, if it answers exactly that question."""
    if len(data) < _COUNTS.size or len(data) > LARGEST or sum(_COUNTS.unpack_from(data)) > MOST_RECORDS:
        raise _Doubtful
    try:
        record = DNSRecord.parse(data)
    except BROKEN:
        raise _Doubtful from None
    header = record.header
    asked, answered = query.q, record.questions[0] if len(record.questions) == 1 else None
    if (
        header.id != query.header.id
        or not header.qr
        or header.opcode
        or answered is None
        or answered.qname.label != asked.qname.label
        or (answered.qtype, answered.qclass) != (asked.qtype, asked.qclass)
    ):
        raise _Doubtful
    return record
