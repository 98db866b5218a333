"""From inside a container of globex, as its user and as root in it, and from its build step: no way to acme."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from dataplane import addresses
from dataplane.agent import state
from tests.e2e.attacker import Attacker, files
from tests.e2e.installation import Installation, source
from tests.e2e.scripts import FORGE, REACH, RIGHTS

pytestmark = [pytest.mark.live, pytest.mark.root]


def targets(installation: Installation) -> list[tuple[str, int]]:
    """Everything of acme, of the platform and of the node that globex might try."""
    config = installation.config
    found: list[tuple[str, int]] = []
    for name in (
        "api",
        "api.storefront",
        "api.storefront.acme",
        "web.storefront",
        "api.storefront.cy.internal",
    ):
        found.append((name, 9000))
    for project, component, port in (
        ("storefront", "web", 8080),
        ("storefront", "api", 9000),
        ("handbook", "web", 8080),
    ):
        replica = installation.replicas("acme", project, component)[0]
        found += [(replica["v4"], port), (replica["v6"], port), (f"::ffff:{replica['v4']}", port)]
    # Service addresses, all of them: the range is small.
    for offset in range(16, 24):
        found += [(str(config.services4[offset]), 9000), (str(config.services6[offset]), 9000)]
    # The gateway (public listener, each internal one, admin), the resolver on other ports, the index proxy.
    for number in (addresses.GATEWAY_NORTH, addresses.INDEX_PROXY):
        own = addresses.workload(config, number)
        for port in (80, 8080, 9901, 10000, 10001, addresses.INDEX_PROXY_PORT, config.apps_port):
            found += [(own.v4, port), (own.v6, port)]
    for cell in range(4):
        for address in addresses.cell_gateway(config, cell):
            found += [(address, port) for port in (8080, 9000, 9901, 10000, 10001)]
    found += [(addresses.workload(config, addresses.RESOLVER).v4, port) for port in (22, 80, 853)]
    # The node by each of its addresses; loopback tricks; link-local; metadata.
    for host in (
        "169.254.169.254",
        "169.254.1.1",
        "127.0.0.1",
        "::ffff:127.0.0.1",
        "fe80::1%eth0",
        *_node(installation),
    ):
        for port in (22, config.portal_port, config.apps_port, config.agents_port):
            found.append((host, port))
    # No documentation address that another test gives the machine for a while.
    found += [("192.0.2.200", 80), ("2001:db8::1", 80), ("1.1.1.1", 53), ("8.8.8.8", 853)]
    return found


def _node(installation: Installation) -> list[str]:
    """The machine's own addresses that aren't its loopback."""
    done = subprocess.run(["ip", "-json", "address"], capture_output=True, text=True, check=True)
    return [
        row["local"]
        for link in json.loads(done.stdout)
        for row in link["addr_info"]
        if row["scope"] == "global"
    ]


@pytest.mark.parametrize("root", [False, True], ids=["as its user", "as root"])
def test_nothing_of_another_tenant_or_of_the_platform_is_reached(
    installation: Installation, attacker: Attacker, root: bool
) -> None:
    tried = targets(installation)
    code = REACH % {"targets": json.dumps(tried), "timeout": 0.25}
    found = attacker.run(code, root=root)
    reached = sorted(name for name, outcome in found.items() if outcome == "reached")
    assert reached == [], reached
    assert len(found) > 100


def test_what_is_declared_is_reached_so_the_attack_can_tell(
    installation: Installation, attacker: Attacker
) -> None:
    resolver = addresses.workload(installation.config, addresses.RESOLVER)
    code = REACH % {"targets": json.dumps([(resolver.v4, 53), (resolver.v6, 53)]), "timeout": 2}
    found = attacker.run(code, root=False)
    assert set(found.values()) == {"reached"}, found


@pytest.mark.parametrize("root", [False, True], ids=["as its user", "as root"])
def test_the_container_has_no_rights_to_begin_with(
    installation: Installation, attacker: Attacker, root: bool
) -> None:
    found = attacker.run(RIGHTS, root=root)
    assert {name for name, outcome in found.items() if outcome != "refused"} == set(), found


def test_forged_source_addresses_are_dropped_and_reported(
    installation: Installation, attacker: Attacker
) -> None:
    api = installation.replicas("acme", "storefront", "api")[0]
    web = installation.replicas("acme", "storefront", "web")[0]
    pairs = [(4, web["v4"], api["v4"]), (6, web["v6"], api["v6"])]
    code = FORGE % {"pairs": json.dumps(pairs)}
    found = attacker.run(code, root=True)
    assert set(found) == {f"{a} to {b}" for _, a, b in pairs}
    edges = installation.wait(lambda: _denied(installation, {"SPOOFED_SOURCE"}) or _refused(found), 20)
    assert edges


def _refused(found: dict[str, str]) -> bool:
    """The kernel didn't even let the socket have that address."""
    return all(outcome != "sent" for outcome in found.values())


