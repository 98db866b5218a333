"""Bare repositories on disk. Nothing of a repository's content is ever run here.

Only git's plumbing touches them, with an environment of our own: no user or system configuration,
our hooks alone, object checks on receipt. Everything is addressed by numbers, never by names.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

from django.conf import settings

from controlplane.errors import CytoplaneError
from projects.models import Project

LARGEST_PUSH = 128 * 2**20
LARGEST_ARCHIVE = 256 * 2**20
#: Memory of each process that serves a client: an object of many gigabytes is a few megabytes in a pack,
#: and git holds objects as a whole.
MEMORY = 2**30
MOST_FILES = 20000
#: As the kernel: a longer chain of links is an error to whoever opens it.
_MOST_LINKS = 40
ZERO = "0" * 40
HIDDEN = "refs/cytoplane"
HOOKS = Path(__file__).parent / "hooks"
_OPTIONS = {
    "core.hooksPath": str(HOOKS),
    "core.alternateRefsCommand": "true",
    # Larger files aren't held as a whole.
    "core.bigFileThreshold": "16m",
    "receive.fsckObjects": "true",
    "transfer.fsckObjects": "true",
    "receive.maxInputSize": str(LARGEST_PUSH),
    "receive.denyCurrentBranch": "ignore",
    "receive.autogc": "false",
    # Whether a push waits for a plane that is offline.
    "receive.advertisePushOptions": "true",
    "transfer.hideRefs": HIDDEN,
    "uploadpack.allowFilter": "true",
    "uploadpack.hideRefs": HIDDEN,
    "gc.auto": "0",
    "protocol.file.allow": "user",
}


def path_of(tenant_id: int, project_id: int) -> Path:
    return settings.CONFIG.git_dir / str(tenant_id) / f"{project_id}.git"


def repository_of(project: Project) -> Path:
    """The project's repository; made when it is first asked for."""
    path = path_of(project.tenant_id, project.pk)
    if not (path / "HEAD").exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        git(None, "init", "--quiet", "--bare", "--initial-branch=main", "--template=", str(path))
    return path


def remove(tenant_id: int, project_id: int) -> None:
    shutil.rmtree(path_of(tenant_id, project_id), ignore_errors=True)


def environment(**more: str) -> dict[str, str]:
    """What git runs with: nothing inherited but the path."""
    values = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_COUNT": str(len(_OPTIONS) + 1),
        f"GIT_CONFIG_KEY_{len(_OPTIONS)}": "safe.directory",
        f"GIT_CONFIG_VALUE_{len(_OPTIONS)}": "*",
    }
    for number, (key, value) in enumerate(_OPTIONS.items()):
        values[f"GIT_CONFIG_KEY_{number}"] = key
        values[f"GIT_CONFIG_VALUE_{number}"] = value
    return values | more


def git(
    path: Path | None, *arguments: str, extra: dict[str, str] | None = None, data: bytes | None = None
) -> str:
    """Run a git command; its output. Raises ``CalledProcessError``."""
    command = ["git", *(["--git-dir", str(path)] if path else []), *arguments]
    done = subprocess.run(
        command, env=environment(**(extra or {})), input=data, capture_output=True, check=True, timeout=120
    )
    return done.stdout.decode(errors="replace")


def archive_path(name: str) -> Path:
    """Where a source archive lies; ``name`` is one that ``store`` made."""
    return settings.CONFIG.archives_dir / Path(name).name


