"""The packets that tc must drop, by direction and reason: ``CASES``."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from bpf.tables import ALLOW, DENY, EGRESS, INGRESS, Limit, Policy
from tests.bpf import packets as p
from tests.bpf.laboratory import ICMP, ICMPV6, TCP, UDP, Laboratory, Member
from tests.bpf.test_packets import PASS, run, sent

Pair = tuple[Laboratory, Member, Member]
#: How a case is given: what it does, then the verdict and the reasons of its last packet.
Case = Callable[[Pair], tuple[int, set[str]]]


def received(
    laboratory: Laboratory, member: Member, kind: int, payload: bytes, came_from: int
) -> tuple[int, set[str]]:
    """A frame on its way to the workload: the verdict and the reasons that were recorded."""
    frame = p.ethernet(member.namespace.host_mac, member.namespace.mac, kind, payload)
    verdict = run(laboratory, "to_workload", frame, member.namespace.ifindex, came_from)
    return verdict, {f.reason for f in laboratory.tables.drain_flows() if f.direction == INGRESS}


def ip(source: Member, to: Member, family: int, protocol: int, payload: bytes) -> tuple[int, bytes]:
    if family == 4:
        return p.ETH_IP, p.ipv4(source.v4, to.v4, protocol, payload)
    return p.ETH_IPV6, p.ipv6(source.v6, to.v6, protocol, payload)


def echo(family: int, reply: bool = False) -> bytes:
    kind = (0 if reply else 8) if family == 4 else (129 if reply else 128)
    return struct.pack("!BBHHH", kind, 0, 0, 77, 1) + b"x" * 8


def error(family: int, about: bytes) -> bytes:
    """Destination unreachable about a packet."""
    return struct.pack("!BBHI", 3 if family == 4 else 1, 1, 0, 0) + about[:64]


def _out(family: int, protocol: int, payload: bytes) -> Case:
    return lambda pair: sent(pair[0], pair[1], *ip(pair[1], pair[2], family, protocol, payload))


def _in(family: int, protocol: int, payload: bytes) -> Case:
    def case(pair: Pair) -> tuple[int, set[str]]:
        laboratory, a, b = pair
        return received(laboratory, b, *ip(a, b, family, protocol, payload), a.namespace.ifindex)

    return case


def _to(destination: str) -> Case:
    """A SYN to an address, v4 or v6."""

    def case(pair: Pair) -> tuple[int, set[str]]:
        laboratory, a, _ = pair
        if ":" in destination:
            return sent(laboratory, a, p.ETH_IPV6, p.ipv6(a.v6, destination, TCP, p.tcp(4000, 8080)))
        return sent(laboratory, a, p.ETH_IP, p.ipv4(a.v4, destination, TCP, p.tcp(4000, 8080)))

    return case


def _from(source: str, came_from: int | None = None) -> Case:
    """A SYN from an address, on its way to b; by default by a's interface."""

    def case(pair: Pair) -> tuple[int, set[str]]:
        laboratory, a, b = pair
        interface = a.namespace.ifindex if came_from is None else came_from
        syn = p.tcp(4000, 8080)
        if ":" in source:
            return received(laboratory, b, p.ETH_IPV6, p.ipv6(source, b.v6, TCP, syn), interface)
        return received(laboratory, b, p.ETH_IP, p.ipv4(source, b.v4, TCP, syn), interface)

    return case


def _raw(kind: int, payload: Callable[[Member, Member], bytes], incoming: bool) -> Case:
    def case(pair: Pair) -> tuple[int, set[str]]:
        laboratory, a, b = pair
        if incoming:
            return received(laboratory, b, kind, payload(a, b), a.namespace.ifindex)
        return sent(laboratory, a, kind, payload(a, b))

    return case


def _both(kind: int, payload: Callable[[Member, Member], bytes]) -> tuple[Case, Case]:
    return _raw(kind, payload, False), _raw(kind, payload, True)


def _after(before: Callable[[Pair], object], case: Case) -> Case:
    def both(pair: Pair) -> tuple[int, set[str]]:
        before(pair)
        pair[0].tables.drain_flows()
        return case(pair)

    return both


def _deny(pair: Pair) -> None:
    for identity, direction in ((300, EGRESS), (301, INGRESS)):
        entries = [Policy(0, 8080, TCP, direction, ALLOW, 1), Policy(0, 8080, TCP, direction, DENY, 2)]
        pair[0].tables.apply_identity(identity, 1, entries)


def _nothing(pair: Pair) -> None:
    pair[0].allow()


def _limit(limit: Limit, *earlier: Case) -> Callable[[Pair], None]:
    """Put a limit on both ends; then what uses it up."""

    def before(pair: Pair) -> None:
        pair[0].tables.set_limits({300: limit, 301: limit})
        for case in earlier:
            case(pair)

    return before


def _connect(pair: Pair) -> None:
    # Kept by the laboratory, which closes them.
    for _ in range(2):
        connection = pair[1].connected(pair[2].v4, 8080)
        # Closed at once: no packet of it comes in the middle of another case.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        pair[1].sockets.append(connection)


