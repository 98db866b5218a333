"""Attacks by sockets and netlink, as root of the workload's own network namespace, with every capability there."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Callable

import pytest

from dataplane.agent.namespaces import run_in
from tests.bpf import packets as p
from tests.bpf.laboratory import PATIENCE, TCP, UDP, Laboratory

pytestmark = pytest.mark.root
IP_FREEBIND, IP_TRANSPARENT, IP_PKTINFO = 15, 19, 8
IPV6_FREEBIND, IPV6_TRANSPARENT, IPV6_PKTINFO = 78, 75, 50
UDP_SEGMENT, MSG_FASTOPEN, IPPROTO_MPTCP = 103, 0x20000000, 262


@pytest.fixture
def three(laboratory: Laboratory) -> Laboratory:
    """``a`` may call ``b`` (8080/tcp, 8081/udp) and nobody may call ``c``; both would answer."""
    for number, name in enumerate("abc"):
        member = laboratory.workload(name, 300 + number, 1024 + number)
        member.listen(TCP, 8080)
        member.listen(UDP, 8081)
    laboratory.allow(("a", "b", 8080, TCP), ("a", "b", 8081, UDP))
    laboratory.serve(("b", 8080, TCP), ("b", 8081, UDP), ("c", 8080, TCP), ("c", 8081, UDP))
    laboratory.denials()
    return laboratory


def inside(laboratory: Laboratory, function: Callable[[], str]) -> str:
    """What ``a`` got; "" for nothing or an error."""

    def attempt() -> str:
        try:
            return function()
        except OSError:
            return ""

    return run_in(laboratory.members["a"].namespace.path, attempt)


def command(laboratory: Laboratory, *lines: str) -> bool:
    """``ip`` as root inside ``a``; whether all of it was possible there."""
    name = laboratory.members["a"].namespace.path.name
    done = [
        subprocess.run(["ip", "-n", name, *line.split()], capture_output=True, check=False) for line in lines
    ]
    return all(one.returncode == 0 for one in done)


def datagram(family: int) -> socket.socket:
    client = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    client.settimeout(PATIENCE)
    return client


def reasons(laboratory: Laboratory) -> set[str]:
    return {reason for reason, _ in laboratory.denials()}


@pytest.mark.parametrize("family", [4, 6])
def test_a_socket_bound_to_anothers_address_reaches_nobody(three: Laboratory, family: int) -> None:
    b, c = three.members["b"].address(family), three.members["c"].address(family)

    def forge() -> str:
        with datagram(family) as client:
            if family == 4:
                client.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)
                client.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
            else:
                client.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
                client.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
            client.bind((c, 0))
            client.sendto(b"who", (b, 8081))
            return client.recv(64).decode()

    assert inside(three, forge) == ""
    assert "SPOOFED_SOURCE" in reasons(three)


@pytest.mark.parametrize("family", [4, 6])
def test_a_message_with_a_source_of_its_own_choice_reaches_nobody(three: Laboratory, family: int) -> None:
    b, c = three.members["b"].address(family), three.members["c"].address(family)

    def forge() -> str:
        with datagram(family) as client:
            if family == 4:
                client.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
                chosen = (socket.SOL_IP, IP_PKTINFO, struct.pack("=i4s4s", 0, socket.inet_aton(c), b"\0" * 4))
            else:
                client.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
                address = socket.inet_pton(socket.AF_INET6, c)
                chosen = (socket.IPPROTO_IPV6, IPV6_PKTINFO, address + struct.pack("=i", 0))
            client.sendmsg([b"who"], [chosen], 0, (b, 8081))
            return client.recv(64).decode()

    assert inside(three, forge) == ""
    assert "SPOOFED_SOURCE" in reasons(three)


def test_an_address_taken_by_netlink_is_worth_nothing(three: Laboratory) -> None:
    b, c = three.members["b"], three.members["c"]
    command(three, f"addr add {c.v4}/32 dev eth0", f"addr add {c.v6}/128 dev eth0 nodad")
    for source, target in ((c.v4, b.v4), (c.v6, b.v6)):

        def forge(source: str = source, target: str = target) -> str:
            with socket.create_connection((target, 8080), PATIENCE, (source, 0)) as client:
                return client.recv(64).decode()

        assert inside(three, forge) == ""
        assert "SPOOFED_SOURCE" in reasons(three)
    # What is its own still works beside it.
    assert three.members["a"].call(b.v4, 8080) == "b"


def test_another_hardware_address_is_seen(three: Laboratory) -> None:
    command(three, "link set eth0 down", "link set eth0 address 02:00:00:00:00:77", "link set eth0 up")
    host = three.members["a"].namespace.host_mac.hex(":")
    command(
        three,
        f"neigh replace 169.254.1.1 lladdr {host} dev eth0 nud permanent",
        "route replace default via 169.254.1.1 dev eth0 onlink",
    )
    assert three.members["a"].call(three.members["b"].v4, 8080) == ""
    assert "BAD_MAC" in reasons(three)


def test_routes_and_neighbours_of_ones_own_lead_past_nobody(three: Laboratory) -> None:
    c = three.members["c"]
    command(
        three,
        f"neigh replace {c.v4} lladdr {c.namespace.mac.hex(':')} dev eth0 nud permanent",
        f"route replace {c.v4}/32 dev eth0",
        f"neigh replace {c.v6} lladdr {c.namespace.mac.hex(':')} dev eth0 nud permanent",
        f"route replace {c.v6}/128 dev eth0",
    )
    three.tables.forget_caller(three.members["a"].namespace.cookie)
    assert three.members["a"].call(c.v4, 8080) == three.members["a"].call(c.v6, 8080) == ""
    assert "BAD_MAC" in reasons(three)


def test_who_asks_for_neighbours_gets_no_answer(three: Laboratory) -> None:
    b = three.members["b"]
    command(three, "neigh del 169.254.1.1 dev eth0", f"route replace {b.v4}/32 dev eth0")
    three.tables.forget_caller(three.members["a"].namespace.cookie)
    assert three.members["a"].call(b.v4, 8080) == ""
    seen = {flow.reason for flow in three.tables.drain_flows() if not flow.allowed}
    assert "NEIGHBOUR" in seen


def test_links_made_upon_its_own_carry_nothing(three: Laboratory) -> None:
    a, b = three.members["a"], three.members["b"]
    for kind in ("vlan id 5", "macvlan mode bridge", "ipvlan mode l2"):
        if not command(three, f"link add link eth0 name more type {kind}", "link set more up"):
            continue  # not a kind that this kernel makes
        command(three, f"addr add {three.members['c'].v4}/32 dev more", f"route replace {b.v4}/32 dev more")
        host = a.namespace.host_mac.hex(":")
        command(three, f"neigh replace {b.v4} lladdr {host} dev more nud permanent")
        assert a.call(b.v4, 8080) == "", kind
        command(three, "link del more")
    assert reasons(three) <= {"NOT_IP", "BAD_MAC", "SPOOFED_SOURCE", "MULTICAST", "NO_RULE"}
    command(three, f"route del {b.v4}/32")
    assert a.call(b.v4, 8080) == "b"


def test_a_translation_of_its_own_hides_nobody(three: Laboratory) -> None:
    a, b, c = (three.members[name] for name in "abc")
    rules = f"""
