"""Messages of the resolver: what was asked, and answers of it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dnslib import AAAA, CNAME, EDNS0, QTYPE, RCODE, RR, A, DNSHeader, DNSRecord, EDNSOption

from dataplane.resolver.upstream import BROKEN

#: Octets of an answer over UDP for who doesn't say what it takes, and at most.
SMALLEST_UDP, LARGEST_UDP = 512, 1232
LARGEST_TCP = 65535
#: Octets of a question at most, and records beside it (EDNS among them): everybody waits while one is read.
LONGEST_QUERY, MOST_BESIDE = 1232, 4
#: RFC 8914: prohibited.
PROHIBITED = 18
#: Up to the numbers of its records: questions, answers, authorities, others.
_HEADER = struct.Struct("!4x4H")


@dataclass(frozen=True)
class Query:
    """One question of somebody."""

    record: DNSRecord

    @property
    def name(self) -> str:
        return str(self.record.q.qname)

    @property
    def kind(self) -> int:
        return self.record.q.qtype

    @property
    def takes(self) -> int:
        """Octets that the asker takes over UDP."""
        sizes = [record.rclass for record in self.record.ar if record.rtype == QTYPE.OPT]
        return max(SMALLEST_UDP, min(sizes[0], LARGEST_UDP)) if sizes else SMALLEST_UDP

    @property
    def edns(self) -> bool:
        return any(record.rtype == QTYPE.OPT for record in self.record.ar)

    def reply(self, rcode: int = RCODE.NOERROR, authoritative: bool = True) -> Reply:
        asked = self.record.header
        header = DNSHeader(
            id=asked.id, qr=1, aa=int(authoritative), ra=1, rd=asked.rd, opcode=asked.opcode, rcode=rcode
        )
        return Reply(DNSRecord(header, q=self.record.q), self.edns)


def read(data: bytes) -> Query | None:
    """The question; None of what isn't one, or isn't worth the time."""
    if not _HEADER.size <= len(data) <= LONGEST_QUERY:
        return None
    questions, *beside = _HEADER.unpack_from(data)
    if questions != 1 or sum(beside) > MOST_BESIDE:
        return None
    try:
        record = DNSRecord.parse(data)
    except BROKEN:
        return None
    return None if record.header.qr or len(record.questions) != 1 else Query(record)


class Reply:
    """An answer in the making."""

    def __init__(self, record: DNSRecord, edns: bool) -> None:
        self._record, self._edns = record, edns
        self._options: list[EDNSOption] = []

    def add_address(self, owner: object, address: str, ttl: int) -> None:
        v6 = ":" in address
        data = AAAA(address) if v6 else A(address)
        self._record.add_answer(RR(owner, QTYPE.AAAA if v6 else QTYPE.A, rdata=data, ttl=ttl))

    def add_alias(self, owner: object, alias: str, ttl: int) -> None:
        self._record.add_answer(RR(owner, QTYPE.CNAME, rdata=CNAME(alias), ttl=ttl))

    def explain(self, code: int, text: str) -> Reply:
        """An extended error (RFC 8914), for who speaks EDNS."""
        self._options.append(EDNSOption(15, struct.pack("!H", code) + text.encode()))
        return self

    def pack(self, most: int) -> bytes:
        """The message; what is longer than ``most`` octets is cut, and says so."""
        if self._edns:
            self._record.add_ar(EDNS0(udp_len=LARGEST_UDP, opts=self._options))
        data = self._record.pack()
        if len(data) > most:
            self._record.rr = []
            self._record.header.tc = 1
            data = self._record.pack()
        return bytes(data)