def _denied(installation: Installation, reasons: set[str]) -> list[dict[str, Any]]:
    path = installation.cell("globex", "foothold", "/edges")
    rows = installation.api("globex").call("GET", path)
    return [row for row in rows if row["reason"] in reasons]


def test_each_attempt_is_reported_to_its_own_side_with_the_right_reason(installation: Installation) -> None:
    # A cell of its own: what another test tried in this minute may have used up the other's rows.
    assert installation.project("globex", "scout").push(files("scout", "scouted")).accepted
    attacker = Attacker(installation, user="scout", root="scouted")
    config = installation.config
    api = installation.replicas("acme", "storefront", "api")[0]
    services = _services(installation, "acme")
    north = addresses.workload(config, addresses.GATEWAY_NORTH)
    door = addresses.cell_gateway(config, 0)
    # Each on a port of its own, by which its report is known.
    attempts = [
        (api["v4"], "NO_RULE"),
        (api["v6"], "NO_RULE"),
        (services[0], "NO_SERVICE"),
        (services[1], "NO_SERVICE"),
        (north.v4, "NO_RULE"),
        (north.v6, "NO_RULE"),
        (door.v4, "NO_RULE"),
        (door.v6, "NO_RULE"),
        (str(config.workloads4[60000]), "UNKNOWN_DESTINATION"),
        (str(config.workloads6[60000]), "UNKNOWN_DESTINATION"),
        ("169.254.169.254", "FLOOR"),
        ("192.0.2.77", "EGRESS"),
        ("2001:db8::7", "EGRESS"),
        *((address, "NODE") for address in _node(installation)),
    ]
    tried = [(host, 21000 + number) for number, (host, _) in enumerate(attempts)]
    named = [*tried, (services[0], 9000), ("api.storefront", 9000), ("storefront.acme.localhost", 80)]
    attacker.run(REACH % {"targets": json.dumps(named), "timeout": 0.3}, root=False)
    expected = {(port, attempts[port - 21000][1]) for _, port in tried}

    def seen() -> list[dict[str, Any]]:
        rows = installation.api("globex").call("GET", installation.cell("globex", "scout", "/edges"))
        return [row for row in rows if row["verdict"] == "denied"]

    def complete() -> bool:
        rows = seen()
        tcp = {(row["port"], row["reason"]) for row in rows if row["protocol"] == "tcp"}
        names = {row["remote"] for row in rows if row["reason"] == "NAME"}
        return expected <= tcp and {"api.storefront", "storefront.acme.localhost"} <= names

    try:
        installation.wait(complete, 20)
    except AssertionError:
        got = {(row["port"], row["reason"]) for row in seen()}
        raise AssertionError(f"missing: {sorted(expected - got)}") from None
    rows = seen()
    # Over UDP the wire judges: the same answers.
    udp = {(row["port"], row["reason"]) for row in rows if row["protocol"] == "udp"}
    assert {pair for pair in expected if pair[1] in ("NO_RULE", "EGRESS", "NODE")} <= udp, udp
    # The other side is called by no name, and its addresses are nobody's but its own.
    foreign = [row for row in rows if row["port"] in (21000, 21001, 9000) and row["reason"] == "NO_RULE"]
    assert {row["destination"] for row in foreign} == {"another tenant"}
    assert "storefront" not in json.dumps(foreign)
    assert api["v4"] not in json.dumps(foreign)
    # Each has a sentence.
    assert all(row["sentence"] for row in rows)


def _services(installation: Installation, tenant: str) -> list[str]:
    """Service addresses of a tenant's API, both families."""
    kept = state.load(installation.config.agent_dir / "state.json")
    assert kept is not None
    desired = kept.view()
    own = {
        e["id"]
        for e in desired["endpoints"]
        if e["labels"]["tenant"] == tenant and e["labels"]["component"] == "api"
    }
    found = {s["address"] for s in desired["boundary"]["services"] if any(b[0] in own for b in s["backends"])}
    return sorted(found, key=lambda address: ":" in address)


