"""The plugin's place at the end of a node's chain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataplane.cni import chain

SOCKET = Path("/var/lib/cytoplane/run/cni.sock")
OWN = {"type": "cytoplane", "socket": str(SOCKET)}
PTP, PORTMAP = (
    {"type": "ptp", "ipam": {"x": [1]}},
    {"type": "portmap", "capabilities": {"portMappings": True}},
)


def conflist(folder: Path, *plugins: dict[str, Any], name: str = "10-net.conflist") -> Path:
    file = folder / name
    file.write_text(json.dumps({"cniVersion": "0.4.0", "name": "net", "plugins": list(plugins)}))
    return file


def plugins(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text())["plugins"]


def test_it_is_put_last_once_and_everything_else_stays(tmp_path: Path) -> None:
    file = conflist(tmp_path, PTP, PORTMAP)
    assert not chain.whole(tmp_path, SOCKET)
    assert chain.install(tmp_path, SOCKET)
    assert plugins(file) == [PTP, PORTMAP, OWN]
    assert chain.whole(tmp_path, SOCKET)
    assert not chain.install(tmp_path, SOCKET)
    assert json.loads(file.read_text())["cniVersion"] == "0.4.0"
    assert [each.name for each in tmp_path.iterdir()] == ["10-net.conflist"]


@pytest.mark.parametrize(
    "broken",
    [
        [PTP],
        [PTP, OWN, PORTMAP],
        [OWN, PTP],
        [PTP, {"type": "cytoplane", "socket": "/elsewhere"}],
        [PTP, OWN, OWN],
    ],
)
def test_a_chain_that_lost_it_or_does_not_end_with_it_is_repaired(
    tmp_path: Path, broken: list[dict[str, Any]]
) -> None:
    file = conflist(tmp_path, *broken)
    chain.install(tmp_path, SOCKET)
    assert plugins(file)[-1] == OWN
    assert [p for p in plugins(file) if p["type"] == "cytoplane"] == [OWN]
    assert chain.whole(tmp_path, SOCKET)


def test_the_file_that_the_runtime_takes_is_the_first_by_name(tmp_path: Path) -> None:
    second = conflist(tmp_path, PTP, name="20-other.conflist")
    first = conflist(tmp_path, PTP, name="05-net.conflist")
    (tmp_path / "00-notes.txt").write_text("no configuration")
    chain.install(tmp_path, SOCKET)
    assert plugins(first)[-1] == OWN and plugins(second) == [PTP]
    # Another one comes before it: from now on that one counts.
    earlier = conflist(tmp_path, PTP, name="01-new.conflist")
    assert not chain.whole(tmp_path, SOCKET)
    chain.install(tmp_path, SOCKET)
    assert plugins(earlier)[-1] == OWN


def test_it_is_taken_out_wherever_it_is(tmp_path: Path) -> None:
    files = [conflist(tmp_path, PTP, OWN, name=name) for name in ("1.conflist", "2.conflist")]
    other = conflist(tmp_path, PTP, PORTMAP, name="3.conflist")
    before = other.stat().st_mtime_ns
    assert chain.remove(tmp_path)
    assert [plugins(file) for file in files] == [[PTP], [PTP]]
    assert other.stat().st_mtime_ns == before
    assert not chain.remove(tmp_path)


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"type": "ptp"}', '{"plugins": {}}'])
def test_what_nothing_can_be_chained_to_is_said(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "10-net.conflist").write_text(text)
    for act in (chain.install, chain.whole):
        with pytest.raises(chain.ChainError):
            act(tmp_path, SOCKET)
    if text is not None:
        assert (tmp_path / "10-net.conflist").read_text() == text
