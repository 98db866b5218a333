"""From inside a container, as its user and as root in it: the kernel's surface, the resolver, the gateway's doors."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from dataplane import addresses
from dataplane.agent import state
from tests.e2e.attacker import Attacker
from tests.e2e.installation import Installation
from tests.e2e.scripts import REACH, RESOLVER, ROADS, SIGHT, SURFACE

pytestmark = [pytest.mark.live, pytest.mark.root]
both = pytest.mark.parametrize("root", [False, True], ids=["as its user", "as root"])
#: What leads nowhere but to the container itself, whatever becomes of it.
HARMLESS = {
    # Its own processes' memory and their place in the queue for being killed, upwards only.
    "write /proc/1/mem",
    "write /proc/self/mem",
}


@both
def test_the_kernels_surface_is_closed(attacker: Attacker, root: bool) -> None:
    found = attacker.run(SURFACE, root=root)
    open_ones = {name for name, outcome in found.items() if outcome != "refused"} - HARMLESS
    assert open_ones == set()
    assert len(found) > 120


@both
def test_nothing_of_the_platform_is_in_sight(
    installation: Installation, attacker: Attacker, root: bool
) -> None:
    config = installation.config
    paths = [config.home, config.agent_dir, config.run, config.secrets, config.bpffs, config.netns_dir]
    paths += [config.web_socket, config.redis_socket, config.postgres_socket_dir, config.gateway_dir]
    code = SIGHT % {
        "paths": json.dumps([str(path) for path in [*paths, "/run/podman", "/var/run/docker.sock"]])
    }
    found = attacker.run(code, root=root)
    assert found["there"] == []
    assert found["interfaces"] == ["eth0", "lo"]
    # Nor of its neighbours on the node: whose interfaces there are, and what others use.
    assert found["folders"] == {}
    assert not [name for name in found["sockets"] if "cytoplane" in name or str(config.home) in name]
    assert not [
        command for command in found["commands"] if "supervisord" in command or "dataplane" in command
    ]
    assert not [mount for mount in found["mounts"] if str(config.agent_dir) in mount and "shadow" in mount]


def boundary(installation: Installation) -> dict[str, Any]:
    """What the node has been told."""
    kept = state.load(installation.config.agent_dir / "state.json")
    assert kept is not None
    return kept.view()["boundary"]


@both
def test_no_listener_of_the_gateway_is_open_to_whom_it_wasnt_made_for(
    installation: Installation, attacker: Attacker, root: bool
) -> None:
    gateway = boundary(installation)["gateway"]
    doors = [*gateway["listeners"], *gateway["doors"]]
    tried = [(door[key], door["port"]) for door in doors for key in ("address4", "address6")]
    north = addresses.workload(installation.config, addresses.GATEWAY_NORTH)
    tried += [
        (address, port) for address in north for port in (addresses.NORTH_HTTP_PORT, 9901, 19000, 15000)
    ]
    assert len(tried) > 8
    found = attacker.run(REACH % {"targets": json.dumps(tried), "timeout": 0.3}, root=root)
    assert [name for name, outcome in found.items() if outcome == "reached"] == []


def test_the_node_is_reached_by_none_of_its_addresses(installation: Installation, attacker: Attacker) -> None:
    done = subprocess.run(["ip", "-json", "address"], capture_output=True, text=True, check=True)
    own = {row["local"] for link in json.loads(done.stdout) for row in link["addr_info"]}
    own |= {"10.88.0.1", "172.17.0.1", "192.168.122.1", "169.254.1.1", "0.0.0.0", "::"}
    own |= {f"{address}%eth0" for address in own if address.startswith("fe80:")} | {
        "fe80::1%eth0",
        "ff02::1%eth0",
    }
    config = installation.config
    ports = (22, 53, 111, config.portal_port, config.apps_port, config.agents_port, 5432, 6379)
    # What means the container itself is answered by the container itself, if at all.
    tried = [(address, port) for address in sorted(own) for port in ports if not address.startswith("127.")]
    found = attacker.run(REACH % {"targets": json.dumps(tried), "timeout": 0.1}, root=True)
    assert [name for name, outcome in found.items() if outcome == "reached"] == []


def test_the_resolver_gives_nothing_away_and_goes_on(installation: Installation, attacker: Attacker) -> None:
    resolver = addresses.workload(installation.config, addresses.RESOLVER)
    domain = installation.config.apps_domain
    names = [
        "api.storefront", "api", "web.storefront", "api.storefront.cy.internal", f"storefront.acme.{domain}",
        "health.storefront", "acme", "storefront", "cy.internal", "", f"acme.{domain}", "*.storefront",
        "API.STOREFRONT", "api.storefront.", "localhost", "metadata.google.internal", "1.1.168.192.in-addr.arpa",
    ]  # fmt: skip
    values = {"servers": list(resolver), "names": names, "own": "user"}
    found = attacker.run(RESOLVER % {key: json.dumps(value) for key, value in values.items()}, root=False)
    given = {asked: outcome for asked, outcome in found["strangers"].items() if outcome and outcome[1]}
    assert given == {}
    assert {asked for asked, outcome in found["strangers"].items() if outcome and outcome[0] not in (2, 3, 4, 5)} == set()  # fmt: skip
    # Whoever holds every connection that it may have still gets answers to datagrams; so does everybody else.
    assert found["answered"] == {server: [0, 1] for server in resolver}
    assert all(found[f"held {server}"] <= 300 for server in resolver)
    assert installation.get("storefront.acme").status_code == 200


@both
def test_no_other_road_leads_to_another_tenant(
    installation: Installation, attacker: Attacker, root: bool
) -> None:
    targets = []
    for project, component, port in (("storefront", "api", 9000), ("storefront", "web", 8080)):
        replica = installation.replicas("acme", project, component)[0]
        targets.append((replica["v4"], replica["v6"], port))
    found = attacker.run(ROADS % {"targets": json.dumps(targets)}, root=root)
    assert {name: outcome for name, outcome in found.items() if outcome.startswith("reached")} == {}
