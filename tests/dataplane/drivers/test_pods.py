"""What the driver says of pods that really run, or don't, on a cluster of two nodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from dataplane.drivers import CellState, PlacedCell
from dataplane.drivers.kubernetes import Kubernetes
from infra.cluster.images import BUSYBOX
from tests.cluster import LONGEST, TwoNodes, cell

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(LONGEST)]
NONE = {"type": "none", "port": 0, "path": "/", "interval": 1, "timeout": 1, "grace": 5}
HTTPD = "mkdir -p /tmp/www && echo hello > /tmp/www/index.html && exec httpd -f -p 8000 -h /tmp/www"


def http(path: str = "/", port: int = 8000) -> dict[str, Any]:
    return {**NONE, "type": "http", "port": port, "path": path}


def entry(
    number: int,
    command: list[str] | str,
    probe: dict[str, Any] = NONE,
    image: str = BUSYBOX,
    memory: int = 32,
    component: str = "web",
) -> dict[str, Any]:
    """A replica as desired state has it. ``memory`` in MiB."""
    return {
        "id": f"r{number}",
        "process": {
            "image": image,
            "command": ["/bin/sh", "-c", command] if isinstance(command, str) else command,
            "environment": {"WORD": f"of r{number}"},
            "limits": {"memory": memory * 2**20, "cpu": 0.1, "pids": 512},
            "stop_grace": 1,
            "probe": probe,
        },
        "labels": {"component": component, "release": 1},
    }


class Stage:
    """A cell on the cluster, and what was reported of it last."""

    def __init__(self, nodes: TwoNodes) -> None:
        self.nodes, self.driver = nodes, Kubernetes(nodes.kubeconfig)
        self.cell = cell()
        self.before: dict[str, str] = {}

    def run(self, *entries: dict[str, Any]) -> PlacedCell:
        self.cell = replace(self.cell, endpoints=tuple(entries))
        status = self.driver.ensure(self.cell)
        assert (status.state, status.problems) == (CellState.READY, ())
        return self.cell

    def look(self) -> dict[str, dict[str, Any]]:
        reports = self.driver.reports(self.cell, self.before)
        self.before = {report["id"]: report["phase"] for report in reports}
        return {report["id"]: report for report in reports}

    def until(self, seen: Callable[[dict[str, dict[str, Any]]], bool], seconds: float = 60) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while not seen(found := self.look()):
            assert time.monotonic() < end, found
            time.sleep(0.5)
        return found

    def phases(self, wanted: dict[str, str], seconds: float = 60) -> dict[str, dict[str, Any]]:
        return self.until(
            lambda found: {k: r["phase"] for k, r in found.items() if k in wanted} == wanted, seconds
        )


@pytest.fixture
def stage(two_nodes: TwoNodes, unchained: None) -> Iterator[Stage]:
    made = Stage(two_nodes)
    yield made
    with two_nodes.client() as client:
        client.remove(f"/api/v1/namespaces/{made.cell.location}")


def test_each_way_to_fail_has_its_words(stage: Stage) -> None:
    stage.run(
        entry(1, HTTPD, http()),
        entry(2, "echo starting; echo $WORD $$; sleep 0.2; exit 3"),
        entry(3, HTTPD, http("/nothing")),
        entry(4, "sleep 100", image="cytoplane.dev/nothing:1"),
        entry(5, "sleep 100"),
        entry(6, "sleep 100", {**NONE, "type": "tcp", "port": 9999}),
        entry(7, ["/bin/nothing"]),
        entry(8, "a=x; while true; do a=$a$a$a$a; done", memory=16),
        entry(9, "sleep 100", memory=16000),
    )
    failing = dict.fromkeys(("r2", "r3", "r4", "r6", "r7", "r8"), "failed")
    found = stage.phases({"r1": "healthy", "r5": "healthy", **failing})
    assert found["r2"]["exit_code"] == 3
    said = found["r2"]["last_lines"]
    assert said[0] == "starting"
    # The shell's own number: Kubernetes' rules for `$` don't apply.
    assert said[1].startswith("of r2 ")
    assert said[1].split()[-1].isdigit()
    assert found["r3"]["probe"] == {"what": "GET /nothing on port 8000", "answer": "status 404"}
    assert found["r4"]["reason"].startswith("its image can't be pulled: ")
    assert found["r6"]["probe"] == {"what": "TCP port 9999", "answer": "nothing listens there"}
    assert found["r7"]["reason"].startswith("its command can't be run: /bin/nothing: ")
    assert found["r8"]["reason"] == "it ran out of memory"
    if found["r9"]["phase"] == "pending":
        # Unless the machine has so much.
        assert found["r9"]["reason"] == "no node of the plane has enough memory for it"
    # Replicas of one component are spread, and each has its variables in a secret that nothing changes.
    pods = stage.nodes.pods(stage.cell.location)
    assert {pod["spec"].get("nodeName") for pod in pods.values()} >= {"node1", "node2"}
    for pod in pods.values():
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert not any(volume.get("secret") for volume in pod["spec"]["volumes"])


def test_what_was_well_is_unwell_and_what_failed_is_well_again(stage: Stage) -> None:
    beginning = "mkdir -p /tmp/www && echo hello > /tmp/www/index.html; httpd -f -p 8000 -h /tmp/www & "
    stage.run(
        # Well for some seconds, then without its page; and one that lacks it at first, beyond its grace.
        entry(1, beginning + "sleep 9; rm /tmp/www/index.html; wait", http()),
        entry(2, beginning + "rm -f /tmp/www/index.html; sleep 12; echo > /tmp/www/index.html; wait", http()),
    )
    stage.phases({"r1": "healthy"})
    stage.phases({"r2": "failed"})
    found = stage.phases({"r1": "unhealthy"})
    assert found["r1"]["probe"]["answer"] == "status 404"
    stage.phases({"r2": "healthy"})


def test_quota_refuses_with_a_sentence(stage: Stage) -> None:
    stage.cell = cell(quota=replace(stage.cell.quota, replicas=1))
    stage.run(entry(1, "sleep 100"), entry(2, "sleep 100"))
    found = stage.until(lambda found: any(r["phase"] == "failed" for r in found.values()))
    refused = next(report for report in found.values() if report["phase"] == "failed")
    assert refused["reason"] == "the cell's quota refuses it (pods=1 more is too much)"


def test_what_somebody_changes_is_made_right_again(stage: Stage) -> None:
    stage.run(entry(1, "sleep 100"), entry(2, "sleep 100"), entry(3, "sleep 100"))
    path = f"/apis/apps/v1/namespaces/{stage.cell.location}/deployments"
    with stage.nodes.client() as client:
        client.remove(f"{path}/r1")
        client.change(f"{path}/r2", {"spec": {"replicas": 3}})
        client.change(f"{path}/r3", {"spec": {"template": {"spec": {"hostNetwork": True}}}})
        client.remove(f"/api/v1/namespaces/{stage.cell.location}/secrets/env-r2")
    status = stage.driver.status(stage.cell)
    assert status.state == CellState.DRIFTED
    assert set(status.problems) == {
        "Deployment r1 is missing.",
        "Deployment r2 was changed.",
        "Deployment r3 was changed.",
        "Secret env-r2 is missing.",
    }
    assert stage.driver.ensure(stage.cell).state == CellState.READY
    with stage.nodes.client() as client:
        assert client.document(f"{path}/r2")["spec"]["replicas"] == 1
        assert not client.document(f"{path}/r3")["spec"]["template"]["spec"].get("hostNetwork")
    stage.phases({"r1": "healthy", "r2": "healthy", "r3": "healthy"})


def test_what_a_killed_upgrade_left_is_taken_away(stage: Stage) -> None:
    """An upgrade that made a replica and never came to write it down."""
    stage.run(entry(1, "sleep 100"))
    path = f"/apis/apps/v1/namespaces/{stage.cell.location}/deployments"
    with stage.nodes.client() as client:
        made = client.document(f"{path}/r1")
        metadata = {key: made["metadata"][key] for key in ("labels", "annotations", "namespace")}
        spec = made["spec"]
        spec["selector"]["matchLabels"]["cytoplane.dev/replica"] = "r2"
        spec["template"]["metadata"]["labels"]["cytoplane.dev/replica"] = "r2"
        document = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {**metadata, "name": "r2"}}
        client.create(path, {**document, "spec": spec})
        # Somebody's own isn't touched: it has no network and disturbs nobody.
        own = {**document, "metadata": {"name": "own", "labels": metadata["labels"]}, "spec": spec}
        client.create(path, own)
    assert stage.driver.status(stage.cell).problems == ("Deployment r2 isn't the platform's.",)
    assert stage.driver.ensure(stage.cell).state == CellState.READY
    with stage.nodes.client() as client:
        names = {item["metadata"]["name"] for item in client.document(path)["items"]}
    assert names == {"r1", "own"}