def _without_endpoint(which: int) -> Callable[[Pair], None]:
    return lambda pair: pair[0].tables.remove_endpoint(_member(pair, which).namespace.ifindex)


def _without_identity(which: int) -> Callable[[Pair], None]:
    return lambda pair: pair[0].tables.remove_identity(_member(pair, which).identity)


def _floor(pair: Pair) -> None:
    pair[0].tables.set_floor(
        [("192.0.2.0/24", "FLOOR"), ("192.0.2.10/32", "NODE"), ("2001:db8::a/128", "NODE")]
    )


def _member(pair: Pair, which: int) -> Member:
    return pair[1] if which == 1 else pair[2]


def _claiming(source: int, to: int, family: int) -> Case:
    """A SYN that a sends with somebody's addresses."""

    def case(pair: Pair) -> tuple[int, set[str]]:
        packet = ip(_member(pair, source), _member(pair, to), family, TCP, p.tcp(4000, 8080))
        return sent(pair[0], pair[1], *packet)

    return case


def _arriving(source: int, to: int, by: int, family: int) -> Case:
    """A SYN on its way to b, by somebody's interface; 0: made on the node."""

    def case(pair: Pair) -> tuple[int, set[str]]:
        packet = ip(_member(pair, source), _member(pair, to), family, TCP, p.tcp(4000, 8080))
        return received(pair[0], pair[2], *packet, _member(pair, by).namespace.ifindex if by else 0)

    return case


def _to_nobody(family: int) -> Case:
    def case(pair: Pair) -> tuple[int, set[str]]:
        config = pair[0].config
        return _to(str(config.workloads4[9999] if family == 4 else config.workloads6[9999]))(pair)

    return case


def _service(way: Callable[[str], Case], whose: int, family: int) -> Case:
    def case(pair: Pair) -> tuple[int, set[str]]:
        return way(_member(pair, whose).address(family, by_service=True))(pair)

    return case


