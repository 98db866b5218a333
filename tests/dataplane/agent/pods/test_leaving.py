"""Whether an agent leaves its node when its chart goes: only if the cluster says so, and nobody needs it there.
That it really does is seen on real nodes, with the chart (tests/infra/charts)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataplane.agent.pods.cluster import ClusterError
from dataplane.agent.pods.leaving import CLEARED, KEPT, Leaving, asked_file, left_file
from infra.config import Config


class Cluster:
    """What the API server would answer: what is announced of whose agents, and which replicas are on the node."""

    def __init__(self) -> None:
        self.of: str | None = "agents"
        self.pods: list[dict[str, Any]] = []
        self.away = False

    def _send(self, method: str, path: str, **more: Any) -> dict[str, Any] | None:
        if self.away:
            raise ClusterError("the cluster's API server doesn't answer")
        assert method == "GET"
        owner = self.of if path.endswith("/configmaps/leaving") else "agents"
        return {"metadata": {"ownerReferences": [{"uid": owner}]}} if owner else None

    def pods_on(self, node: str) -> list[dict[str, Any]]:
        assert node == "node1"
        return self.pods


class Gone(Exception):
    """The agent gave its place away."""


class Site:
    def __init__(self, home: Path, pod: str = "node-x") -> None:
        self.config = Config(home=home, node_name="node1", engine="kubernetes")
        self.config.run.mkdir(parents=True)
        self.cluster = Cluster()
        cluster: Any = self.cluster
        self.leaving = Leaving(self.config, cluster, pod)
        asked_file(self.config).touch()

    @property
    def said(self) -> str:
        file = left_file(self.config)
        return file.read_text() if file.exists() else ""


@pytest.fixture(autouse=True)
def _gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def go(program: str, words: list[str]) -> None:
        assert words[1:] == ["-m", "dataplane.node.clear"]
        raise Gone

    monkeypatch.setattr("os.execv", go)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_node_without_pods_is_left(site: Site) -> None:
    with pytest.raises(Gone):
        site.leaving.look(False)


@pytest.mark.parametrize(("known", "pods"), [(True, []), (False, [{}])], ids=["agent", "cluster"])
def test_a_node_with_pods_is_kept_until_they_are_gone(
    site: Site, known: bool, pods: list[dict[str, Any]]
) -> None:
    """Whoever knows of one, the agent or the cluster alone."""
    site.cluster.pods = pods
    site.leaving.look(known)
    assert site.said == KEPT
    site.cluster.pods = []
    with pytest.raises(Gone):
        site.leaving.look(False)


def test_only_the_cluster_is_believed(site: Site) -> None:
    for of in (None, "agents before"):
        site.cluster.of = of
        site.leaving.look(False)
    site.cluster.away = True
    with pytest.raises(ClusterError):
        site.leaving.look(False)
    assert site.said == ""


def test_nobody_is_asked_unless_the_keeper_asks(site: Site) -> None:
    asked_file(site.config).unlink()
    site.cluster.away = True
    site.leaving.look(False)
    site.leaving.resume()


def test_an_agent_that_isnt_the_charts_never_leaves(tmp_path: Path) -> None:
    Site(tmp_path, pod="").leaving.look(False)


def test_an_agent_that_begins_again_leaves_only_where_it_has_left(site: Site) -> None:
    """Which pods there are isn't known yet."""
    for said in ("", KEPT):
        left_file(site.config).write_text(said)
        site.leaving.resume()
    left_file(site.config).write_text(CLEARED)
    with pytest.raises(Gone):
        site.leaving.resume()
    site.cluster.of = "agents before"
    site.leaving.resume()