table ip evil {{
    chain out {{
        type nat hook postrouting priority srcnat
        snat to {c.v4}
    }}
}}
"""
    made = subprocess.run(
        ["ip", "netns", "exec", a.namespace.path.name, "nft", "-f", "-"], input=rules, text=True, check=False
    )
    assert made.returncode == 0
    assert a.call(b.v4, 8080) == ""
    assert "SPOOFED_SOURCE" in reasons(three)


def test_a_connected_datagram_socket_sends_elsewhere_only_what_may_go_there(three: Laboratory) -> None:
    b, c = (three.members[name] for name in "bc")
    for family in (4, 6):

        def elsewhere(family: int = family) -> str:
            with datagram(family) as client:
                client.connect((b.address(family, by_service=True), 8081))
                client.send(b"who")
                assert client.recv(64) == b"b"
                for by_service in (False, True):
                    try:
                        client.sendto(b"who", (c.address(family, by_service), 8081))
                        return client.recv(64).decode()
                    except OSError:
                        continue
                return ""

        assert inside(three, elsewhere) == ""
        assert reasons(three) <= {"NO_RULE"}


def test_a_socket_that_is_connected_anew_is_judged_anew(three: Laboratory) -> None:
    b, c = (three.members[name] for name in "bc")

    def again(target: str) -> Callable[[], str]:
        def call() -> str:
            with datagram(4) as client:
                client.connect((b.service4, 8081))
                client.send(b"who")
                assert client.recv(64) == b"b"
                _disconnect(client)
                client.connect((target, 8081))
                client.send(b"who")
                return client.recv(64).decode()

        return call

    assert inside(three, again(c.service4)) == ""
    assert "NO_RULE" in reasons(three)
    assert inside(three, again(b.v4)) == "b"


def _disconnect(client: socket.socket) -> None:
    """connect() to AF_UNSPEC, which Python has no words for."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.connect(client.fileno(), struct.pack("=H14x", socket.AF_UNSPEC), 16) == 0


def test_a_policy_that_narrows_between_connecting_and_sending_counts(three: Laboratory) -> None:
    b = three.members["b"]

    def connected() -> socket.socket:
        client = datagram(4)
        client.connect((b.service4, 8081))
        return client

    client = run_in(three.members["a"].namespace.path, connected)
    three.allow(("a", "b", 8080, TCP))

    def send() -> str:
        client.send(b"who")
        return client.recv(64).decode()

    assert inside(three, send) == ""
    assert "NO_RULE" in reasons(three)
    client.close()


