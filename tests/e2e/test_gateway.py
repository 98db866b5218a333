"""The north gateway, from outside."""

from __future__ import annotations

import statistics
import threading
import time

import httpx
import pytest

from tests.e2e.attacker import Attacker, files
from tests.e2e.installation import Installation, source

pytestmark = [pytest.mark.live, pytest.mark.root]


def test_public_endpoints_are_reached_and_nothing_else(installation: Installation) -> None:
    assert installation.get("storefront.acme").status_code == 200
    assert "Lantern" in installation.get("storefront.acme").text
    assert installation.get("handbook.acme").status_code == 200
    for host in ("api.storefront.acme", "nobody.acme", "storefront.globex", "acme", "api"):
        assert installation.get(host).status_code == 404, host


def test_the_caller_header_of_the_platform_cannot_be_forged_from_outside(installation: Installation) -> None:
    files = source("echo", "echo")
    files["server.py"] = files["server.py"].replace(
        'body = ("echo "', 'body = (str(sorted(k.lower() for k in self.headers)) + " "'
    )
    repository = installation.project("acme", "echo")
    assert repository.push(files).accepted
    seen = installation.get("echo.acme", **{"X-Cytoplane-Caller": "component/1", "X-Other": "1"}).text
    assert "x-other" in seen
    assert "x-cytoplane-caller" not in seen
    assert installation.get("echo.acme", **{"X_Cytoplane_Caller": "component/1"}).status_code in (400, 200)
    assert "x_cytoplane_caller" not in installation.get("echo.acme", **{"X_Cytoplane_Caller": "1"}).text


DOOR = """
import http.client, json, os
found = {}
for name in ("storefront.acme", "handbook.acme", "foothold.globex"):
    host = name + "." + %(domain)r
    try:
        connection = http.client.HTTPConnection(%(first)r, %(port)r, timeout=3)
        connection.request("GET", "/", headers={"Host": host, "X-Cytoplane-Caller": "acme/storefront/web"})
        found[name] = connection.getresponse().status
    except OSError as error:
        found[name] = str(error)
try:
    http.client.HTTPConnection("handbook.acme." + %(domain)r, 80, timeout=3).connect()
    found["resolved"] = True
except OSError:
    found["resolved"] = False
print(json.dumps(found))
"""


def test_a_declared_public_host_of_another_tenant_is_reached_as_a_stranger_and_no_other(
    installation: Installation, attacker: Attacker
) -> None:
    domain, port = installation.config.apps_domain, installation.config.apps_port
    source_files = files("visitor", "caller")
    source_files["cytoplane.yaml"] += (
        f"    connections:\n      - external: {{host: storefront.acme.{domain}, port: {port}, protocol: http}}\n"
    )
    # The declaration is the last component's; the first one goes without.
    assert installation.project("globex", "visitor").push(source_files).accepted
    first = f"storefront.acme.{domain}"
    code = DOOR % {"domain": domain, "first": first, "port": port}
    declared = Attacker(installation, user="visitor", root="caller").run(code, root=True)
    assert declared == {
        "storefront.acme": 200,
        "handbook.acme": 404,
        "foothold.globex": 404,
        "resolved": False,
    }
    undeclared = attacker.run(code, root=False)
    assert not [answer for answer in undeclared.values() if isinstance(answer, int) and answer is not False]


def test_no_request_fails_while_a_release_replaces_another(installation: Installation) -> None:
    repository = installation.project("acme", "steady")
    assert repository.push(source("steady", "first")).accepted
    failures: list[str] = []
    answers: list[str] = []
    durations: list[float] = []
    stop = threading.Event()

    def ask(offset: float) -> None:
        """Ten requests a second, each on a connection of its own every other time."""
        client = httpx.Client(timeout=10)
        beat, number = time.monotonic() + offset, 0
        while not stop.is_set():
            beat += 0.1
            time.sleep(max(0.0, beat - time.monotonic()))
            number += 1
            if number % 2:
                client.close()
                client = httpx.Client(timeout=10)
            begun = time.monotonic()
            try:
                answer = client.get(
                    f"http://127.0.0.1:{installation.config.apps_port}/",
                    headers={"Host": f"steady.acme.{installation.config.apps_domain}"},
                )
                answers.append(answer.text)
                if answer.status_code != 200:
                    failures.append(str(answer.status_code))
            except httpx.HTTPError as error:
                failures.append(repr(error))
            durations.append(time.monotonic() - begun)
        client.close()

    threads = [threading.Thread(target=ask, args=(index / 50,)) for index in range(5)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1)
        for version in ("second", "third"):
            assert repository.push(source("steady", version)).accepted
        time.sleep(4)  # through the drain of the old one
        installation.wait(lambda: len(answers) > 200)  # a busy machine asks more slowly
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures[:5]
    assert len(answers) > 200, f"only {len(answers)} requests"
    assert {"first", "second", "third"} <= set(answers)
    assert answers[-1] == "third"
    assert statistics.median(durations) < 1
