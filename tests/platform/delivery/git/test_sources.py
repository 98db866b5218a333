"""Which trees a repository takes from a push, with git on both ends: nothing hostile may reach a builder."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from controlplane.errors import CytoplaneError
from delivery.git import repository
from delivery.models import Deployment
from tests.platform.delivery.git.conftest import Clone, Git
from tests.platform.delivery.git.pushing import during, fail, live, refs


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
