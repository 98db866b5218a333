"""What a repository takes and what it refuses, with git on both ends."""

from __future__ import annotations

import io
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from django.db import connections

from controlplane.errors import CytoplaneError
from delivery import machine, tasks
from delivery.git import hook_server, pushes, repository
from delivery.models import Build, Deployment, Push
from tests import factories
from tests.factories import World
from tests.platform.delivery.git.conftest import Clone, Git, Pushed


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook_server, "POLL", 0.02)


def during(push: Callable[[], Pushed], work: Callable[[Deployment], None]) -> Pushed:
    """Push, and do ``work`` with its deployment while the pusher waits."""
    results: list[Pushed] = []
    thread = threading.Thread(target=lambda: results.append(push()))
    before = set(Deployment.objects.values_list("pk", flat=True))
    thread.start()
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            new = Deployment.objects.exclude(pk__in=before).first()
            if new is not None and Push.objects.filter(deployment=new).exists():
                work(new)
                break
            assert thread.is_alive(), results
            time.sleep(0.02)
    finally:
        thread.join(40)
    assert results, "the push never ended"
    return results[0]


def live(git: Git) -> Callable[[Deployment], None]:
    return lambda deployment: (git.world.carry(deployment), None)[1]


def fail(deployment: Deployment) -> None:
    machine.advance(deployment.pk)
    Build.objects.filter(deployment=deployment).update(state="failed", result={"error": {}})
    machine.advance(deployment.pk)


def refs(git: Git) -> dict[str, str]:
    path = repository.path_of(git.world.acme.pk, git.project.pk)
    lines = repository.git(path, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    return dict(line.split() for line in lines)  # type: ignore[misc]


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


# Hostile trees. Nothing of them may reach a builder.


def refused(clone: Clone, words: str, archives: Path) -> None:
    kept = set(archives.glob("*")) if archives.exists() else set()
    done = clone.push()
    assert done.code != 0, done.output
    assert words in done.output, done.output
    assert not Deployment.objects.exists()
    assert (set(archives.glob("*")) if archives.exists() else set()) == kept, "its archive is left behind"


@pytest.fixture
def archives() -> Path:
    return repository.archive_path("x").parent


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("a", "/etc/passwd"),
        ("a", "../outside"),
        ("a", ".."),
        ("a", "b/../../c"),
        ("a", "./.././x"),
    ],
)
def test_links_that_leave_the_tree_are_refused(git: Git, archives: Path, path: str, target: str) -> None:
    clone = git.clone()
    clone.tree(("120000", path, clone.blob(target)))
    refused(clone, "leaves the tree", archives)


def test_a_commit_without_files_is_refused_in_words(git: Git, archives: Path) -> None:
    clone = git.clone()
    clone.commit()
    refused(clone, "the commit holds no files", archives)


def test_a_link_that_leaves_through_another_link_is_refused(git: Git, archives: Path) -> None:
    """`deep/up` is the root; `deep/up/..` looks like `deep` and is what lies above the root."""
    clone = git.clone()
    deep = clone.folder / "deep" / "er"
    deep.mkdir(parents=True)
    (deep / "up").symlink_to("../..")
    (clone.folder / "out").symlink_to("deep/er/up/../secret")
    clone.commit()
    refused(clone, "leaves the tree", archives)


def test_links_inside_the_tree_are_fine_also_in_circles(git: Git) -> None:
    clone = git.clone()
    (clone.folder / "deep" / "er").mkdir(parents=True)
    (clone.folder / "deep" / "er" / "up").symlink_to("../../file")
    (clone.folder / "deep" / "again").symlink_to("er/up")
    (clone.folder / "one").symlink_to("other")
    (clone.folder / "other").symlink_to("one")
    (clone.folder / "dangling").symlink_to("nothing/../here")
    clone.commit(file="x")
    assert during(clone.push, live(git)).code == 0


@pytest.mark.parametrize("name", ["..", ".", ".git", ".GIT", "a/b"])
def test_names_that_git_itself_must_refuse(git: Git, name: str) -> None:
    clone = git.clone()
    inner = clone.git("mktree", data=f"100644 blob {clone.blob('x')}\tf\n".encode()).strip()
    raw = f"40000 {name}\0".encode() + bytes.fromhex(inner)
    tree = clone.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", data=raw).strip()
    commit = clone.git("commit-tree", tree, "-m", "handmade").strip()
    clone.git("update-ref", "refs/heads/main", commit)
    done = clone.push()
    assert done.code != 0
    assert not Deployment.objects.exists()
    assert refs(git) == {}


def test_too_many_files_are_refused(git: Git, archives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "MOST_FILES", 5)
    clone = git.clone()
    clone.commit(**{f"f{n}": "x" for n in range(6)})
    refused(clone, "more than 5 files", archives)


