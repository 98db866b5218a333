"""From what was refused to a cytoplane.yaml that declares it, in a real working tree."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from django.utils import timezone

from cli import errors
from projects.models import Cell
from telemetry.actions import record_flows
from telemetry.models import Edge
from tests.platform.cli.conftest import Platform
from tests.platform.cli.test_commands import SHOP
from tests.platform.telemetry.test_edges import flow, identity

FILE = f"# Ours.\n{SHOP.strip()}\n  # The end.\n"


@pytest.fixture
def learned(platform: Platform) -> Platform:
    """acme's shop, whose api called out in vain and whose web was let pass to a port of it."""
    cell = platform.world.cell(platform.world.project("shop"))
    platform.world.deploy(cell, SHOP)
    platform.cell = Cell.objects.get(pk=cell.pk)
    api = identity(cell, "api")
    record_flows(
        platform.world.plane,
        [
            flow(api, 2, "EGRESS", remote="198.51.100.7", port=443, packets=4),
            flow(api, 2, "EGRESS", remote="198.51.100.8", port=5432, allowed=True),
            flow(api, 2, "FLOOR", remote="169.254.169.254", port=80),
        ],
    )
    platform.stand_in()
    return platform


@pytest.fixture
def tree(learned: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working tree of the project whose remote is a repository of this machine."""
    root, bare = tmp_path / "tree", tmp_path / "bare.git"
    url = f"{learned.url}/git/acme/shop.git"
    for words in (
        ["git", "init", "-q", "--bare", str(bare)],
        ["git", "init", "-q", "-b", "main", str(root)],
        ["git", "-C", str(root), "config", "user.name", "Ada"],
        ["git", "-C", str(root), "config", "user.email", "ada@example.org"],
        ["git", "-C", str(root), "remote", "add", "cytoplane", url],
        ["git", "-C", str(root), "config", f"url.{bare}.insteadOf", url],
    ):
        subprocess.run(words, check=True, capture_output=True)
    (root / "cytoplane.yaml").write_text(FILE)
    (root / "src").mkdir()
    for words in (["add", "-A"], ["commit", "-q", "-m", "First"]):
        subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True)
    monkeypatch.chdir(root / "src")
    return root


def git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True, text=True)
    return done.stdout


def test_what_was_refused_or_audited_is_listed_with_what_it_needs(learned: Platform) -> None:
    ran = learned.cyto("learn")
    assert ran.code == 0
    first, second = (line for line in ran.out.splitlines() if "198.51.100" in line)
    assert ["198.51.100.7/32 port 443/tcp" in first, "denied" in first, "as: NET_198_51_100_7" in first] == [
        True
    ] * 3
    assert ["198.51.100.8/32" in second, "would be denied" in second] == [True] * 2
    assert "169.254.169.254 port 80/tcp: " in ran.err
    assert "cidr: 198.51.100.8/32" in learned.cyto("learn", "--yaml").out
    raw = learned.cyto("learn", "--json").json
    assert [row["verdict"] for row in raw["connections"]] == ["denied", "audited"]
    (closed,) = raw["excluded"]
    assert (closed["component"], closed["reason"]) == ("api", "FLOOR")
    one = learned.cyto("learn", raw["connections"][1]["id"], "--yaml").out
    assert ["198.51.100.7" in one, "198.51.100.8" in one] == [False, True]
    denied = learned.cyto("denied").out
    assert "would be denied" in denied


def test_old_traffic_teaches_nothing(learned: Platform) -> None:
    Edge.objects.update(last_at=timezone.now() - timezone.timedelta(hours=3))
    assert learned.cyto("learn", "--hours", "2", "--json").json["connections"] == []
    assert len(learned.cyto("learn", "--hours", "4", "--json").json["connections"]) == 2


def test_accepting_writes_the_file_and_shows_the_change(learned: Platform, tree: Path) -> None:
    ran = learned.cyto("learn", "--accept")
    assert ran.code == 0, ran.err
    assert "+    connections:" in ran.out
    text = (tree / "cytoplane.yaml").read_text()
    assert text.startswith("# Ours.\n")
    assert "  # The end.\n" in text
    assert text.count("198.51.100.") == 2
    assert git(tree, "status", "--porcelain") == " M cytoplane.yaml\n"
    again = learned.cyto("learn", "--accept", "--json")
    assert (again.json["added"], again.json["diff"], len(again.json["skipped"])) == ([], "", 2)
    assert (tree / "cytoplane.yaml").read_text() == text


def test_a_chosen_one_is_accepted_committed_and_pushed_with_nothing_else(
    learned: Platform, tree: Path
) -> None:
    chosen = learned.cyto("learn", "--json").json["connections"][1]["id"]
    (tree / "other").write_text("not to be committed")
    git(tree, "add", "other")
    ran = learned.cyto("learn", chosen, "--accept", "--push", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["pushed"] is True
    bare = tree.parent / "bare.git"
    assert git(bare, "log", "--format=%s", "main").splitlines()[1] == "First"
    assert git(bare, "show", "--name-only", "--format=", "main") == "cytoplane.yaml\n"
    assert "198.51.100.8" in git(bare, "show", "main:cytoplane.yaml")
    assert "198.51.100.7" not in git(bare, "show", "main:cytoplane.yaml")
    assert git(tree, "status", "--porcelain") == "A  other\n"


def test_what_somebody_is_working_on_isnt_pushed_along(learned: Platform, tree: Path) -> None:
    (tree / "cytoplane.yaml").write_text(FILE + "# Mine.\n")
    ran = learned.cyto("learn", "--accept", "--push")
    assert (ran.code, ran.error) == (errors.CONFLICT, "not-committed")
    assert (tree / "cytoplane.yaml").read_text() == FILE + "# Mine.\n"


def test_errors_say_what_to_do(
    learned: Platform, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert learned.cyto("learn", "nosuch").error == "usage"
    (tree / "cytoplane.yaml").write_text("components: [")
    assert learned.cyto("learn", "--accept").error == "specification"
    monkeypatch.chdir(tmp_path)
    ran = learned.cyto("learn", "--accept")
    assert ran.error == "no-working-tree"
    assert "--yaml" in ran.err
    for words, following in (
        ("why web nosuch", "Components here are api, web"),
        ("why web api@nowhere", "Components here are"),
        ("why internet 198.51.100.7", "Name a component"),
    ):
        ran = learned.cyto(*words.split())
        assert (ran.code, ran.error) == (errors.NOT_FOUND, "end-unknown")
        assert following in ran.err
