"""The kernel side, loaded for real, with a small laboratory of namespaces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bpf import loader
from bpf.tables import Tables
from dataplane.agent import network
from infra.config import Config
from tests.bpf.laboratory import Laboratory

REPOSITORY = Path(__file__).parents[2]
#: Nets 11 and up are the tests' own.
NET = int(os.environ.get("CYTOPLANE_TEST_NET", "11"))
#: Of tests that load and remove programs of their own: what the session has loaded stays.
APART = (NET + 2) % 16


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if "root" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs root: it loads kernel programs"))


def remove(config: Config) -> None:
    """Whatever a run, this one or one that was killed, left behind."""
    network.remove_all(config)
    network.remove_host(config)
    loader.unload(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Both loaders must give the same programs: whatever runs on the kernel side here runs on both.

    A module whose subject is neither may name its own ``LOADERS``. Tests elsewhere have the quick one.
    """
    if "kernel" in metafunc.fixturenames:
        loaders = getattr(metafunc.module, "LOADERS", ("bcc", "prebuilt"))
        metafunc.parametrize("kernel", loaders, indirect=True, scope="session")


@pytest.fixture(scope="session")
def kernel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    loader_used = getattr(request, "param", "prebuilt")
    config = Config(home=tmp_path_factory.mktemp("home"), net=NET, loader=loader_used)
    remove(config)
    load(config)
    network.ensure_host(config)
    yield config
    remove(config)


def load(config: Config) -> dict[str, Any]:
    """In a process of its own, as the agent does: the compiler's memory goes with it. What it answers."""
    done = run_loader(config, REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def run_loader(
    config: Config, version: Path, command: Sequence[str] = ("-m", "bpf.loader", "load")
) -> subprocess.CompletedProcess[str]:
    """The loader of any version of the platform."""
    environment = {
        **os.environ,
        "CYTOPLANE_HOME": str(config.home),
        "CYTOPLANE_NET": str(config.net),
        "CYTOPLANE_LOADER": config.loader,
        "CYTOPLANE_CACHE": str(config.cache),
        "PYTHONPATH": str(version),
    }
    return subprocess.run(
        [sys.executable, *command], env=environment, cwd=version, capture_output=True, text=True, check=False
    )


@pytest.fixture
def tables(kernel: Config) -> Iterator[Tables]:
    opened = Tables(kernel)
    opened.drain_flows()
    yield opened
    opened.close()


@pytest.fixture
def laboratory(kernel: Config, tables: Tables) -> Iterator[Laboratory]:
    built = Laboratory(kernel, tables)
    yield built
    built.close()
