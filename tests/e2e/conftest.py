"""End-to-end tests use the run's one whole installation."""

from __future__ import annotations

import pytest

from tests.e2e import installation as module
from tests.e2e.attacker import FILES, Attacker


@pytest.fixture(scope="session")
def installation(live_installation: module.Installation) -> module.Installation:
    return live_installation


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
