"""One installation for all end-to-end tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.e2e import installation as module
from tests.e2e.attacker import FILES, Attacker


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[module.Installation]:
    if os.geteuid() != 0:
        pytest.skip("a whole installation needs root")
    yield from module.running(tmp_path_factory.mktemp("e2e"))


@pytest.fixture(scope="session")
def attacker(installation: module.Installation) -> Attacker:
    """What globex may run in containers of its own: as its user and as root."""
    result = installation.project("globex", "foothold").push(FILES)
    assert result.accepted, result.output
    assert installation.get("foothold.globex").text == "1000"
    assert installation.get("rooted.globex").text == "0"
    return Attacker(installation)


@pytest.fixture(autouse=True)
def healthy_before(installation: module.Installation) -> None:
    """A test begins with every part at work, whatever the one before did to them."""
    installation.wait(installation.healthy, 60)
