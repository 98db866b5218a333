"""The pages of runs: what they say with nothing there, with a schedule, and of one run."""

from __future__ import annotations

from delivery import run_actions
from delivery.models import Run
from tests import factories
from tests.factories import World

CRON = """
components:
  web: {kind: worker, command: serve}
  tick: {schedule: "*/5 * * * *", command: tick}
"""


def test_runs_and_schedules_are_shown_and_a_cron_is_begun_by_hand(world: World) -> None:
    cell = world.cell()
    browser = factories.client()
    browser.force_login(world.person("developer"))
    where = "/acme/shop/production"
    world.deploy(cell, CRON)
    empty = browser.get(f"{where}/runs").content.decode()
    assert "cyto run tick -e production -- COMMAND" in empty
    assert "*/5 * * * *" in empty
    begun = browser.post(f"{where}/runs/start", {"component": "tick"})
    run = Run.objects.get()
    assert begun.headers["Location"] == f"{where}/runs/{run.pk}"
    cell = world.cell(cell.project)
    secret = run_actions.start(
        acting_user=world.actor("developer"), cell=cell, component="web", words=["login", "hunter2-hunter2"]
    )
    listed = browser.get(f"{where}/runs").content.decode()
    assert f"Run {run.pk}" in listed and "login" in listed
    page = browser.get(f"{where}/runs/{secret.pk}").content.decode()
    assert "1 more word" in page
    assert "hunter2" not in listed + page
    assert "Runs by its schedule" in browser.get(f"{where}/components/tick").content.decode()
    assert browser.post(f"{where}/runs/{run.pk}/cancel").status_code == 302
    run.refresh_from_db()
    assert run.state == "cancelled"
