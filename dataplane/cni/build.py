"""Builds the plugin with the system's C compiler: one static file that needs nothing on the node.

``python -m dataplane.cni.build [TARGET]`` prints where it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("plugin.c")
#: What the plugin is called in a chain, and in /opt/cni/bin.
NAME = "cytoplane"
COMPILER = (
    "gcc", "-std=gnu17", "-static-pie", "-O2", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wformat=2",
    "-D_FORTIFY_SOURCE=2", "-fstack-protector-strong", "-fPIE", "-Wl,-z,relro,-z,now,-z,noexecstack", "-s",
)  # fmt: skip


class BuildError(RuntimeError):
    """There is no compiler, or it doesn't take the source; the message is its own."""


def build(cache: Path) -> Path:
    """The plugin, from the cache if this source was built before. Raises ``BuildError``."""
    content = SOURCE.read_bytes() + " ".join(COMPILER).encode()
    target = cache / "cni" / f"{NAME}-{hashlib.sha256(content).hexdigest()[:16]}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.{os.getpid()}")
        _compile(fresh)
        fresh.rename(target)
    return target


def _compile(target: Path) -> None:
    try:
        done = subprocess.run(
            [*COMPILER, "-o", str(target), str(SOURCE)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise BuildError("there is no gcc: the packages gcc and libc6-dev have it") from None
    if done.returncode:
        raise BuildError(done.stderr.strip()[-2000:])


def put(plugin: Path, folder: Path) -> Path:
    """Put it where a node's plugins are, in one step: the runtime never starts half a file."""
    target = folder / NAME
    fresh = folder / f".{NAME}.{os.getpid()}"
    shutil.copyfile(plugin, fresh)
    fresh.chmod(0o755)
    fresh.rename(target)
    return target


def main() -> int:
    from infra import config as installation

    try:
        built = build(installation.load().cache)
    except BuildError as error:
        print(f" !     {error}", file=sys.stderr)
        return 1
    if len(sys.argv) > 1:
        built = put(built, Path(sys.argv[1]))
    print(built)
    return 0


if __name__ == "__main__":
    sys.exit(main())