def _cases() -> dict[tuple[str, str, str], Case]:
    """(direction, reason, what it is) → the case."""
    found: dict[tuple[str, str, str], Case] = {}

    def both(reason: str, name: str, cases: tuple[Case, Case]) -> None:
        found["out", reason, name], found["in", reason, name] = cases

    for family, kind in ((4, p.ETH_IP), (6, p.ETH_IPV6)):
        icmp, of = (ICMP if family == 4 else ICMPV6), f"v{family}"

        def each(protocol: int, payload: bytes, family: int = family) -> tuple[Case, Case]:
            return _out(family, protocol, payload), _in(family, protocol, payload)

        syn, other = each(TCP, p.tcp(4000, 8080)), each(TCP, p.tcp(4000, 22))
        both("NO_RULE", f"another port {of}", other)
        both("NO_RULE", f"another protocol {of}", each(UDP, p.udp(4000, 8080)))
        both("DENIED", of, (_after(_deny, syn[0]), _after(_deny, syn[1])))
        both("PROTOCOL", f"sctp {of}", each(132, b"\0" * 20))
        both(
            "PROTOCOL",
            f"the other family's icmp {of}",
            each(ICMPV6 if family == 4 else ICMP, b"\x80" + b"\0" * 15),
        )
        both("MALFORMED", f"short tcp {of}", each(TCP, b"\0" * 8))
        both("MALFORMED", f"short udp {of}", each(UDP, b"\0" * 4))
        both("MALFORMED", f"another version {of}", _both(kind, lambda a, b: b"\x00" + bytes(59)))
        both("ICMP", f"echo answer that nobody asked for {of}", each(icmp, echo(family, reply=True)))
        both(
            "ICMP",
            f"another kind {of}",
            each(icmp, b"\x05" + b"\0" * 15 if family == 4 else b"\xc8" + b"\0" * 15),
        )

        def about(a: Member, b: Member, family: int = family, icmp: int = icmp) -> bytes:
            return ip(a, b, family, icmp, error(family, ip(b, a, family, UDP, p.udp(9, 9))[1]))[1]

        both("ICMP", f"error about no flow {of}", _both(kind, about))
        for n, change in enumerate(
            (_out(family, TCP, p.tcp(4000, 8080)), _in(family, TCP, p.tcp(4000, 8080)))
        ):
            direction = ("out", "in")[n]

            def revoked(pair: Pair, first: Case = change) -> None:
                assert first(pair)[0] == PASS
                _nothing(pair)

            later = (_out, _in)[n](family, TCP, p.tcp(4000, 8080, 0x10))
            found[direction, "REVOKED", of] = _after(revoked, later)
            found[direction, "NOT_READY", f"no endpoint {of}"] = _after(_without_endpoint(n + 1), change)
            found[direction, "NOT_READY", f"no identity {of}"] = _after(_without_identity(n + 1), change)
            rate = _limit(Limit(new_connections=1), change, change, change)
            found[direction, "RATE", of] = _after(rate, change)

            def flooded(
                pair: Pair, send: Callable[[int, int, bytes], Case] = (_out, _in)[n], family: int = family
            ) -> None:
                _limit(Limit(1000, 1000), *[send(family, UDP, p.udp(4000, 5353, b"x" * 3000))] * 50)(pair)

            found[direction, "BANDWIDTH", of] = _after(flooded, change)

            def full(pair: Pair) -> None:
                _connect(pair)
                _limit(Limit(connections=1))(pair)

            found[direction, "CONNECTIONS", of] = _after(full, change)
        found["in", "SPOOFED_SOURCE", f"made on the node {of}"] = _arriving(1, 2, 0, family)
        found["in", "SPOOFED_SOURCE", f"by its own interface {of}"] = _arriving(1, 2, 2, family)
        found["out", "SPOOFED_SOURCE", of] = _claiming(2, 1, family)
        found["in", "NOT_LOCAL", of] = _arriving(2, 1, 1, family)
        found["out", "UNKNOWN_DESTINATION", of] = _to_nobody(family)
        found["out", "SERVICE_ON_WIRE", of] = _service(_to, 2, family)
        found["in", "SPOOFED_SOURCE", f"a service {of}"] = _service(_from, 1, family)

    both("NEIGHBOUR", "arp", _both(p.ETH_ARP, lambda a, b: bytes(28)))
    for number in (133, 134, 135, 136, 137, 143):
        both(
            "NEIGHBOUR",
            f"icmpv6 {number}",
            (_out(6, 58, bytes([number]) + bytes(23)), _in(6, 58, bytes([number]) + bytes(23))),
        )
    both("NOT_IP", "lldp", _both(0x88CC, lambda a, b: bytes(40)))
    both(
        "NOT_IP",
        "a tag within",
        _both(0x8100, lambda a, b: bytes(4) + ip(a, b, 4, TCP, p.tcp(4000, 8080))[1]),
    )
    route = b"\x83\x07\x04\x0a\0\0\1\0"
    both(
        "IP_OPTIONS",
        "source route",
        _both(p.ETH_IP, lambda a, b: p.ipv4(a.v4, b.v4, TCP, p.tcp(1, 8080), options=route)),
    )
    both(
        "MALFORMED",
        "mapped",
        _both(p.ETH_IPV6, lambda a, b: p.ipv6(a.v6, f"::ffff:{b.v4}", TCP, p.tcp(1, 8080))),
    )
    both(
        "EXTENSION_HEADER",
        "routing",
        _both(p.ETH_IPV6, lambda a, b: p.ipv6(a.v6, b.v6, 43, p.extension(TCP) + p.tcp(1, 8080))),
    )
    long = p.extension(60) + p.extension(60) + p.extension(60) + p.extension(TCP) + p.tcp(1, 8080)
    both("EXTENSION_HEADER", "a long chain", _both(p.ETH_IPV6, lambda a, b: p.ipv6(a.v6, b.v6, 60, long)))
    hidden = p.fragment6(60, 0, True) + p.extension(TCP) + p.tcp(1, 8080)
    both(
        "EXTENSION_HEADER",
        "behind a fragment header",
        _both(p.ETH_IPV6, lambda a, b: p.ipv6(a.v6, b.v6, 44, hidden)),
    )
    both("FRAGMENT", "v4", _both(p.ETH_IP, lambda a, b: p.ipv4(a.v4, b.v4, TCP, b"x" * 32, fragment=3)))
    late = p.fragment6(TCP, 64, False) + b"x" * 32
    both("FRAGMENT", "v6", _both(p.ETH_IPV6, lambda a, b: p.ipv6(a.v6, b.v6, 44, late)))
    found["out", "BAD_MAC", "source"] = lambda pair: sent(
        pair[0], pair[1], *ip(pair[1], pair[2], 4, TCP, p.tcp(1, 8080)), source=b"\x02" * 6
    )
    found["out", "BAD_MAC", "destination"] = lambda pair: sent(
        pair[0], pair[1], *ip(pair[1], pair[2], 6, TCP, p.tcp(1, 8080)), to=pair[2].namespace.mac
    )
    for address in ("224.0.0.251", "255.255.255.255", "ff02::fb"):
        found["out", "MULTICAST", address] = _to(address)
    for address in ("127.0.0.1", "0.0.0.0", "::1", "::"):
        found["out", "FLOOR", address] = _to(address)
    found["out", "FLOOR", "declared"] = _after(_floor, _to("192.0.2.77"))
    for address in ("192.0.2.10", "2001:db8::a"):
        found["out", "NODE", address] = _after(_floor, _to(address))
        found["in", "SPOOFED_SOURCE", f"the node's {address}"] = _after(_floor, _from(address, came_from=2))
    for address in ("203.0.113.5", "2001:db8::5"):
        found["out", "EGRESS", address] = _to(address)
        found["in", "NO_RULE", f"the world's {address}"] = _from(address, came_from=2)
    for address in ("127.0.0.1", "::1", "224.0.0.5", "ff02::5"):
        found["in", "SPOOFED_SOURCE", address] = _from(address)
    return found


CASES = _cases()