def store(path: Path, commit: str, quarantine: dict[str, str]) -> str:
    """Keep a pushed commit before the quarantine vanishes: its source archive and its objects.

    Returns the archive's name. Raises ``source-rejected`` if the tree may not leave the repository.
    """
    name = f"{secrets.token_hex(16)}.tar"
    target = archive_path(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    command = ["git", "--git-dir", str(path), "archive", "--format=tar", f"--output={target}", commit]
    try:
        subprocess.run(
            ["prlimit", f"--fsize={LARGEST_ARCHIVE}", *command],
            env=environment(**quarantine),
            capture_output=True,
            check=True,
            timeout=120,
        )
        _inspect(target)
    except subprocess.SubprocessError:
        target.unlink(missing_ok=True)
        raise CytoplaneError("source-rejected", reason=f"it is larger than {LARGEST_ARCHIVE // 2**20} MiB")
    except CytoplaneError:
        target.unlink(missing_ok=True)
        raise
    return name


def keep(path: Path, commit: str, archive: str, quarantine: dict[str, str]) -> None:
    """Copy the commit's objects out of the quarantine, under a ref that nobody sees."""
    known = git(path, "for-each-ref", "--format=%(objectname)").split()
    revisions = "".join([f"{commit}\n", *(f"^{name}\n" for name in set(known))]).encode()
    pack = subprocess.run(
        ["git", "--git-dir", str(path), "pack-objects", "--revs", "--stdout", "-q", "--delta-base-offset"],
        env=environment(**quarantine),
        input=revisions,
        capture_output=True,
        check=True,
        timeout=120,
    ).stdout
    if pack:
        git(path, "unpack-objects", "-q", data=pack)
    git(path, "update-ref", _hidden(archive), commit)


def _hidden(archive: str) -> str:
    return f"{HIDDEN}/pushes/{Path(archive).stem}"


def forget(project: Project, archive: str) -> None:
    """Delete a push's source archive and its hidden ref; its branch holds the objects now."""
    archive_path(archive).unlink(missing_ok=True)
    path = repository_of(project)
    subprocess.run(
        ["git", "--git-dir", str(path), "update-ref", "-d", _hidden(archive)],
        env=environment(),
        capture_output=True,
        check=False,
    )


def _inspect(archive: Path) -> None:
    """Refuse what could leave the tree when it is unpacked, and a tree that holds nothing."""
    links: dict[tuple[str, ...], str] = {}
    with contextlib.ExitStack() as stack:
        try:
            tar = stack.enter_context(tarfile.open(archive, "r:"))
        except tarfile.ReadError:
            # git writes no member at all for an empty tree, and Python takes that for no archive.
            raise CytoplaneError("source-rejected", reason="the commit holds no files") from None
        for count, member in enumerate(tar, start=1):
            if count > MOST_FILES:
                raise CytoplaneError("source-rejected", reason=f"it has more than {MOST_FILES} files")
            parts = PurePosixPath(member.name).parts
            if member.name.startswith("/") or ".." in parts:
                raise CytoplaneError(
                    "source-rejected", reason=f"the path `{member.name[:80]}` leaves the tree"
                )
            if not (member.isfile() or member.isdir() or member.issym()):
                raise CytoplaneError(
                    "source-rejected", reason=f"`{member.name[:80]}` is no file, folder or link"
                )
            if member.issym():
                links[parts] = member.linkname
    for parts in links:
        if _leaves(parts, links):
            raise CytoplaneError(
                "source-rejected", reason=f"the link `{'/'.join(parts)[:80]}` leaves the tree"
            )


def _leaves(link: tuple[str, ...], links: dict[tuple[str, ...], str]) -> bool:
    """Whether following a link leads out of the tree, by way of other links too.

    ``deep/up`` that leads to the root makes ``deep/up/..`` what lies above it. A chain that is longer
    than the kernel follows can't be opened by anybody.
    """
    place: list[str] = []
    ahead = list(reversed(link))
    followed = 0
    while ahead:
        part = ahead.pop()
        if part == "..":
            if not place:
                return True
            place.pop()
            continue
        place.append(part)
        target = links.get(tuple(place))
        if target is None:
            continue
        if target.startswith("/"):
            return True
        followed += 1
        if followed > _MOST_LINKS:
            return False
        place.pop()
        ahead.extend(reversed([step for step in target.split("/") if step not in ("", ".")]))
    return False


def head(project: Project, branch: str) -> str:
    """The commit that a branch is at; zeros where there is none."""
    path = path_of(project.tenant_id, project.pk)
    if not (path / "HEAD").exists():
        return ZERO
    try:
        return git(path, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}").strip()
    except subprocess.CalledProcessError:
        return ZERO


def move_branch(project: Project, branch: str, new: str, old: str) -> bool:
    """Move a branch by compare-and-swap, on behalf of a pusher who went away."""
    path = repository_of(project)
    try:
        git(path, "update-ref", f"refs/heads/{branch}", new, old)
    except subprocess.CalledProcessError:
        return False
    return True


def summary(path: Path, commit: str, quarantine: dict[str, str]) -> str:
    """First line of a commit's message."""
    return git(path, "log", "-1", "--format=%s", commit, extra=quarantine).strip()[:200]
