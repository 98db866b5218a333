"""The resolver's part in the self-check of a cell's pod (``dataplane/check/check.c``).

Who asks for this name gets one address. Before, over UDP, the agent is told, and the node sends a datagram to
the port above the asker's own, which asked nothing. Where the asker's own filter is there that one never comes.
It isn't the resolver that sends it: its filter would drop it as well, and prove nothing of the asker's.
"""

from __future__ import annotations

from dnslib import RCODE

from dataplane.resolver.replies import Query, Reply

NAME = "_check.cytoplane.internal."
_WIRE = b"\x06_check\x09cytoplane\x08internal\x00"
_HEADER = 12
#: Says nothing; that there is an answer does.
_ADDRESS, _TTL = "0.0.0.0", 0


def asks(query: Query) -> bool:
    return query.name.lower() == NAME


def answer(query: Query) -> Reply:
    reply = query.reply()
    reply.add_address(query.record.q.qname, _ADDRESS, _TTL)
    return reply


def answered(response: bytes) -> bool:
    """Whether this is such an answer, as it goes out."""
    question = response[_HEADER : _HEADER + len(_WIRE)].lower()
    return question == _WIRE and response[3] & 15 == RCODE.NOERROR


def uninvited(asker: tuple) -> tuple[str, int]:
    """Where the packet goes that mustn't arrive: the asker's own address and the port above."""
    return (asker[0], min(asker[1] + 1, 65535))
