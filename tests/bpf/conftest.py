"""The kernel side, loaded for real, with a small laboratory of namespaces."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpf import loader
from bpf.tables import Tables
from dataplane.agent import network
from infra.config import Config
from tests.bpf.laboratory import Laboratory

#: Nets 11 and up are the tests' own.
NET = int(os.environ.get("CYTOPLANE_TEST_NET", "11"))


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


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    config = Config(home=tmp_path_factory.mktemp("home"), net=NET)
    remove(config)
    load(config)
    network.ensure_host(config)
    yield config
    remove(config)


def load(config: Config) -> None:
    """In a process of its own, as the agent does: the compiler's memory goes with it."""
    environment = {**os.environ, "CYTOPLANE_HOME": str(config.home), "CYTOPLANE_NET": str(config.net)}
    done = subprocess.run(
        [sys.executable, "-m", "bpf.loader", "load"],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


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
