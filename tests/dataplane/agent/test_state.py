"""What an agent keeps: a difference writes what it brings, and nothing damaged is ever believed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from dataplane.agent import state
from dataplane.agent.state import State


def unit(name: str, **boundary: Any) -> dict[str, Any]:
    return {"endpoints": [{"id": name, "environment": {"TOKEN": "geheim ü"}}], "boundary": boundary}


def answer(base: int, generation: int, removed: tuple[str, ...] = (), **units: Any) -> dict[str, Any]:
    found = {number.removeprefix("u"): value for number, value in units.items()}
    return {
        "plane": 3, "generation": generation, "mark": f"m{generation}", "base": base,
        "units": found, "removed": list(removed),
    }  # fmt: skip


FIRST = State().after(answer(0, 7, u0=unit("r0"), u1=unit("r1"), u12=unit("r12")))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "agent" / "state.json"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path) -> None:
    (tmp_path / "agent").mkdir()


def files(file: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in file.with_name("units").iterdir()}


def test_what_was_kept_comes_back(file: Path) -> None:
    assert state.load(file) is None
    state.save(file, FIRST)
    assert state.load(file) == FIRST
    assert FIRST.view()["generation"] == 7
    assert [endpoint["id"] for endpoint in FIRST.view()["endpoints"]] == ["r0", "r1", "r12"]


def test_a_difference_changes_what_it_names(file: Path) -> None:
    later = FIRST.after(answer(7, 8, removed=("1",), u12=unit("r99"), u5=unit("r5")))
    assert [endpoint["id"] for endpoint in later.view()["endpoints"]] == ["r0", "r5", "r99"]
    assert (later.generation, later.mark) == (8, "m8")
    whole = later.after(answer(0, 9, u2=unit("r2")))
    assert [endpoint["id"] for endpoint in whole.view()["endpoints"]] == ["r2"], "everything is new"
    assert [endpoint["id"] for endpoint in FIRST.view()["endpoints"]] == ["r0", "r1", "r12"]


def test_a_difference_writes_what_it_brings_and_takes_away_what_nothing_names(file: Path) -> None:
    state.save(file, FIRST)
    before = {path.name: path.stat().st_ino for path in file.with_name("units").iterdir()}
    later = FIRST.after(answer(7, 8, removed=("1",), u12=unit("r99")))
    state.save(file, later)
    after = {path.name: path.stat().st_ino for path in file.with_name("units").iterdir()}
    assert state.load(file) == later
    assert len(after) == 2
    kept = set(before) & set(after)
    assert len(kept) == 1 and all(before[name] == after[name] for name in kept)


def test_secrets_are_readable_by_root_alone(file: Path) -> None:
    many = State().after(answer(0, 1, (), **{f"u{n}": unit(f"r{n}") for n in range(40)}))
    for kept in (FIRST, many):
        state.save(file, kept)
        assert state.load(file) == kept
        for path in (file, *file.with_name("units").iterdir()):
            assert path.stat().st_mode & 0o077 == 0
        assert file.with_name("units").stat().st_mode & 0o077 == 0


def test_whoever_is_interrupted_has_the_state_before(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state.save(file, FIRST)
    later = FIRST.after(answer(7, 8, u12=unit("r99")))

    def fails(*_: Any, **__: Any) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", fails)
        with pytest.raises(OSError, match="no space"):
            state.save(file, later)
    assert state.load(file) == FIRST
    state.save(file, later)
    assert state.load(file) == later
    assert len(files(file)) == 3, "what the interrupted one left is gone"


def test_a_damaged_byte_anywhere_is_never_believed(file: Path) -> None:
    state.save(file, FIRST)
    for path in (file, *file.with_name("units").iterdir()):
        whole = path.read_bytes()
        for place in range(0, len(whole), 5):
            broken = bytearray(whole)
            broken[place] ^= 1
            path.write_bytes(broken)
            try:
                assert state.load(file) == FIRST
            except state.Damaged:
                continue
            raise AssertionError(f"byte {place} of {path.name} may be anything")
        path.write_bytes(whole)


def test_a_unit_that_is_missing_or_cut_is_damage(file: Path) -> None:
    state.save(file, FIRST)
    path = next(file.with_name("units").iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(state.Damaged):
        state.load(file)
    path.unlink()
    with pytest.raises(state.Damaged):
        state.load(file)


@pytest.mark.parametrize(
    "text",
    ["[]", "null", "{}", '{"sha256": 1}', '{"sha256": "x", "index": 1}', '{"sha256": "x", "snapshot": 1}']
    + ["\xff", "[" * 99999],
)
def test_what_was_never_a_state_is_damaged(file: Path, text: str) -> None:
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(state.Damaged):
        state.load(file)


def test_another_states_checksum_isnt_believed(file: Path) -> None:
    state.save(file, FIRST)
    document = json.loads(file.read_text())
    document["index"] = document["index"].replace('"generation": 7', '"generation": 9')
    file.write_text(json.dumps(document))
    with pytest.raises(state.Damaged):
        state.load(file)


def test_a_number_is_never_a_path(file: Path) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        State().after(answer(0, 1, (), **{"u../../x": unit("r1")}))
    assert os.listdir(file.parent) == []


def test_what_an_earlier_agent_kept_is_taken_up_and_asked_for_again(file: Path) -> None:
    text = json.dumps({"plane": 3, "generation": 41, **unit("r1", floor=[])})
    digest = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(json.dumps({"sha256": digest, "snapshot": text}))
    kept = state.load(file)
    assert kept is not None
    assert (kept.generation, kept.mark) == (0, "")
    assert [endpoint["id"] for endpoint in kept.view()["endpoints"]] == ["r1"]


def test_a_view_is_all_of_it_and_keeps_nothing() -> None:
    view = FIRST.view()
    assert (view["plane"], view["generation"]) == (3, 7)
    assert [endpoint["id"] for endpoint in view["endpoints"]] == ["r0", "r1", "r12"]
    assert view["endpoints"] is not view["endpoints"]
    assert view.get("edge", "nothing") == "nothing"
    with pytest.raises(KeyError):
        view["edge"]
    assert dict(view) == {"plane": 3, "generation": 7, "boundary": {}, "endpoints": view["endpoints"]}
