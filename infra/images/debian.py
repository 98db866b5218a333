"""Layers of Debian packages, by mmdebstrap: the base of all images, and what an image has beyond it."""

from __future__ import annotations

import hashlib
import re
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from infra import base_recipe
from infra.images.oci import Entry, file

#: What every part needs: the interpreter, and what agent and launchers call.
BASE = ("python3", "ca-certificates", "libbpf1", "nftables", "iproute2", "util-linux")
#: Of the control plane: repositories and smart HTTP.
GIT = (*BASE, "git")
#: Parts' users. An installation's number N gives it 61000 + 16 N and so on; the one without a number is what
#: parts run as that touch nothing of a node.
_PARTS = ("", "-db", "-redis", "-reg", "-gw", "-dns", "-index")
_FIRST, _EACH, _NUMBERS = 61000, 16, 16
CYTOPLANE = 10001
#: Nobody reads documents in an image; clocks are UTC; what is made again at each start needn't be there.
_LEFT_OUT = re.compile(
    r"(dev|proc|sys|run|tmp|var/cache|var/log|var/lib/apt|var/tmp|usr/share/(doc|man|info|locale|lintian|"
    r"zoneinfo|bug|pixmaps|bash-completion|gitweb|vim)|usr/lib/python3\.11/(test|idlelib|turtledemo|tkinter|"
    r"lib2to3|ensurepip|pydoc_data|distutils)|usr/lib/git-core/mergetools)/.+|etc/(hostname|resolv\.conf|"
    r"machine-id|.*-)|usr/share/perl5?/.*\.pod|.*\.pyo"
)
_HOOKS = (
    # Compiled code that is checked against nothing: times are the same everywhere, and nobody may write it.
    'chroot "$1" python3 -m compileall -q -f --invalidation-mode unchecked-hash /usr/lib/python3.11 '
    "/usr/lib/python3 >/dev/null || :",
)


def user(number: int, part: str) -> int:
    """User and group id of an installation's part."""
    return _FIRST + number * _EACH + _PARTS.index(part)


def _users() -> list[tuple[str, int]]:
    numbered = [(f"cy{number}{part}", user(number, part)) for number in range(_NUMBERS) for part in _PARTS]
    return [("cytoplane", CYTOPLANE), *numbered]


def key(packages: tuple[str, ...]) -> str:
    """Changes with everything that decides what is in the layer but Debian's versions."""
    own = Path(__file__).read_bytes()
    return hashlib.sha256(" ".join(packages).encode() + own).hexdigest()[:12]


def _read(tar: tarfile.TarFile) -> Iterator[Entry]:
    for entry in tar:
        entry.name = entry.name.removeprefix("./").strip("/")
        if not entry.name or entry.name == "." or _LEFT_OUT.fullmatch(entry.name) or entry.isdev():
            continue
        if entry.islnk():
            entry.linkname = entry.linkname.removeprefix("./").strip("/")
        # Nothing in an image gets more rights than it starts with.
        entry.mode &= ~0o6000
        source = tar.extractfile(entry) if entry.isreg() else None
        yield entry, source.read() if source is not None else None


def _tree(packages: tuple[str, ...]) -> dict[str, Entry]:
    """Path → what is there. Raises ``RuntimeError``."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "root.tar"
        base_recipe.run(
            [
                "mmdebstrap",
                "--quiet",
                "--mode=root",
                "--variant=minbase",
                f"--include={','.join(packages)}",
                *(f"--customize-hook={hook}" for hook in _HOOKS),
                "bookworm",
                str(root),
            ]
        )
        with tarfile.open(root) as tar:
            found = {entry.name: (entry, content) for entry, content in _read(tar)}
    for name, line in (
        ("passwd", "{0}:x:{1}:{1}::/nonexistent:/usr/sbin/nologin\n"),
        ("group", "{0}:x:{1}:\n"),
    ):
        entry, content = found[f"etc/{name}"]
        text = (content or b"").decode() + "".join(line.format(*each) for each in _users())
        found[f"etc/{name}"] = file(entry.name, text.encode(), entry.mode)
    # What would tell two builds apart and nothing reads.
    for name in ("var/lib/dpkg/status-old", "etc/ld.so.cache-", "var/lib/systemd/catalog/database"):
        found.pop(name, None)
    return found


def base() -> list[Entry]:
    """A root with the interpreter."""
    found = _tree(BASE)
    return _ordered(found)


def beyond(packages: tuple[str, ...], below: Path) -> list[Entry]:
    """What a root with these has and the base, whose layer is the file ``below``, hasn't."""
    with tarfile.open(below) as tar:
        with_base = {entry.name: (entry, content) for entry, content in _read(tar)}
    whole = _tree(packages)
    return _ordered({name: item for name, item in whole.items() if _differs(item, with_base.get(name))})


def _differs(item: Entry, other: Entry | None) -> bool:
    def what(entry: Entry) -> tuple:
        described = entry[0]
        return (described.type, described.mode, described.uid, described.gid, described.linkname, entry[1])

    return other is None or what(item) != what(other)


def _ordered(found: dict[str, Entry]) -> list[Entry]:
    """In the order of names; hard links come after what they are links to."""
    names = sorted(found, key=lambda name: (found[name][0].islnk(), name))
    return [found[name] for name in names]