@pytest.mark.parametrize("family", [4, 6])
def test_data_with_the_opening_and_many_paths_are_no_way_around(three: Laboratory, family: int) -> None:
    b, c = (three.members[name].address(family) for name in "bc")
    kind = socket.AF_INET if family == 4 else socket.AF_INET6

    def fast(target: str) -> Callable[[], str]:
        def call() -> str:
            with socket.socket(kind, socket.SOCK_STREAM) as client:
                patience = struct.pack("=qq", 0, int(PATIENCE * 1e6))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
                client.sendto(b"early", MSG_FASTOPEN, (target, 8080))
                return client.recv(64).decode()

        return call

    def multipath(target: str) -> Callable[[], str]:
        def call() -> str:
            with socket.socket(kind, socket.SOCK_STREAM, IPPROTO_MPTCP) as client:
                client.settimeout(PATIENCE)
                client.connect((target, 8080))
                return client.recv(64).decode()

        return call

    for way in (fast, multipath):
        assert inside(three, way(c)) == ""
    assert reasons(three) <= {"NO_RULE"}
    assert inside(three, fast(b)) == "b"


def test_segments_that_the_kernel_cuts_are_judged_as_a_whole(three: Laboratory) -> None:
    b, c = (three.members[name].v4 for name in "bc")

    def large(target: str) -> Callable[[], str]:
        def call() -> str:
            with datagram(4) as client:
                client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
                client.sendto(b"x" * 20000, (target, 8081))
                return client.recv(64).decode()

        return call

    assert inside(three, large(b)) == "b"
    assert inside(three, large(c)) == ""
    assert "NO_RULE" in reasons(three)


def test_datagrams_in_fragments_pass_where_whole_ones_do(three: Laboratory) -> None:
    def big(target: str) -> Callable[[], str]:
        def call() -> str:
            with datagram(6 if ":" in target else 4) as client:
                client.sendto(b"x" * 1900, (target, 8081))
                return client.recv(64).decode()

        return call

    command(three, "link set eth0 mtu 1400")
    for member, expected in ((three.members["b"], "b"), (three.members["c"], "")):
        assert inside(three, big(member.v4)) == expected
        assert inside(three, big(member.v6)) == expected
    assert reasons(three) <= {"NO_RULE", "FRAGMENT"}


def test_raw_sockets_have_no_more_rights(three: Laboratory) -> None:
    a, b, c = (three.members[name] for name in "abc")
    cases = {
        "as another": (p.ipv4(c.v4, b.v4, TCP, p.tcp(4000, 8080)), "SPOOFED_SOURCE"),
        "source route": (p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, 8080), options=b"\x83\x07\x04\x0a\0\0\1\0"), "IP_OPTIONS"),
        "sctp": (p.ipv4(a.v4, b.v4, 132, b"\0" * 20), "PROTOCOL"),
        "a tunnel": (p.ipv4(a.v4, b.v4, 4, p.ipv4(a.v4, c.v4, TCP, p.tcp(4000, 8080))), "PROTOCOL"),
        "a service on the wire": (p.ipv4(a.v4, c.service4, TCP, p.tcp(4000, 8080)), "SERVICE_ON_WIRE"),
        "to everybody": (p.ipv4(a.v4, "255.255.255.255", UDP, p.udp(1, 8081)), "BAD_MAC"),
        "a forged error": (p.ipv4(a.v4, c.v4, 1, b"\x03\x03" + b"\0" * 6 + p.ipv4(c.v4, b.v4, TCP, p.tcp(1, 2))), "ICMP"),
    }  # fmt: skip
    for name, (packet, reason) in cases.items():

        def send(packet: bytes = packet) -> str:
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                raw.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))
            return "sent"

        inside(three, send)
        # Source routes are sent where the option says: a kernel that refuses has refused too.
        assert reason in reasons(three) or name == "source route", name


def test_the_node_is_closed_by_each_of_its_addresses(three: Laboratory) -> None:
    a = three.members["a"]
    three.tables.set_floor([("169.254.0.0/16", "FLOOR"), ("fe80::/10", "FLOOR")])
    for address in ("169.254.1.1", "169.254.169.254", "fe80::1%eth0"):

        def knock(address: str = address) -> str:
            found = socket.getaddrinfo(address, 22, type=socket.SOCK_STREAM)[0]
            with socket.socket(found[0], socket.SOCK_STREAM) as client:
                client.settimeout(PATIENCE)
                client.connect(found[4])
                return "reached"

        assert inside(three, knock) == "", address
        assert reasons(three) & {"FLOOR", "SPOOFED_SOURCE"}, address
    for address in ("127.0.0.1", "::1"):  # its own, where nobody of the node's listens
        assert a.call(address, 22) == ""
