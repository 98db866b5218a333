"""Runs on each engine, by the command line as people use it: a command once, a job in a push, a schedule."""

from __future__ import annotations

import pytest

from tests.cluster import LONGEST
from tests.e2e.engines import Engine

pytestmark = [pytest.mark.live, pytest.mark.root, pytest.mark.timeout(LONGEST)]
#: In strict, so that a run shows whose rights it has: `caller` declares the call, `quiet` doesn't.
_DECLARATION = """
strict: true
components:
  api:
    kind: service
    command: exec python server.py
    endpoints:
      raw: {port: 8080, protocol: tcp}
  caller: {kind: worker, command: exec sleep 100000, connections: [{to: api}]}
  quiet: {kind: worker, command: exec sleep 100000}
  tick: {kind: cron, schedule: "* * * * *", command: "echo it is time; exit 3"}
  migrate: {kind: job, command: "echo migrating; exit ${MIGRATION:-0}"}
"""
_SERVER = """
import os, socket
made = socket.create_server(("::", int(os.environ["PORT"])), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    made.accept()[0].close()
"""
FILES = {"cytoplane.yaml": _DECLARATION, "requirements.txt": "", "server.py": _SERVER}
_CALL = "import os, socket; socket.create_connection(('api.runs.cy.internal', 8080), 3); print('reached')"


@pytest.fixture(scope="module")
def project(engine: Engine) -> Engine:
    """A project with something to run, which serves."""
    result = engine.push("runs", FILES)
    assert result.accepted, result.output
    return engine


@pytest.mark.capability("one-off")
def test_a_command_runs_once_with_its_components_settings_and_rights(project: Engine) -> None:
    done = project.cyto("runs", "run", "caller", "--", "python", "-c", _CALL)
    assert (done.returncode, done.stdout) == (0, "reached\n"), done.stderr
    refused = project.cyto("runs", "run", "quiet", "--", "python", "-c", _CALL)
    assert refused.returncode == 1, refused.stderr
    assert "reached" not in refused.stdout
    said = "import os, sys; print(os.environ['CYTOPLANE_COMPONENT'], sys.argv[1]); sys.exit(7)"
    done = project.cyto("runs", "run", "caller", "--timeout", "5m", "--", "python", "-c", said, "a b")
    assert (done.returncode, done.stdout) == (7, "caller a b\n"), done.stderr
    rows = project.call("GET", "runs", "/runs?component=caller")
    assert [(row["state"], row["exit_code"]) for row in rows] == [("failed", 7), ("succeeded", 0)]
    # Nothing of it stays.
    names = {row["id"] for row in project.replicas("runs", "caller")}
    assert not names & {row["replica"] for row in rows}


@pytest.mark.capability("jobs")
def test_a_job_runs_before_its_release_and_one_that_fails_stops_it(project: Engine) -> None:
    (first,) = project.call("GET", "runs", "/runs?component=migrate")
    assert (first["kind"], first["state"]) == ("job", "succeeded")
    before = project.serving("runs")["number"]
    failing = {**FILES, "cytoplane.yaml": _DECLARATION.replace(":-0", ":-9")}
    result = project.push("runs", failing)
    assert not result.accepted
    assert "job-failed" in result.output and "migrating" in result.output
    assert project.serving("runs")["number"] == before


@pytest.mark.capability("cron")
def test_a_schedule_makes_a_run_each_time(project: Engine) -> None:
    def ended() -> list[dict]:
        rows = project.call("GET", "runs", "/runs?component=tick")
        return [row for row in rows if row["kind"] == "cron" and row["state"] == "failed"]

    rows = project.installation.wait(ended, 120)
    times = [row["scheduled_for"] for row in project.call("GET", "runs", "/runs?component=tick")]
    assert len(times) == len(set(times))
    assert rows[-1]["exit_code"] == 3
    found = project.call("GET", "runs", f"/runs/{rows[-1]['id']}")
    assert found["last_lines"] == ["it is time"]
    (schedule,) = project.call("GET", "runs", "/schedules")
    assert schedule["last"]["state"] in ("failed", "starting", "running")
