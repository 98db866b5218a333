"""What a push does: it succeeds only if the new release serves, and says why if not."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tests.e2e.installation import Installation, source

pytestmark = [pytest.mark.live, pytest.mark.root]


@pytest.fixture(scope="module")
def shop(installation: Installation):
    """A project whose first release serves."""
    repository = installation.project("acme", "pushes")
    first = repository.push(source("pushes", "one"))
    assert first.accepted, first.output
    assert installation.get("pushes.acme").text == "one"
    return repository


@pytest.mark.parametrize(
    ("files", "error", "said"),
    [
        (source("pushes", "bad", files={"requirements.txt": "there-is-no-such-package-q7==1"}), "build-failed", "No matching distribution"),
        ({"notes.txt": "nothing to build"}, "no-buildable-source", "Next:"),
        ({**source("pushes", "bad"), "cytoplane.yaml": "components: {web: {kind: spoon}}"}, "specification", "kind"),
        (source("pushes", "bad", before="raise SystemExit('no database here')"), "process-exited", "no database here"),
        (source("pushes", "bad", unhealthy=True, grace=2), "probe-failed", "GET /healthz on port 8080"),
    ],
)  # fmt: skip
def test_a_push_that_fails_is_declined_with_its_reason_and_the_old_release_serves(
    installation: Installation, shop, files: dict[str, str], error: str, said: str
) -> None:
    before = installation.get("pushes.acme").text
    result = shop.push(files)
    assert not result.accepted
    assert f"error id: {error}" in result.output, result.output
    assert said in result.output
    assert "still serves" in result.output
    assert "Next:" in result.output
    assert installation.get("pushes.acme").text == before
    newest = installation.deployments("acme", "pushes")[0]
    assert newest["state"] == "failed"
    assert newest["error"]["id"] == error
    # Nothing of the failed release is left running.
    assert {row["release"] for row in installation.replicas("acme", "pushes")} == {1}
    shop.git("reset", "--quiet", "--hard", "HEAD~1")


def test_a_client_that_is_cut_off_stops_nothing_and_the_branch_follows(
    installation: Installation, shop
) -> None:
    commit = shop.commit(source("pushes", "two"))
    process = shop.start_push()
    assert process.stdout is not None
    for line in process.stdout:
        if "Building web" in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    installation.wait(lambda: installation.get("pushes.acme").text == "two")
    installation.wait(lambda: shop.git("ls-remote", shop.url, "main").startswith(commit), 40)
    installation.wait(lambda: installation.deployments("acme", "pushes")[0]["state"] == "live", 30)


def test_of_two_pushes_at_once_both_are_told_the_truth(installation: Installation, shop) -> None:
    other = installation.clone("acme", "pushes")
    other.git("pull", "--quiet", shop.url, "main")
    shop.commit(source("pushes", "left"))
    other.commit(source("pushes", "right"))
    results = {}
    threads = [
        threading.Thread(target=lambda n=name, r=repository: results.update({n: r.push()}))
        for name, repository in (("left", shop), ("right", other))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    accepted = [name for name, result in results.items() if result.accepted]
    assert len(accepted) == 1, {name: result.output for name, result in results.items()}
    head = shop.git("ls-remote", shop.url, "main").split()[0]
    winner = shop if accepted == ["left"] else other
    assert head == winner.git("rev-parse", "HEAD")
    installation.wait(lambda: installation.get("pushes.acme").text == accepted[0], 30)
    shop.git("fetch", "--quiet", shop.url, "main")
    shop.git("reset", "--quiet", "--hard", "FETCH_HEAD")


def test_going_back_restores_code_and_configuration_together(installation: Installation) -> None:
    repository = installation.project("acme", "back")
    api, config = installation.api("acme"), installation.cell("acme", "back", "/config")
    assert repository.push(source("back", "old")).accepted
    api.call("PATCH", config, {"set": {"GREETING": "hello"}})
    installation.wait(lambda: installation.get("back.acme").text == "old hello")
    good = api.call("GET", installation.cell("acme", "back", "/releases"))[0]["number"]
    api.call("PATCH", config, {"set": {"GREETING": "wrong"}})
    installation.wait(lambda: installation.get("back.acme").text == "old wrong")
    assert repository.push(source("back", "new")).accepted
    assert installation.get("back.acme").text == "new wrong"
    api.call("POST", installation.cell("acme", "back", f"/releases/{good}/rollback"))
    installation.wait(lambda: installation.get("back.acme").text == "old hello")
    newest = api.call("GET", installation.cell("acme", "back", "/releases"))[0]
    assert newest["number"] > good


def test_environments_are_two_cells_with_addresses_of_their_own(installation: Installation) -> None:
    repository = installation.project("acme", "stages")
    assert repository.push(source("stages", "live")).accepted
    repository.commit(source("stages", "next"))
    result = repository.push(ref="main:staging")
    assert result.accepted, result.output
    assert installation.get("stages.acme").text == "live"
    assert installation.get("stages--staging.acme").text == "next"
