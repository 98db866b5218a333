"""Reading what podman writes: every line once, whatever the process printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataplane.agent import logs
from dataplane.agent.logs import Tail, last_lines, load_places, save_places

AT = "2026-01-02T03:04:05.123456789+00:00"


def line(text: str | bytes, mark: str = "F", stream: str = "stdout") -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return f"{AT} {stream} {mark} ".encode() + raw + b"\n"


def write(file: Path, *lines: bytes) -> None:
    with file.open("ab") as handle:
        handle.write(b"".join(lines))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "r1.log"


def texts(found: list[dict[str, Any]]) -> list[str]:
    return [entry["text"] for entry in found]


def test_each_line_is_read_once(file: Path) -> None:
    tail = Tail("r1", file)
    assert tail.read() == []
    write(file, line("one"), line("two", stream="stderr"))
    found = tail.read()
    assert texts(found) == ["one", "two"]
    assert [entry["stream"] for entry in found] == ["stdout", "stderr"]
    assert found[0]["replica"] == "r1"
    assert abs(found[0]["at"] - 1767323045.123456) < 0.001
    assert tail.read() == []
    write(file, line("three"))
    assert texts(tail.read()) == ["three"]


def test_a_line_is_read_when_it_is_whole(file: Path) -> None:
    tail = Tail("r1", file)
    whole = line("slowly")
    for byte in range(len(whole) - 1):
        write(file, whole[byte : byte + 1])
        assert tail.read() == []
    write(file, whole[-1:])
    assert texts(tail.read()) == ["slowly"]


def test_pieces_of_a_long_line_belong_together_for_each_stream(file: Path) -> None:
    tail = Tail("r1", file)
    write(file, line("a", "P"), line("x", "P", "stderr"))
    assert tail.read() == []
    write(file, line("b", "F"), line("y", "F", "stderr"))
    found = tail.read()
    assert [(entry["stream"], entry["text"]) for entry in found] == [("stdout", "ab"), ("stderr", "xy")]


def test_a_line_without_end_is_passed_on_in_bounded_pieces(file: Path) -> None:
    tail = Tail("r1", file)
    write(file, *[line("z" * 4000, "P") for _ in range(20)])
    found = texts(tail.read())
    assert found and all(len(text) <= 16000 for text in found)


@pytest.mark.parametrize(
    "text", ["a\rb", "50%\r100% of it\r", "\x0b\x0c\x1c\x85", "\u2028x", "", " ", "  two  ", "\x00"]
)
def test_what_a_process_prints_stays_one_line(file: Path, text: str) -> None:
    tail = Tail("r1", file)
    write(file, line(text), line("next"))
    assert texts(tail.read()) == [text, "next"]
    assert last_lines(file) == [text, "next"]


def test_bytes_that_arent_text_are_shown_as_such(file: Path) -> None:
    write(file, line(b"\xff\xfe\x80ok"))
    assert texts(Tail("r1", file).read()) == ["\ufffd\ufffd\ufffdok"]


@pytest.mark.parametrize("junk", [b"\n", b"x\n", b"a b\n", b"nodate stdout F still there\n", b"\x00\xff\n"])
def test_junk_between_lines_hides_none(file: Path, junk: bytes) -> None:
    write(file, line("before"), junk, line("after"))
    found = texts(Tail("r1", file).read())
    assert found[0] == "before" and found[-1] == "after"


def test_a_replaced_file_is_read_from_its_beginning(file: Path) -> None:
    """podman replaces a log that has become too large; the new one may be longer by the next look."""
    tail = Tail("r1", file)
    write(file, line("old"))
    assert texts(tail.read()) == ["old"]
    fresh = file.with_name("fresh")
    write(fresh, line("new"), *[line(str(number)) for number in range(50)])
    fresh.rename(file)
    assert texts(tail.read()) == ["new", *map(str, range(50))]


def test_a_file_that_was_cut_is_read_from_its_beginning(file: Path) -> None:
    tail = Tail("r1", file)
    write(file, line("a long line that was there"))
    tail.read()
    file.write_bytes(line("new"))
    assert texts(tail.read()) == ["new"]


def test_much_output_is_read_in_bounded_parts_and_none_is_lost(file: Path) -> None:
    tail = Tail("r1", file)
    write(file, *[line(f"{number} " + "x" * 100) for number in range(5000)])
    parts = []
    while part := tail.read():
        parts.append(part)
    assert len(parts) > 1
    assert [text.split()[0] for part in parts for text in texts(part)] == [
        str(number) for number in range(5000)
    ]


def test_bytes_without_any_line_dont_hold_up_what_follows(file: Path) -> None:
    tail = Tail("r1", file)
    write(file, b"x" * (logs._MOST_BYTES + 10), b"\n", line("after"))
    assert "after" in texts(tail.read() + tail.read())


def test_the_next_agent_goes_on_where_the_last_one_was(file: Path, tmp_path: Path) -> None:
    tail = Tail("r1", file)
    write(file, line("one"))
    tail.read()
    places = tmp_path / "places.json"
    save_places(places, [tail, Tail("r2", tmp_path / "none")])
    write(file, line("two"))
    kept = load_places(places)
    assert texts(Tail("r1", file, kept["r1"]).read()) == ["two"]
    file.unlink()
    write(tmp_path / "other", line("of another file"))
    (tmp_path / "other").rename(file)
    assert texts(Tail("r1", file, (kept["r1"][0] + 1, kept["r1"][1])).read()) == ["of another file"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"r1": 3}', '{"r1": [1]}', '{"r1": ["x", 1]}', "null"])
def test_places_that_cant_be_read_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "places.json").write_text(text)
    assert load_places(tmp_path / "places.json") == {}
    assert load_places(tmp_path / "nothing") == {}


def test_the_last_lines_are_the_newest(file: Path) -> None:
    assert last_lines(file) == []
    write(file, *[line(str(number)) for number in range(100)])
    assert last_lines(file) == [str(number) for number in range(70, 100)]
    assert last_lines(file, 2) == ["98", "99"]


def test_the_last_lines_of_a_large_file_begin_with_a_whole_one(file: Path) -> None:
    write(file, *[line("word " * 2000) for _ in range(40)])
    assert set(last_lines(file)) == {"word " * 80}, "each as far as it is kept"
