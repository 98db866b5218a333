"""The self-check's program, compiled. Import the fixture into a module of tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from infra.images import parts


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("there is no C compiler")
    made = tmp_path_factory.mktemp("check") / "check"
    made.write_bytes(parts.compile_c(parts.REPOSITORY / "dataplane/check/check.c"))
    made.chmod(0o755)
    return made
