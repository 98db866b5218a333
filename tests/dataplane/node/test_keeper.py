"""The plugin's entry on a node: put back whatever takes it out, the node tainted while that can't be, gone when
the chart goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataplane.agent.pods.cluster import ClusterError
from dataplane.agent.pods.leaving import CLEARED, asked_file, left_file
from dataplane.cni import build
from dataplane.node.keeper import Keeper
from dataplane.node.requests import TAINT
from infra.config import Config

PTP: dict[str, Any] = {
    "cniVersion": "0.4.0",
    "name": "cluster",
    "plugins": [{"type": "ptp"}, {"type": "portmap"}],
}
NODE: dict[str, Any] = {
    "metadata": {"resourceVersion": "7"},
    "spec": {"taints": [{"key": "other", "effect": "NoSchedule"}]},
}


class Cluster:
    """A cluster of one node, which keeps what is patched. Stands in for the API server alone: the keeper's other
    half is files."""

    def __init__(self) -> None:
        self.node = json.loads(json.dumps(NODE))
        self.leaving = self.away = False
        #: Uid of the agents that are said to go.
        self.of = "agents"
        self.patches = 0

    def _send(self, method: str, path: str, **more: Any) -> dict[str, Any] | None:
        if self.away:
            raise ClusterError("the cluster's API server doesn't answer")
        if path.endswith("/configmaps/leaving"):
            return _owned(self.of) if self.leaving else None
        if path.endswith("/pods/node-x"):
            return _owned("agents")
        assert path == "/api/v1/nodes/node1"
        if method == "PATCH":
            patch = json.loads(more["content"])
            assert patch["metadata"]["resourceVersion"] == self.node["metadata"]["resourceVersion"]
            self.node["spec"] = patch["spec"]
            self.patches += 1
        return self.node

    @property
    def taints(self) -> list[str]:
        return [taint["key"] for taint in self.node["spec"]["taints"]]


def _owned(uid: str) -> dict[str, Any]:
    return {"metadata": {"ownerReferences": [{"kind": "DaemonSet", "name": "node", "uid": uid}]}}


class Site:
    def __init__(self, home: Path) -> None:
        self.config = Config(home=home, node_name="node1", engine="kubernetes")
        self.config.run.mkdir(parents=True)
        self.binaries, self.configurations = home / "bin", home / "conf"
        self.binaries.mkdir()
        self.configurations.mkdir()
        self.plugin = home / "plugin"
        self.plugin.write_bytes(b"\x7fELF plugin")
        self.cluster = Cluster()
        cluster: Any = self.cluster
        self.keeper = Keeper(self.config, self.plugin, self.binaries, self.configurations, cluster, "node-x")

    @property
    def file(self) -> Path:
        return self.configurations / "10-cluster.conflist"

    def network(self, document: dict[str, Any] = PTP) -> None:
        """As the cluster's network writes it: it knows nothing of ours."""
        self.file.write_text(json.dumps(document))

    @property
    def chain(self) -> list[str]:
        return [plugin["type"] for plugin in json.loads(self.file.read_text())["plugins"]]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_entry_is_put_last_and_back_whoever_rewrites_the_file(site: Site) -> None:
    site.network()
    site.keeper.round()
    assert site.chain == ["ptp", "portmap", build.NAME]
    assert (site.binaries / build.NAME).read_bytes() == site.plugin.read_bytes()
    assert (site.binaries / build.NAME).stat().st_mode & 0o111
    assert site.keeper.ready.exists()
    site.network({**PTP, "plugins": [{"type": build.NAME, "socket": "/elsewhere"}, {"type": "bridge"}]})
    site.keeper.round()
    assert site.chain == ["bridge", build.NAME]
    before = site.file.stat().st_ino
    site.keeper.round()
    assert site.file.stat().st_ino == before, "what is right isn't written again"


def test_another_version_of_the_plugin_replaces_the_one_that_is_there(site: Site) -> None:
    site.network()
    site.keeper.round()
    for content in (b"", b"\x7fELF somebody", site.plugin.read_bytes()[:-1]):
        (site.binaries / build.NAME).write_bytes(content)
        site.keeper.round()
        assert (site.binaries / build.NAME).read_bytes() == site.plugin.read_bytes()


@pytest.mark.parametrize("broken", ["", "{", '{"plugins": {}}', '{"type": "ptp"}'])
def test_a_node_whose_chain_cant_be_whole_is_tainted_until_it_is(site: Site, broken: str) -> None:
    site.network()
    site.keeper.round()
    assert site.cluster.taints == ["other"]
    site.file.write_text(broken)
    site.keeper.round()
    assert site.cluster.taints == ["other", TAINT["key"]]
    assert not site.keeper.ready.exists()
    assert site.file.read_text() == broken, "what isn't understood isn't touched"
    site.network()
    site.keeper.round()
    assert site.cluster.taints == ["other"] and site.keeper.ready.exists()
    assert site.cluster.patches == 2


def test_a_node_without_a_network_yet_is_tainted(site: Site) -> None:
    site.keeper.round()
    assert TAINT["key"] in site.cluster.taints


def test_the_chain_is_kept_without_the_api_server_and_the_taint_follows_when_it_is_back(site: Site) -> None:
    site.cluster.away = True
    site.keeper.round()
    site.network()
    site.keeper.round()
    assert site.chain[-1] == build.NAME
    site.file.unlink()
    site.keeper.round()
    site.cluster.away = False
    site.keeper._asked = float("-inf")
    site.keeper.round()
    assert TAINT["key"] in site.cluster.taints


def test_when_the_chart_goes_everything_is_as_it_was_and_stays_so(site: Site) -> None:
    site.network()
    site.keeper.round()
    site.cluster.leaving = True
    site.keeper._leaving_asked = float("-inf")
    site.keeper.round()
    assert json.loads(site.file.read_text()) == PTP
    assert not (site.binaries / build.NAME).exists()
    assert asked_file(site.config).exists() and site.keeper.ready.exists(), "the hook waits for the agent too"
    left_file(site.config).write_text(CLEARED)
    site.keeper.round()
    assert not site.keeper.ready.exists()
    # What said so goes with the agents; this one may outlive it for a moment.
    site.cluster.leaving = False
    site.keeper._leaving_asked = float("-inf")
    site.keeper.round()
    assert json.loads(site.file.read_text()) == PTP
    assert site.cluster.taints == ["other"]


def test_an_agent_that_says_nothing_doesnt_keep_the_chart(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.network()
    site.keeper.round()
    site.cluster.leaving = True
    site.keeper._leaving_asked = float("-inf")
    site.keeper.round()
    assert site.keeper.ready.exists()
    monkeypatch.setattr("dataplane.node.keeper.AGENT_SECONDS", -1.0)
    site.keeper.round()
    assert not site.keeper.ready.exists()


def test_that_an_earlier_installation_went_isnt_about_this_one(site: Site) -> None:
    """What said so is swept away some time after; who took it for itself would stay out for ever."""
    site.network()
    site.cluster.leaving, site.cluster.of = True, "agents before"
    asked_file(site.config).touch()
    left_file(site.config).write_text(CLEARED)
    site.keeper.round()
    assert not asked_file(site.config).exists() and not left_file(site.config).exists()
    assert site.chain[-1] == build.NAME and site.keeper.ready.exists()
