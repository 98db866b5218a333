"""What an upstream server's answer says about a name: the chain of its aliases and what is at its end."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from dnslib import QTYPE, RCODE, DNSRecord

#: Aliases of a name that are followed, and addresses of it that are taken; more of either are left out.
MOST_ALIASES, MOST_ADDRESSES = 16, 32
#: Seconds that an answer is kept at least and at most, whatever its owner says.
TTL_FLOOR, TTL_CEILING = 10, 3600
#: The same of answers that there is nothing, and for those that don't say.
NEGATIVE_FLOOR, NEGATIVE_CEILING, NEGATIVE_USUAL = 5, 300, 30


@dataclass(frozen=True)
class Found:
    """The end of a look-up. ``chain`` holds (owner, alias); no addresses mean that there is nothing."""

    chain: tuple[tuple[str, str], ...]
    addresses: tuple[str, ...]
    #: Seconds, within the bounds above.
    ttl: int
    exists: bool = True


def plain(name: object) -> str:
    """A name in the form in which names are compared."""
    return str(name).rstrip(".").lower()


class Chain:
    """Follows a name through one answer after the other until nothing is missing."""

    def __init__(self, name: str, kind: int) -> None:
        self.name, self._kind = name, kind
        #: What to ask for next.
        self.last = name
        self._seen = {name}
        self._chain: list[tuple[str, str]] = []
        self._ttl = TTL_CEILING

    def take(self, record: DNSRecord) -> Found | None:
        """The end, or None if ``last`` has to be asked for. Only records of the chain itself count."""
        before = self.last
        aliases: dict[str, tuple[str, int]] = {}
        addresses: dict[str, list[tuple[str, int]]] = {}
        for row in record.rr:
            if row.rclass != 1:
                continue
            if row.rtype == QTYPE.CNAME:
                aliases.setdefault(plain(row.rname), (plain(row.rdata.label), row.ttl))
            elif row.rtype == self._kind:
                address = str(ipaddress.ip_address(str(row.rdata)))
                addresses.setdefault(plain(row.rname), []).append((address, row.ttl))
        while self.last in aliases and self.last not in addresses:
            alias, ttl = aliases[self.last]
            if alias in self._seen or len(self._chain) >= MOST_ALIASES:
                return Found((), (), NEGATIVE_USUAL)  # a circle, or as good as one
            self._chain.append((self.last, alias))
            self._seen.add(alias)
            self._ttl, self.last = min(self._ttl, ttl), alias
        found = addresses.get(self.last, [])[:MOST_ADDRESSES]
        if found:
            ttl = min(self._ttl, *(ttl for _, ttl in found))
            unique = tuple(dict.fromkeys(address for address, _ in found))
            return Found(tuple(self._chain), unique, max(TTL_FLOOR, min(ttl, TTL_CEILING)))
        exists = record.header.rcode != RCODE.NXDOMAIN
        said = _negative_ttl(record)
        # A server that doesn't follow aliases itself leaves that to who asks.
        if exists and said is None and self.last != before:
            return None
        ttl = NEGATIVE_USUAL if said is None else max(NEGATIVE_FLOOR, min(said, NEGATIVE_CEILING))
        return Found(tuple(self._chain), (), ttl, exists)


def _negative_ttl(record: DNSRecord) -> int | None:
    """RFC 2308: the smaller of the record's own time and the one in it; None if there is none."""
    for row in record.auth:
        if row.rtype == QTYPE.SOA:
            return min(row.ttl, row.rdata.times[4])
    return None
