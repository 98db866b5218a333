"""The kernel side is loaded once for all worlds, by what a node of this machine would take."""

from __future__ import annotations

import pytest

from tests.bpf.conftest import kernel, tables  # noqa: F401  fixtures


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kernel" in metafunc.fixturenames:
        metafunc.parametrize("kernel", ["auto"], indirect=True, scope="session")
