"""Who asks what, and what becomes of it.

The asker is known by its address, which the programs on its veth have made unforgeable. A name that
it may not reach is answered like one that doesn't exist.
"""

from __future__ import annotations

from dnslib import QTYPE, RCODE

from dataplane.resolver import selfcheck
from dataplane.resolver.denials import Denials
from dataplane.resolver.external import External
from dataplane.resolver.lookups import plain
from dataplane.resolver.replies import LARGEST_TCP, PROHIBITED, Query, Reply, read
from dataplane.resolver.table import AUDITED, Table

#: Of the platform's own names, whose addresses never change.
TTL = 5
_ADDRESSES = (QTYPE.A, QTYPE.AAAA)


class Answers:
    """``external`` None: names of the outside world aren't known."""

    def __init__(
        self, table: Table, denials: Denials | None = None, external: External | None = None
    ) -> None:
        self._table, self._denials, self._external = table, denials, external

    def at_once(self, asker: str, data: bytes, tcp: bool = False) -> bytes | Query | None:
        """The response; the question where it takes asking others; None to what isn't a question."""
        query = read(data)
        if query is None:
            return None
        reply = self._own(asker, query)
        if reply is None:
            return query
        return reply.pack(LARGEST_TCP if tcp else query.takes)

    async def later(self, asker: str, query: Query, tcp: bool = False) -> bytes:
        """The response to a question about the outside world."""
        reply = await self._outside(asker, query)
        return reply.pack(LARGEST_TCP if tcp else query.takes)

    def _own(self, asker: str, query: Query) -> Reply | None:
        """What the table knows; None for what it only knows the owner of."""
        if query.record.header.opcode:
            return query.reply(RCODE.NOTIMP)
        found = self._table.lookup(asker, query.name)
        if found is None:
            return query.reply(RCODE.REFUSED).explain(PROHIBITED, "unknown asker")
        if selfcheck.asks(query):
            return selfcheck.answer(query)
        if found:
            reply = query.reply()
            for address in found:
                if query.kind in (QTYPE.ANY, QTYPE.AAAA if ":" in address else QTYPE.A):
                    reply.add_address(query.record.q.qname, address, TTL)
            return reply
        way = self._table.external(asker, query.name) if self._external else ""
        name = self._table.plain(query.name)
        # Asking what an address is called, as servers do at their start, is no attempt to call anybody;
        # nor is a declared name with the search domain, as programs try when there is no such name.
        repeated = bool(self._external and self._table.external(asker, name))
        if way != "declared" and not repeated or way == AUDITED:
            self._note(asker, name, way == AUDITED)
        if way:
            # Other records than addresses would lead past what is learned: there are none.
            return None if query.kind in _ADDRESSES else query.reply(authoritative=False)
        return query.reply(RCODE.NXDOMAIN).explain(PROHIBITED, "no declared connection reaches this name")

    def _note(self, asker: str, name: str, audited: bool) -> None:
        if self._denials is not None and not name.endswith(".arpa"):
            self._denials.note(self._table.identity(asker), name, audited)

    async def _outside(self, asker: str, query: Query) -> Reply:
        assert self._external is not None
        identity, stamp = self._table.identity(asker), self._table.stamp(asker)
        answer = await self._external.resolve(identity, plain(query.name), query.kind, stamp)
        found = answer.found
        if found is None:
            reply = query.reply(RCODE.SERVFAIL, authoritative=False)
        else:
            reply = query.reply(RCODE.NOERROR if found.exists else RCODE.NXDOMAIN, authoritative=False)
            owner: object = query.record.q.qname
            for _, alias in found.chain:
                reply.add_alias(owner, alias, answer.ttl)
                owner = alias
            for address in found.addresses:
                reply.add_address(owner, address, answer.ttl)
        return reply.explain(answer.code, answer.text) if answer.code else reply
