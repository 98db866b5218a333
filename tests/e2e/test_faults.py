"""Parts die in the middle of a deployment: the old release serves or the new one, never neither."""

from __future__ import annotations

import threading
import time

import httpx
import pytest

from infra import supervisor
from tests.e2e.attacker import Attacker
from tests.e2e.installation import Installation, source

pytestmark = [pytest.mark.live, pytest.mark.root]
ENDED = {"live", "failed", "cancelled"}


@pytest.fixture(scope="module")
def victim(installation: Installation):
    repository = installation.project("acme", "faults")
    assert repository.push(source("faults", "version-0")).accepted
    return repository


def state(installation: Installation) -> str:
    return installation.deployments("acme", "faults")[0]["state"]


@pytest.mark.parametrize(
    ("part", "moment"),
    [
        ("worker", "building"),
        ("worker", "starting"),
        ("builder", "building"),
        ("agent", "starting"),
        ("gateway", "starting"),
        ("redis", "building"),
        ("redis", "starting"),
        ("postgres", "building"),
        ("postgres", "starting"),
        ("web", "building"),
        ("resolver", "starting"),
    ],
)
def test_a_part_that_dies_leaves_one_release_serving_and_true_records(
    installation: Installation, victim, part: str, moment: str, request: pytest.FixtureRequest
) -> None:
    before = installation.get("faults.acme").text
    version = f"{part}-{moment}"
    number = len(installation.deployments("acme", "faults"))
    victim.commit(source("faults", version, before="time.sleep(1)"))
    push = victim.start_push()
    output: list[str] = []
    reader = threading.Thread(target=lambda: output.extend(push.stdout or []))
    reader.start()

    def reached() -> bool:
        rows = installation.deployments("acme", "faults")
        return len(rows) > number and rows[0]["state"] in (moment, *ENDED)

    installation.wait(reached, 60, every=0.02)
    installation.kill(part)
    push.wait(timeout=170)
    reader.join()
    installation.wait(lambda: state(installation) in ENDED, 120)
    installation.wait(installation.healthy, 90)
    ended = state(installation)
    # The records tell what is served.
    expected = version if ended == "live" else before
    installation.wait(lambda: installation.get("faults.acme").text == expected, 30)
    installation.wait(
        lambda: [row["phase"] for row in installation.replicas("acme", "faults")] == ["healthy"], 40
    )
    # The branch is where the released commit is, whoever moved it.
    if ended == "live":
        commit = victim.git("rev-parse", "HEAD")
        installation.wait(lambda: victim.git("ls-remote", victim.url, "main").startswith(commit), 40)
    else:
        assert push.returncode != 0, "".join(output)
        victim.git("reset", "--quiet", "--hard", "HEAD~1")


def containers(installation: Installation) -> dict[str, str]:
    """Name → process id of what runs."""
    done = installation.podman("ps", "--format", "{{.Names}} {{.Pid}}")
    return dict(line.split() for line in done.stdout.splitlines())


def test_applications_go_on_without_the_control_plane(installation: Installation, victim) -> None:
    before = containers(installation)
    parts = ["web", "worker", "beat", "control-gateway", "redis", "postgres", "registry"]
    supervisor.stop(installation.config, parts)
    try:
        for _ in range(5):
            assert installation.get("storefront.acme").status_code == 200
            time.sleep(0.2)
        installation.kill("agent")  # and it comes back from its last state alone
        time.sleep(4)
        assert installation.get("storefront.acme").status_code == 200
        assert containers(installation) == before
    finally:
        supervisor.start(installation.config, reversed(parts))
    installation.wait(installation.healthy, 90)
    assert containers(installation) == before


def test_an_agent_that_dies_interrupts_no_connection_and_opens_none(
    installation: Installation, attacker: Attacker, victim
) -> None:
    before = containers(installation)
    with httpx.Client(timeout=10) as client:

        def ask() -> int:
            return client.get(
                f"http://127.0.0.1:{installation.config.apps_port}/",
                headers={"Host": f"storefront.acme.{installation.config.apps_domain}"},
            ).status_code

        assert ask() == 200
        installation.kill("agent")
        code = PROBE % {"host": _api_address(installation), "port": 9000}
        denied = [attacker.run(code, root=False) for _ in range(3)]
        assert ask() == 200
        assert all(answer != "reached" for answer in denied), denied
    installation.wait(installation.healthy, 60)
    assert containers(installation) == before


PROBE = """
import json, socket
try:
    socket.create_connection((%(host)r, %(port)d), timeout=2).close()
    print(json.dumps("reached"))
except OSError as error:
    print(json.dumps(str(error)))
"""


def _api_address(installation: Installation) -> str:
    return installation.replicas("acme", "storefront", "api")[0]["v4"]


def test_a_workload_that_dies_is_started_again(installation: Installation, victim) -> None:
    name = next(
        name for name in containers(installation)
        if name.endswith("-" + installation.replicas("acme", "faults")[0]["id"])
    )  # fmt: skip
    pid = containers(installation)[name]
    installation.podman("kill", name)
    installation.wait(lambda: containers(installation).get(name) not in (None, pid), 30)
    installation.wait(lambda: installation.get("faults.acme").status_code == 200, 30)
