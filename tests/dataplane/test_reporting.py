"""Reports are as large as the control plane takes, whatever somebody's processes print."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from dataplane import reporting
from dataplane.agent import logs
from dataplane.agent.node import Agent
from dataplane.client import Refused
from dataplane.controller.controller import Controller
from infra.config import Config

#: The worst that 30 lines of a process can be in JSON: each byte an escape of six.
LINES = ["\x01" * reporting.LONGEST_LINE] * 30


class Control:
    """The control plane's limits, and what it took."""

    enrolled = True

    def __init__(self, broken_after: int = 10**6) -> None:
        self.taken: list[tuple[str, dict[str, Any]]] = []
        self.broken_after = broken_after

    def post(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        if len(self.taken) == self.broken_after:
            raise Refused("away", 503)
        if len(json.dumps(document)) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            raise Refused("The body is too large.", 400)
        self.taken.append((path, document))
        # What is beyond isn't looked at: ``agent_views.report``.
        assert len(document.get("replicas", [])) <= 2000
        return {}

    def replicas(self) -> list[str]:
        return [report["id"] for _, document in self.taken for report in document.get("replicas", [])]


def crashed(number: int) -> list[dict[str, Any]]:
    return [{"id": f"r{n}", "phase": "failed", "last_lines": LINES} for n in range(1, number + 1)]


def controller(folder: Path, control: Control, replicas: list[dict[str, Any]]) -> Controller:
    made = Controller(Config(home=folder))
    made.control = control  # type: ignore[assignment]
    made.lease._renewed = time.monotonic()
    made.places._replicas = {report["id"]: report for report in replicas}
    return made


def test_portions_are_all_there_is_in_order_and_none_is_too_large() -> None:
    reports = [*crashed(100), *({"id": f"s{n}"} for n in range(3000))]
    found = list(reporting.portions(reports))
    assert [report for portion in found for report in portion] == reports
    assert all(len(json.dumps(portion)) < 2 * reporting.MOST_BYTES for portion in found)
    assert max(map(len, found)) == reporting.MOST
    assert list(reporting.portions([])) == []


def test_a_line_goes_along_as_far_as_it_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("".join(f"2026-01-01T00:00:00+00:00 stdout F {n}{'x' * 9000}\n" for n in range(20)))
    found = logs.last_lines(file)
    assert len(found) == 20
    assert {len(line) for line in found} == {reporting.LONGEST_LINE}


def test_a_controller_tells_of_more_than_one_request_takes(tmp_path: Path) -> None:
    control, reports = Control(), [*crashed(200), *({"id": f"s{n}"} for n in range(2500))]
    made = controller(tmp_path, control, reports)
    made._report()
    assert control.replicas() == [report["id"] for report in reports]
    assert "node" in control.taken[-1][1], "health is told last"
    control.taken.clear()
    made._report()
    assert not control.taken, "what was told isn't told again"


def test_what_a_controller_couldnt_tell_it_tells_the_next_time(tmp_path: Path) -> None:
    control = Control(broken_after=1)
    made = controller(tmp_path, control, [{"id": f"r{n}"} for n in range(3 * reporting.MOST)])
    for n in range(2 * reporting.MOST):
        made.places._say(f"cell-{n}", {"state": "ready"})
    with pytest.raises(Refused):
        made._report()
    control.broken_after = 10**6
    made.places._say("cell-0", {"state": "drifted"})
    made._report()
    assert len(control.replicas()) == len(set(control.replicas())) == 3 * reporting.MOST
    places = [
        p for path, document in control.taken if path == "/controller/places" for p in document["places"]
    ]
    assert len({place["location"] for place in places}) == 2 * reporting.MOST
    assert len(places) == 2 * reporting.MOST + 1, "only what was new was said again"


def test_an_agent_tells_of_more_than_one_request_takes_and_its_health_last() -> None:
    agent, control = Agent.__new__(Agent), Control()
    agent.control, agent._sent = control, {}  # type: ignore[assignment]
    agent._meter = agent.engine = Told()  # type: ignore[assignment]
    agent._send_reports(crashed(200), {"healthy": True})
    assert control.replicas() == [f"r{n}" for n in range(1, 201)] == list(agent._sent)
    assert len(control.taken) > 1
    assert ["node" in document for _, document in control.taken].index(True) == len(control.taken) - 1
    agent._send_reports([], {"healthy": True})
    assert control.taken[-1][1] == {"replicas": [], "node": {"healthy": True}, "load": []}


class Told:
    """Of an agent, what the load in a report is made of."""

    def measured(self) -> list[Any]:
        return []

    def read(self, measured: list[Any]) -> list[Any]:
        return measured
