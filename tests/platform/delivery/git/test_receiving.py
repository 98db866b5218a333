"""Pushes: what they move and start, who may, and what becomes of one whose pusher goes; git on both ends."""

from __future__ import annotations

import json
import socket
import subprocess
import tarfile
import threading
import time

import httpx
import pytest
from django.conf import settings
from django.db import connections

from controlplane.errors import CytoplaneError
from delivery import tasks
from delivery.git import pushes, repository
from delivery.models import Deployment, Push
from projects import actions as projects
from tenants.actions import set_tenant_state
from tests import factories
from tests.factories import World
from tests.platform.delivery.git.conftest import Git, Pushed
from tests.platform.delivery.git.pushing import during, fail, live, refs


def test_a_push_succeeds_when_its_release_serves(git: Git) -> None:
    clone = git.clone()
    commit = clone.commit("First of all", Procfile="web: x\n")
    done = during(clone.push, live(git))
    assert done.code == 0, done.output
    assert "v1 is live in production" in done.output
    assert refs(git)["refs/heads/main"] == commit
    push = Push.objects.get()
    assert (push.branch, push.old_commit, push.new_commit) == ("main", repository.ZERO, commit)
    assert push.moved_by == "client"
    assert push.deployment.summary == "First of all"
    archive = repository.archive_path(push.deployment.build.archive)
    with tarfile.open(archive) as tar:
        assert tar.getnames() == ["Procfile"]
    again = git.clone("viewer")
    assert again.git("ls-remote", again.url).split() == [commit, "HEAD", commit, "refs/heads/main"]


def test_a_push_is_refused_when_its_release_fails_and_the_branch_stays(git: Git) -> None:
    clone = git.clone()
    clone.commit("Broken", a="1")
    done = during(clone.push, fail)
    assert done.code != 0
    assert "error id: build-failed" in done.output
    assert "refs/heads/main" not in refs(git)
    assert Push.objects.get().moved_by == "nobody"


def test_branches_that_deploy_nothing_are_kept(git: Git) -> None:
    clone = git.clone()
    commit = clone.commit("An idea", a="1")
    done = clone.push("main:feature/idea")
    assert done.code == 0, done.output
    assert "`feature/idea` is kept but deploys nothing" in done.output
    assert refs(git) == {"refs/heads/feature/idea": commit}
    assert not Deployment.objects.exists()
    assert clone.push(":feature/idea").code == 0
    assert refs(git) == {}


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ("refs/tags/v1", "only branches are accepted"),
        ("refs/notes/x", "only branches are accepted"),
        ("refs/meta/config", "only branches are accepted"),
        ("refs/cytoplane/pushes/x", "hidden ref"),
        ("refs/cytoplane/x", "hidden ref"),
    ],
)
def test_refs_other_than_branches_are_refused(git: Git, destination: str, words: str) -> None:
    clone = git.clone()
    clone.commit(a="1")
    done = clone.push(f"main:{destination}")
    assert done.code != 0
    assert words in done.output
    assert refs(git) == {}
    assert not Deployment.objects.exists()


def test_two_deploying_branches_at_once_and_deleting_one_are_refused(git: Git) -> None:
    clone = git.clone()
    clone.commit(a="1")
    both = clone.push("main:main", "main:staging")
    assert both.code != 0
    assert "one branch at a time" in both.output
    assert during(clone.push, live(git)).code == 0
    gone = clone.push(":main")
    assert gone.code != 0
    assert "can't be deleted" in gone.output
    assert "refs/heads/main" in refs(git)


def test_a_refused_branch_takes_the_others_of_the_push_with_it(git: Git) -> None:
    clone = git.clone()
    clone.commit(a="1")
    done = clone.push("main:feature", "main:refs/tags/v1")
    assert done.code != 0
    assert refs(git) == {}


def test_hidden_refs_are_seen_by_nobody(git: Git) -> None:
    clone = git.clone()
    clone.commit("Secret try", a="1")
    during(clone.push, fail)
    hidden = [name for name in refs(git) if name.startswith(repository.HIDDEN)]
    assert len(hidden) == 1
    assert clone.git("ls-remote", clone.url) == ""
    fetched = clone.run("fetch", clone.url, f"{hidden[0]}:refs/heads/stolen")
    assert fetched.returncode != 0


# Who may.


@pytest.mark.parametrize(
    ("role", "tenant", "service", "status"),
    [
        ("viewer", "acme", "git-upload-pack", 200),
        ("viewer", "acme", "git-receive-pack", 403),
        ("developer", "acme", "git-receive-pack", 200),
        ("owner", "globex", "git-upload-pack", 404),
        ("owner", "globex", "git-receive-pack", 404),
    ],
)
def test_roles_decide_about_reading_and_pushing(
    git: Git, role: str, tenant: str, service: str, status: int
) -> None:
    secret = factories.bearer(git.world.person(role, tenant))
    answer = httpx.get(f"{git.url(secret)}/info/refs?service={service}", trust_env=False)
    assert answer.status_code == status


def test_a_foreign_repository_is_answered_like_a_missing_one(git: Git) -> None:
    secret = factories.bearer(git.world.person("owner", "globex"))
    answers = set()
    for path in ("acme/shop.git", "acme/nothing.git", "nowhere/shop.git"):
        answer = httpx.get(f"{git.url(secret, path)}/info/refs?service=git-upload-pack", trust_env=False)
        answers.add((answer.status_code, answer.text.replace("tenant", "thing").replace("project", "thing")))
    assert len(answers) == 1


