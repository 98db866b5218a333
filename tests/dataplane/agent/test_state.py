"""The kept state: whole or not at all, and believed only if it is what was written."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from dataplane import client
from dataplane.agent import state

SNAPSHOT = {"generation": 7, "endpoints": [{"environment": {"TOKEN": "geheim ü"}}], "boundary": {}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


def test_what_was_saved_comes_back(file: Path) -> None:
    assert state.load(file) is None
    state.save(file, SNAPSHOT)
    assert state.load(file) == SNAPSHOT
    state.save(file, {"generation": 8})
    assert state.load(file) == {"generation": 8}
    assert os.listdir(file.parent) == ["state.json"]


def test_only_its_owner_reads_it(file: Path) -> None:
    before = os.umask(0)
    try:
        state.save(file, SNAPSHOT)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_write_that_fails_leaves_the_one_before(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state.save(file, SNAPSHOT)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(client.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        state.save(file, {"generation": 8})
    assert state.load(file) == SNAPSHOT


def test_every_damage_is_seen(file: Path) -> None:
    state.save(file, SNAPSHOT)
    whole = file.read_bytes()
    for cut in range(0, len(whole), 7):
        file.write_bytes(whole[:cut])
        with pytest.raises(state.Damaged):
            state.load(file)
    for place in range(0, len(whole), 5):
        broken = bytearray(whole)
        broken[place] ^= 1
        file.write_bytes(broken)
        try:
            assert state.load(file) == SNAPSHOT
        except state.Damaged:
            continue
        raise AssertionError(f"byte {place} may be anything")


@pytest.mark.parametrize(
    "text", ["[]", "null", "{}", '{"sha256": 1}', '{"sha256": "x", "snapshot": 1}', "\xff", "[" * 99999]
)
def test_what_was_never_a_state_is_damaged(file: Path, text: str) -> None:
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(state.Damaged):
        state.load(file)


def test_another_states_checksum_isnt_believed(file: Path) -> None:
    state.save(file, SNAPSHOT)
    document = json.loads(file.read_text())
    document["snapshot"] = json.dumps({"generation": 9})
    file.write_text(json.dumps(document))
    with pytest.raises(state.Damaged):
        state.load(file)