def test_a_build_step_reaches_nothing_but_the_package_index(installation: Installation) -> None:
    tried = [target for target in targets(installation) if not target[0].startswith(("127.", "::ffff:127"))]
    # Nobody answers a build's look-ups, so each name costs the resolver's whole patience: one is enough.
    tried = [("api.storefront", 9000), *(t for t in tried if re.match(r"[0-9a-f:.]+$", t[0]))]
    index = addresses.workload(installation.config, addresses.INDEX_PROXY)
    tried = [
        t
        for t in tried
        if t != (index.v4, addresses.INDEX_PROXY_PORT) and t != (index.v6, addresses.INDEX_PROXY_PORT)
    ]
    api = installation.replicas("acme", "storefront", "api")[0]
    refused = ((api["v4"], "NO_RULE"), ("192.0.2.200", "EGRESS"), ("169.254.169.254", "FLOOR"))
    # The log has the most frequent ones: these are tried again and again.
    often = [target for target in tried if target[0] in dict(refused)] * 6
    code = REACH % {"targets": json.dumps([*tried[:45], *tried[-50:], *often]), "timeout": 0.1}
    rights = RIGHTS
    pushed = source("builder", "built")
    pushed["attack.py"] = code
    pushed["rights.py"] = rights
    pushed["index.py"] = REACH % {
        "targets": json.dumps([(index.v4, addresses.INDEX_PROXY_PORT)]),
        "timeout": 2,
    }
    pushed["Dockerfile"] = (
        "FROM localhost/cytoplane/base:latest\nWORKDIR /app\nCOPY . /app\n"
        "RUN echo REACH $(python3 attack.py) && echo RIGHTS $(python3 rights.py) && echo INDEX $(python3 index.py)\n"
        "RUN echo SIGHT [$(ls -A /sys/class/net /sys/devices/virtual/net /sys/fs/bpf | grep -v ^/sys)]\n"
        "RUN cat /mnt/certificates/* /mnt/storage/* /var/tmp/*/secrets/* 2>&1 | wc -l; ls /run/secrets / ; id; cat /proc/self/uid_map\n"
        "USER 1000\n"
    )  # fmt: skip
    result = installation.project("globex", "builder").push(pushed)
    found = {
        key: json.loads(match.group(1))
        for key in ("REACH", "RIGHTS", "INDEX")
        if (match := re.search(rf"^\s*{key} (\{{.*\}})", result.output, re.M))
    }
    assert set(found) == {"REACH", "RIGHTS", "INDEX"}, result.output[-3000:]
    assert [name for name, outcome in found["REACH"].items() if outcome == "reached"] == []
    assert found["INDEX"][f"{index.v4}:{addresses.INDEX_PROXY_PORT}/tcp"] == "reached"
    never = {
        "raw socket v4", "raw socket v6", "packet socket", "packet datagram", "new user namespace",
        "new network namespace", "bpf", "io_uring", "keyctl", "mount", "setns", "write to /sys",
        "write to sysctl", "memory of the kernel", "device", "transparent socket", "seccomp", "new privileges",
    }  # fmt: skip
    assert {name for name in never if found["RIGHTS"][name] != "refused"} == set(), found["RIGHTS"]
    # What was tried stands in the build's log, with the reason.
    assert "Refused calls of the build" in result.output
    for address, reason in refused:
        assert re.search(rf"tcp {re.escape(address)}:\d+ {reason}: ", result.output), result.output[-3000:]
    # Of its neighbours' interfaces and of the kernel side's tables it sees nothing.
    assert re.search(r"^\s*SIGHT \[\]", result.output, re.M), result.output[-2000:]
    # Its root is nobody on the machine.
    assert re.search(r"^\s*0\s+2\d{9}\s+65536", result.output, re.M), result.output[-2000:]


def test_explanations_agree_with_what_happened(installation: Installation) -> None:
    api = installation.api("globex")
    answer = api.call(
        "GET", installation.cell("globex", "prober", "/why") + "?source=web&destination=192.0.2.200&port=80"
    )
    assert answer["allowed"] is False
    own = installation.api("acme").call(
        "GET", installation.cell("acme", "storefront", "/why") + "?source=web&destination=api&port=9000"
    )
    assert own["allowed"] is True
