"""Builds the kernel programs once, for nodes without a compiler: ``python -m bpf.prebuild [DIR]``.

Needs clang and libbpf-dev; what it makes needs neither, nor kernel headers. The file's name carries
the hash of the layout and the hash of everything that went into it, so an object of another version
is never taken. Without DIR it goes to where the loader looks: ``bpf`` in the cache folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bpf import source
from bpf.errors import LoadError
from bpf.programs import OBJECTS
from infra import config as installation

COMPILER = (
    "clang", "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function",
    "-I/usr/include/x86_64-linux-gnu", "-I/usr/include/aarch64-linux-gnu", "-xc", "-",
)  # fmt: skip
_SEAL = b"\ncytoplane sha256 "
#: Versions of an object that stay in the folder.
KEPT = 8


def folder(config: installation.Config) -> Path:
    return config.cache / "bpf"


def file_name(object_name: str) -> str:
    """Name of the object that belongs to the sources as they are."""
    text = " ".join(COMPILER) + source.for_libbpf(object_name) + _SEAL.decode()
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{object_name}-{source.layout_hash(object_name)}-{digest}.o"


def compile_text(text: str, target: Path) -> None:
    """Raises ``LoadError`` with the compiler's complaint."""
    fresh = target.with_name(f"{target.name}.{os.getpid()}")
    done = subprocess.run(
        [*COMPILER, "-c", "-o", str(fresh)], input=text, text=True, capture_output=True, check=False
    )
    if done.returncode:
        fresh.unlink(missing_ok=True)
        raise LoadError(f"the kernel programs don't compile: {done.stderr.strip()[-1500:]}")
    # Debug information that only people read stays out; BTF is what the kernel needs.
    if strip := shutil.which("llvm-strip"):
        subprocess.run([strip, "-g", str(fresh)], check=False, capture_output=True)
    with fresh.open("ab") as handle:
        handle.write(seal(fresh.read_bytes()))
    fresh.chmod(0o644)
    fresh.rename(target)


def seal(content: bytes) -> bytes:
    """What stands behind an object's content, where nothing that reads objects looks: its digest."""
    return _SEAL + hashlib.sha256(content).digest()


def whole(file: Path) -> bool:
    """Whether an object is byte for byte what was built. It says nothing about who built it."""
    data = file.read_bytes()
    content = data[: -len(seal(b""))]
    return data == content + seal(content)


def build(object_name: str, where: Path) -> Path:
    """The object, made unless it is there already."""
    target = where / file_name(object_name)
    if not target.exists():
        if shutil.which("clang") is None or not Path("/usr/include/bpf/bpf_helpers.h").exists():
            raise LoadError(
                f"there is no prebuilt object {target} and nothing to build it with: run "
                "`python -m bpf.prebuild DIR` on a machine with clang and libbpf-dev and copy DIR there"
            )
        where.mkdir(parents=True, exist_ok=True)
        compile_text(source.for_libbpf(object_name), target)
        _tidy(where, object_name)
    return target


def _tidy(where: Path, object_name: str) -> None:
    """Keep the newest few: other installations of the machine may be of other versions."""
    made = sorted(where.glob(f"{object_name}-*.o"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in made[KEPT:]:
        old.unlink(missing_ok=True)


def main() -> int:
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else folder(installation.load())
    try:
        for name in OBJECTS:
            print(build(name, where))
    except (LoadError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