def test_without_a_live_token_git_is_asked_for_one(git: Git) -> None:
    base = f"http://127.0.0.1:{git.server.port}/git/acme/shop.git/info/refs?service=git-upload-pack"
    read_only = factories.bearer(git.world.person(), ("read",))
    for headers in ({}, {"Authorization": "Basic !!!"}, {"Authorization": "Bearer x"}):
        answer = httpx.get(base, headers=headers, trust_env=False)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
    push = base.replace("upload", "receive")
    assert httpx.get(push, auth=("x", read_only), trust_env=False).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "acme/shop.git/HEAD",
        "acme/shop.git/objects/info/packs",
        "acme/shop.git/config",
        "acme/../acme/shop.git/info/refs",
        "acme/shop.git/info/refs?service=git-upload-archive",
        "acme/shop.git/info/refs",
    ],
)
def test_only_the_smart_protocol_is_served(git: Git, path: str) -> None:
    secret = factories.bearer(git.world.person())
    answer = httpx.get(git.url(secret, path), trust_env=False)
    assert answer.status_code == 404


def test_a_suspended_tenant_reads_and_cant_push(git: Git) -> None:
    secret = factories.bearer(git.world.person())
    set_tenant_state(acting_user=git.world.root, tenant=git.world.acme, state="suspended")
    for service, status in (("git-upload-pack", 200), ("git-receive-pack", 403)):
        answer = httpx.get(f"{git.url(secret)}/info/refs?service={service}", trust_env=False)
        assert answer.status_code == status


# The pusher goes away.


def test_the_worker_moves_the_branch_of_a_pusher_who_left(git: Git, queue) -> None:  # type: ignore[no-untyped-def]
    world, clone = git.world, git.clone()
    commit = clone.commit(a="1")
    process: list[subprocess.Popen] = []

    def interrupted() -> Pushed:
        process.append(
            subprocess.Popen(
                ["git", "-C", str(clone.folder), "push", "-q", clone.url, "main"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        return Pushed(process[0].wait(), "")

    def work(deployment: Deployment) -> None:
        process[0].kill()
        process[0].wait()
        # The hook is this side's own and would go on; a restart of the web process ends it.
        Push.objects.filter(deployment=deployment).update(moved_by="worker")
        world.carry(deployment)

    assert during(interrupted, work).code != 0
    push = Push.objects.get()
    end = time.monotonic() + 10
    while Deployment.objects.get(pk=push.deployment_id).state != "live" and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.3)
    assert "refs/heads/main" not in refs(git), "the worker's claim kept the hook from moving it"
    old = "2020-01-01T00:00:00Z"
    Push.objects.update(moved_by="nobody", attached_at=old)
    tasks.finish_push(push.deployment_id)
    assert refs(git)["refs/heads/main"] == commit
    push.refresh_from_db()
    assert push.moved_by == "worker"
    tasks.finish_push(push.deployment_id)
    assert refs(git)["refs/heads/main"] == commit


def test_exactly_one_side_moves_the_branch(committed_world: World) -> None:
    deployment = committed_world.push(committed_world.cell())
    verdicts: list[str] = []

    def claim() -> None:
        try:
            verdicts.append(pushes._claim(deployment))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=claim) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(verdicts) == ["accept"] + ["decline"] * 5


def test_an_attached_pusher_is_waited_for(committed_world: World, queue) -> None:  # type: ignore[no-untyped-def]
    deployment = committed_world.push(committed_world.cell())
    queue.clear()
    tasks.finish_push(deployment.pk)
    assert Push.objects.get().moved_by == "nobody"
    assert [(task.name, task.later) for task in queue.waiting()] == [("delivery.finish_push", True)]


def test_objects_from_elsewhere_arent_taken_for_a_quarantine(git: Git) -> None:
    path = repository.repository_of(git.project)
    received = pushes.Received(actor=git.world.actor(), project=git.project)
    for objects in ("/etc", f"{path}/objects/../../other.git/objects/x", f"{path}/objects", ""):
        with pytest.raises(CytoplaneError) as caught:
            pushes.begin(received, [["0" * 40, "1" * 40, "refs/heads/main"]], objects, "")
        assert caught.value.code == "source-rejected"


def test_a_hook_without_this_pushs_capability_is_told_nothing(git: Git) -> None:
    clone = git.clone()
    clone.commit(a="1")
    assert clone.push("main:feature").code == 0  # the socket is there now
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(10)
        stranger.connect(str(settings.CONFIG.run / "web" / "hooks.sock"))
        request = {"capability": "guess", "objects": "/x", "alternates": "/x", "updates": []}
        stranger.sendall(json.dumps(request).encode() + b"\n")
        answer = stranger.makefile().read()
    assert '"verdict": "decline"' in answer
    assert "isn't known" in answer


def test_a_destroyed_project_takes_its_repository_with_it(git: Git, queue) -> None:  # type: ignore[no-untyped-def]
    clone = git.clone()
    clone.commit(a="1")
    assert clone.push("main:feature").code == 0
    path = repository.path_of(git.world.acme.pk, git.project.pk)
    assert path.exists()
    projects.destroy_project(acting_user=git.world.actor(), project=git.project, confirm="shop")
    queue.run()
    assert not path.exists()
