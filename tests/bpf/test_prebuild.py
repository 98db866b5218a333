"""Objects that are built beforehand: which are made, which are taken."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bpf import by_libbpf, prebuild, source
from bpf.errors import LoadError
from bpf.programs import OBJECTS
from infra.config import Config
from tests.bpf.conftest import REPOSITORY, run_loader
from tests.bpf.versions import Change, version

NO_CHANGE = Change("sockets.bpf.c", '#include "lib/service.h"\n', "/* of another version */\n")


def test_an_object_for_each_group_with_layout_and_content_in_its_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bpf.prebuild", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == sorted(prebuild.file_name(name) for name in OBJECTS)
    assert all(name.startswith(tuple(f"{o}-{source.layout_hash(o)}-" for o in OBJECTS)) for name in made)
    again = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == again


@pytest.mark.root
def test_an_object_of_another_version_is_never_taken(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    prebuild.build("cells", cache / "bpf")
    config = Config(home=tmp_path, net=int(os.environ.get("CYTOPLANE_TEST_NET", "11")), cache=cache)
    without_clang = (
        "-c",
        "import shutil, sys; shutil.which = lambda name: None; "
        "from bpf import opening; from infra import config; from pathlib import Path; "
        "opening.open_object(config.load(), 'cells', Path('/nowhere'))",
    )
    done = run_loader(
        dataclasses.replace(config, loader="prebuilt"), version(tmp_path / "v", NO_CHANGE), without_clang
    )
    assert "there is no prebuilt object" in done.stderr and "bpf.prebuild" in done.stderr


def test_what_others_can_write_is_not_loaded(tmp_path: Path) -> None:
    path = prebuild.build("edge", tmp_path)
    path.chmod(0o666)
    with pytest.raises(LoadError, match="others than root can write"):
        by_libbpf.open_file(path, "edge", tmp_path)


def test_a_damaged_object_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "cells.o"
    path.write_bytes(b"no ELF" + prebuild.seal(b"no ELF"))
    path.chmod(0o644)
    with pytest.raises(LoadError, match="isn't an object that libbpf can open.*Build it again"):
        by_libbpf.open_file(path, "cells", tmp_path)


@pytest.mark.parametrize("where", [0, 0.3, 0.6, 0.9, 1])
def test_a_damaged_byte_anywhere_is_never_loaded(tmp_path: Path, where: float) -> None:
    path = prebuild.build("edge", tmp_path)
    content = bytearray(path.read_bytes())
    content[int((len(content) - 1) * where)] ^= 1
    path.write_bytes(content)
    with pytest.raises(LoadError, match="is damaged: build it again"):
        by_libbpf.open_file(path, "edge", tmp_path)


def test_an_object_that_was_cut_is_never_loaded(tmp_path: Path) -> None:
    path = prebuild.build("edge", tmp_path)
    content = path.read_bytes()
    for left in (b"", content[:10], content[: len(content) // 2], content[:-60]):
        path.write_bytes(left)
        with pytest.raises(LoadError, match="is damaged"):
            by_libbpf.open_file(path, "edge", tmp_path)


@pytest.mark.root
def test_the_answer_says_what_loading_cost(kernel: Config) -> None:
    answer = json.loads(run_loader(kernel, REPOSITORY).stdout)
    assert answer["loader"] == kernel.loader
    # The compiler is what costs memory.
    assert (answer["peak_mib"] > 100) == (kernel.loader == "bcc")
