"""``python -m infra.images``: builds the images of all parts into the cache; what is there costs a second.

    python -m infra.images                               build, list
    python -m infra.images archive FILE [IMAGE…]         one OCI archive of them, named cytoplane.dev/IMAGE:VERSION
    python -m infra.images push REGISTRY/PATH [IMAGE…]   to a registry, as REGISTRY/PATH/IMAGE:VERSION

``VERSION`` is that of pyproject.toml unless ``CYTOPLANE_IMAGE_TAG`` says otherwise. Debian's packages are
fetched anew with ``FRESH=1``. A registry without TLS is one on loopback, or with ``PLAIN=1``.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from bpf.errors import LoadError
from dataplane.cni.build import BuildError
from infra import config as installation
from infra.images import parts, recipe
from infra.images.oci import Store

_LOOPBACK = re.compile(r"(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?/")


def store(cache: Path) -> Store:
    return Store(cache / "images")


def version() -> str:
    """The tag of images made now."""
    project = tomllib.loads((parts.REPOSITORY / "pyproject.toml").read_text())["project"]
    return os.environ.get("CYTOPLANE_IMAGE_TAG") or project["version"]


def build(cache: Path, say: recipe.Say, *, fresh: bool = False) -> dict[str, str]:
    """Image → digest of its manifest; what is missing is made. Two at once wait for each other.

    Raises ``RuntimeError``, ``BuildError`` or ``LoadError`` with what a command said.
    """
    found = store(cache)
    found.prepare()
    with (found.root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if fresh:
            for record in (found.root / "layers").glob("*.json"):
                record.unlink()
        return found.write(recipe.Builder(found, cache, say).images())


def archive(cache: Path, target: Path, names: list[str], tag: str) -> None:
    store(cache).archive(target, {name: f"{recipe.PREFIX}/{name}:{tag}" for name in names})


def push(cache: Path, place: str, names: list[str], tag: str, *, plain: bool = False) -> list[str]:
    """The references of what was pushed, by digest. Raises ``RuntimeError``."""
    found, pushed = store(cache), []
    insecure = plain or _LOOPBACK.match(f"{place}/") is not None
    for name in names:
        target = f"{place.rstrip('/')}/{name}"
        command = ["skopeo", "copy", "--quiet", f"--dest-tls-verify={str(not insecure).lower()}"]
        command += [f"oci:{found.root}:{name}", f"docker://{target}:{tag}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{target} isn't taken: {done.stderr.strip()[-500:]}")
        pushed.append(f"{target}:{tag}@{found.images()[name]['digest']}")
    return pushed


def _say(text: str) -> None:
    print(f"-----> {text}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    cache, began = installation.load().cache, time.monotonic()
    what, rest = (arguments[0], arguments[1:]) if arguments else ("list", [])
    if what not in ("list", "archive", "push") or (what != "list" and not rest):
        print(__doc__, file=sys.stderr)
        return 2
    names = rest[1:] or [*recipe.IMAGES, "check"]
    if unknown := set(names) - {*recipe.IMAGES, "check"}:
        print(f" !     there is no image {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    try:
        made = build(cache, _say, fresh=os.environ.get("FRESH") == "1")
        _say(f"Images are ready ({time.monotonic() - began:.0f} s)")
        if what == "archive":
            archive(cache, Path(rest[0]), names, version())
        elif what == "push":
            plain = os.environ.get("PLAIN") == "1"
            print("\n".join(push(cache, rest[0], names, version(), plain=plain)))
        else:
            for name, digest in made.items():
                print(f"{name:14} {store(cache).size_of(digest) / 1e6:6.1f} MB  {digest}")
    except (RuntimeError, BuildError, LoadError, OSError) as error:
        print(f" !     {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