def test_too_large_an_archive_is_refused(git: Git, archives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros pack well: what is small on the way is bounded when it is unpacked."""
    monkeypatch.setattr(repository, "LARGEST_ARCHIVE", 2**20)
    clone = git.clone()
    (clone.folder / "zeros").write_bytes(bytes(8 * 2**20))
    clone.commit()
    refused(clone, "larger than 1 MiB", archives)


def test_too_large_a_push_is_refused(git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "LARGEST_PUSH", 2**16)
    monkeypatch.setitem(repository._OPTIONS, "receive.maxInputSize", str(2**16))
    clone = git.clone()
    (clone.folder / "noise").write_bytes(b"".join(bytes([n * n % 251, n % 256]) for n in range(2**17)))
    noise = subprocess.run(["head", "-c", "400000", "/dev/urandom"], capture_output=True, check=True).stdout
    (clone.folder / "more").write_bytes(noise)
    clone.commit()
    assert clone.push().code != 0
    assert not Deployment.objects.exists()


def test_an_object_that_unpacks_to_more_than_memory_is_refused(
    git: Git, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(repository, "MEMORY", 96 * 2**20)
    clone = git.clone()
    clone.commit("Small", a="1")
    # What is small in a pack and is held as a whole; files aren't.
    (tmp_path / "message").write_text("x" * 128 * 2**20)
    bomb = clone.git("commit-tree", "HEAD^{tree}", "-F", str(tmp_path / "message")).strip()
    done = clone.push(f"{bomb}:refs/heads/notes")
    assert done.code != 0, done.output
    assert refs(git) == {}
    (clone.folder / "zeros").write_bytes(bytes(128 * 2**20))
    clone.commit("A large file")
    done = clone.push("main:notes")
    assert done.code == 0, done.output


def test_hooks_and_settings_of_the_source_are_never_run(git: Git, tmp_path: Path) -> None:
    clone = git.clone()
    mark = tmp_path / "ran"
    script = f"#!/bin/sh\ntouch {mark}\n"
    for name in ("pre-receive", "post-receive", "update"):
        (clone.folder / name).write_text(script)
        (clone.folder / name).chmod(0o755)
    (clone.folder / ".gitattributes").write_text("* filter=evil export-subst\n*.x export-ignore\n")
    (clone.folder / ".gitconfig").write_text(
        f'[filter "evil"]\n\tclean = touch {mark}\n[core]\n\tfsmonitor = touch {mark}\n'
    )
    (clone.folder / ".gitmodules").write_text('[submodule "x"]\n\tpath = x\n\turl = ext::sh -c touch%20x\n')
    clone.commit()
    during(clone.push, fail)
    path = repository.path_of(git.world.acme.pk, git.project.pk)
    assert not mark.exists()
    assert not (path / "hooks").exists() or not list((path / "hooks").iterdir())


# The archive's own inspection, for archives that git wouldn't make.


def archive_of(tmp_path: Path, *members: tarfile.TarInfo) -> Path:
    file = tmp_path / "x.tar"
    with tarfile.open(file, "w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"") if member.isreg() else None)
    return file


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


@pytest.mark.parametrize(
    "hostile",
    [
        member("/etc/passwd"),
        member("../x"),
        member("a/../../x"),
        member("a", tarfile.LNKTYPE, "/etc/passwd"),
        member("a", tarfile.CHRTYPE),
        member("a", tarfile.BLKTYPE),
        member("a", tarfile.FIFOTYPE),
        member("a/b/c", tarfile.SYMTYPE, "../../../x"),
    ],
    ids=lambda value: f"{value.name}:{value.type.decode()}",
)
def test_members_that_are_more_than_files_are_refused(tmp_path: Path, hostile: tarfile.TarInfo) -> None:
    with pytest.raises(CytoplaneError) as caught:
        repository._inspect(archive_of(tmp_path, member("fine"), hostile))
    assert caught.value.code == "source-rejected"


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
    from tenants.actions import set_tenant_state

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
    import json
    import socket

    clone = git.clone()
    clone.commit(a="1")
    assert clone.push("main:feature").code == 0  # the socket is there now
    from django.conf import settings

    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(10)
        stranger.connect(str(settings.CONFIG.run / "web" / "hooks.sock"))
        request = {"capability": "guess", "objects": "/x", "alternates": "/x", "updates": []}
        stranger.sendall(json.dumps(request).encode() + b"\n")
        answer = stranger.makefile().read()
    assert '"verdict": "decline"' in answer
    assert "isn't known" in answer


def test_a_destroyed_project_takes_its_repository_with_it(git: Git, queue) -> None:  # type: ignore[no-untyped-def]
    from projects import actions as projects

    clone = git.clone()
    clone.commit(a="1")
    assert clone.push("main:feature").code == 0
    path = repository.path_of(git.world.acme.pk, git.project.pk)
    assert path.exists()
    projects.destroy_project(acting_user=git.world.actor(), project=git.project, confirm="shop")
    queue.run()
    assert not path.exists()
