"""A name of the outside world, from cytoplane.yaml to the packet: through push, control plane, agent, resolver and kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.dataplane.internet import servers4
from tests.e2e.attacker import FILES, Attacker
from tests.e2e.installation import Installation
from tests.e2e.outside import PORT, Outside
from tests.e2e.outside import outside as made_outside

pytestmark = [pytest.mark.live, pytest.mark.root]
DECLARATION = """
components:
  user:
    kind: web
    path: user
    command: exec python server.py
    endpoints:
      http: {port: 8080, protocol: http, visibility: public, host: %(host)s}
    connections: [%(connections)s]
"""


@pytest.fixture(scope="module")
def outside(installation: Installation) -> Iterator[Outside]:
    """The upstream server that the installation is set to, with what it tells about."""
    asked = servers4(installation.config.net)[0]
    if installation.config.dns_servers != asked:
        pytest.skip(f"the installation doesn't ask {asked}")
    with made_outside(installation.config.net) as made:
        yield made


def app(installation: Installation, tenant: str, project: str, connections: str) -> Attacker:
    """An application of a tenant's that runs what it is sent."""
    files = {name: text for name, text in FILES.items() if name.startswith("user/")}
    host = f"{project}-names"
    files["cytoplane.yaml"] = DECLARATION % {"host": host, "connections": connections}
    result = installation.project(tenant, project).push(files)
    assert result.accepted, result.output
    return Attacker(installation, user=host, root=host)


def test_a_declared_name_is_reached_by_who_declared_it_and_by_nobody_else(
    installation: Installation, outside: Outside
) -> None:
    declared = ", ".join(
        f"{{external: {{host: '{host}', port: {PORT}}}, as: {name}}}"
        for host, name in (("api.example.test", "PARTNER"), ("rebinding.example.test", "TRAP"))
    )
    caller = app(installation, "globex", "caller", declared)
    neighbour = app(installation, "globex", "neighbour", "")
    outside.check(caller.run(outside.call, root=False))
    refused = neighbour.run(outside.call, root=False)
    assert refused["name"] == "gaierror"
    assert refused["address"] not in (outside.first, outside.second)
    assert "other.test" not in outside.server.names(), "nobody declared it, so nobody is asked"

    def rows() -> dict[str, str]:
        edges = installation.api("globex").call("GET", installation.cell("globex", "caller", "/edges"))
        return {row["destination"]: row["verdict"] for row in edges}

    installation.wait(
        lambda: (
            {"api.example.test": "allowed", "rebinding.example.test": "denied"}.items() <= rows().items()
            and "other.test" in rows()
        ),
        20,
    )
    why = installation.cell("globex", "caller", "/why")
    for name, port, allowed in (("api.example.test", PORT, True), ("other.test", PORT, False)):
        answer = installation.api("globex").call("GET", f"{why}?source=user&destination={name}&port={port}")
        assert answer["allowed"] is allowed


def test_a_name_that_is_declared_no_more_is_closed(installation: Installation, outside: Outside) -> None:
    declared = f"{{external: {{host: '*.example.test', port: {PORT}}}, as: PARTNER}}"
    caller = app(installation, "globex", "fickle", declared)
    assert caller.run(outside.call, root=False)["name"] == outside.first
    files = {name: text for name, text in FILES.items() if name.startswith("user/")}
    files["cytoplane.yaml"] = DECLARATION % {"host": "fickle-names", "connections": ""}
    assert installation.clone("globex", "fickle").push(files, ref="+main").accepted
    found = caller.run(outside.call, root=False)
    assert (found["name"], found["address"] == outside.first) == ("gaierror", False)


def test_other_servers_stay_closed_to_applications(installation: Installation, outside: Outside) -> None:
    """Not even the one that the resolver asks."""
    caller = app(
        installation, "globex", "asker", f"{{external: {{host: api.example.test, port: {PORT}}}, as: X}}"
    )
    code = f"""
import json, socket
found = []
for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as client:
        client.settimeout(1)
        try:
            client.connect(({outside.server.address!r}, 53))
            client.send(b"\\0" * 12)
            found.append(bool(client.recv(64)))
        except OSError as error:
            found.append(type(error).__name__)
print(json.dumps(found))
"""
    assert True not in caller.run(code, root=False)
