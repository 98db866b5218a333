"""What nodes report is untrusted: nothing of it breaks the control plane or touches what is another's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataplane.planes import agent_views
from dataplane.planes.models import Node, Plane
from delivery.models import Replica
from projects.models import Cell, Workload
from telemetry.models import Edge, LogLine
from tests import factories
from tests.dataplane.planes.conftest import Bare
from tests.factories import NodeClient, World

MOST = 2**62


@pytest.fixture
def cell(world: World) -> Cell:
    found = world.cell()
    world.deploy(found)
    return found


@pytest.fixture
def node(world: World, cell: Cell) -> NodeClient:
    return world.agent()


def report(node_client: NodeClient, /, **document: Any) -> int:
    return send(node_client, json.dumps(document))


def send(node: NodeClient, text: str) -> int:
    headers = {"X-Forwarded-Client-Cert": f"Hash={node.certificate.fingerprint}"}
    return factories.surface(factories.client(), "POST", "/agent/report", text, headers).status_code


def replica(cell: Cell) -> Replica:
    found = Replica.objects.filter(workload__cell=cell).order_by("pk").first()
    assert found is not None
    return found


def phases() -> dict[int, str]:
    return dict(Replica.objects.values_list("pk", "phase"))


def test_a_report_is_taken(node: NodeClient, cell: Cell) -> None:
    row = replica(cell)
    identity = row.workload.identity
    flow = {"source": identity, "destination": 2, "port": 443, "protocol": 6, "direction": 0}
    flow |= {
        "allowed": False,
        "reason": "POLICY",
        "packets": 3,
        "bytes": 180,
        "rule": 0,
        "remote": "192.0.2.1",
    }
    probe = {"what": "GET /", "answer": "status 500"}
    phase = {"id": f"r{row.pk}", "phase": "unhealthy", "restarts": 4, "exit_code": 137, "probe": probe}
    line = {"replica": f"r{row.pk}", "at": 1.0, "stream": "stderr", "text": "down"}
    health = {"healthy": True, "problems": []}
    assert report(node, node=health, replicas=[phase], flows=[flow, flow], logs=[line]) == 200
    row.refresh_from_db()
    assert (row.phase, row.restarts, row.detail) == ("unhealthy", 4, {"exit_code": 137, "probe": probe})
    edge = Edge.objects.get()
    assert (edge.cell_id, edge.packets, edge.bytes, edge.remote) == (cell.pk, 6, 360, "192.0.2.1")
    kept = LogLine.objects.get()
    assert (kept.replica, kept.stream, kept.text) == (row.pk, "stderr", "down")
    assert Node.objects.get(pk=node.node.pk).health == health


def test_nothing_of_another_plane_is_written(world: World, cell: Cell) -> None:
    stranger = world.agent(Plane.objects.create(name="other", engine=Plane.Engine.MACHINE), "node-2")
    row, before = replica(cell), phases()
    identities = [cell.gateway_identity, *Workload.objects.values_list("identity", flat=True)]
    assert identities
    name = f"r{row.pk}"
    flows = [
        {"source": a, "destination": b, "direction": d, "packets": 1, "allowed": False, "reason": "POLICY"}
        for a in identities
        for b in (2, *identities)
        for d in (0, 1)
    ]
    replicas = [{"id": name, "phase": "failed", "reason": "so"}]
    logs = [{"replica": name, "text": "forged", "at": 1.0}]
    assert report(stranger, replicas=replicas, flows=flows, logs=logs) == 200
    assert phases() == before
    assert not Edge.objects.exists() and not LogLine.objects.exists()


def test_a_flow_belongs_to_the_side_that_judged_it(node: NodeClient, cell: Cell) -> None:
    own = replica(cell).workload.identity
    foreign = 2**31
    flows = [
        {"source": own, "destination": foreign, "direction": 1, "packets": 1},
        {"source": foreign, "destination": own, "direction": 0, "packets": 1},
    ]
    assert report(node, flows=flows) == 200
    assert not Edge.objects.exists(), "the end that judged is nobody's here"


GARBAGE: list[Any] = [
    None,
    True,
    [],
    {},
    [[]],
    {"a": {}},
    "",
    "x",
    "r",
    "r²",
    "r1\n",
    "r" + "9" * 30,
    "r" + "9" * 5000,
    "\x00",
    "\ud800",
    "a\x00b",
    "é" * 10000,
    -1,
    10**30,
    -(10**30),
    2**63,
    1.5,
    float("nan"),
    float("inf"),
    float("-inf"),
]


def test_no_value_anywhere_breaks_a_report(node: NodeClient, cell: Cell) -> None:
    row = replica(cell)
    own = row.workload.identity
    sound: dict[str, list[dict[str, Any]]] = {
        "replicas": [{"id": f"r{row.pk}", "phase": "healthy", "restarts": 1}],
        "flows": [{"source": own, "destination": 2, "direction": 0, "packets": 1, "reason": "POLICY"}],
        "logs": [{"replica": f"r{row.pk}", "text": "kept", "at": 1.0}],
    }
    keys = {
        "replicas": ("id", "phase", "restarts", "exit_code", "reason", "started_at", "last_lines", "probe"),
        "flows": ("source", "destination", "remote", "port", "protocol", "direction", "allowed", "reason")
        + ("rule", "packets", "bytes"),
        "logs": ("replica", "at", "stream", "text"),
    }
    for value in GARBAGE:
        LogLine.objects.all().delete()
        Edge.objects.all().delete()
        for part, items in sound.items():
            broken = [{**items[0], key: value} for key in keys[part]]
            assert report(node, **{part: [*broken, value, *items]}) == 200, (part, value)
            assert report(node, **{part: value}) in (200, 422), (part, value)
        facts = {"healthy": value, "problems": value, "facts": {"x": value}}
        assert report(node, node=facts) == report(node, node=value) == 200, value
        assert LogLine.objects.filter(text="kept").count() >= 3, value
        assert Edge.objects.exists(), value


def test_bodies_that_arent_objects_are_the_senders_error(bare: Bare) -> None:
    node = bare.agent()
    assert send(node, "") == 200
    for text in ("[]", "{", "[" * 200000, '{"a":' * 100000, "\x00", "null", "1e999", "NaN"):
        assert send(node, text) == 422, text[:10]


def test_lists_are_cut_and_a_body_is_bounded(
    node: NodeClient, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = replica(cell)
    monkeypatch.setattr(agent_views, "MOST_ITEMS", 50)
    lines = [{"replica": f"r{row.pk}", "text": str(number)} for number in range(60)]
    assert report(node, logs=lines) == 200
    assert LogLine.objects.count() == 50
    assert report(node, logs=[{"replica": f"r{row.pk}", "text": "x" * 3 * 2**20}]) == 422
    assert report(node, logs=[{"replica": f"r{row.pk}", "text": "x" * 100000}]) == 200
    newest = LogLine.objects.order_by("-pk").first()
    assert newest is not None and len(newest.text) == 8192


def test_sums_never_outgrow_their_column(node: NodeClient, cell: Cell) -> None:
    own = replica(cell).workload.identity
    flow = {"source": own, "destination": 2, "direction": 0, "packets": 2**48, "bytes": 2**48}
    assert report(node, flows=[flow] * 5000) == 200
    Edge.objects.update(packets=MOST - 1, bytes=MOST - 1)
    assert report(node, flows=[flow] * 5000) == 200
    edge = Edge.objects.get()
    assert (edge.packets, edge.bytes) == (MOST, MOST)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=st.fixed_dictionaries(
        {},
        optional={
            part: st.lists(st.dictionaries(st.sampled_from(names), json_values, max_size=4), max_size=3)
            | json_values
            for part, names in {
                "node": ["healthy", "problems"],
                "replicas": ["id", "phase", "probe", "last_lines"],
                "flows": ["source", "destination", "remote", "direction", "packets"],
                "logs": ["replica", "text", "at"],
            }.items()
        },
    )
)
def test_no_document_breaks_a_report(node: NodeClient, document: dict) -> None:
    assert report(node, **document) in (200, 422)
