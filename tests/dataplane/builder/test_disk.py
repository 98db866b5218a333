"""What builds may write and print."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from dataplane.builder import disk
from dataplane.builder.output import LONGEST_LINE, MOST_SHOWN, Output

MIB = 2**20


def test_files_are_counted_once_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "file").write_bytes(os.urandom(3 * MIB))
    (tmp_path / "link").symlink_to("/usr")
    assert 3 * MIB <= disk.used(tmp_path) < 4 * MIB
    assert disk.used(tmp_path / "nothing") == 0


def test_a_build_that_writes_too_much_is_ended_and_one_that_doesnt_goes_on(tmp_path: Path) -> None:
    ended = threading.Event()
    with disk.DiskWatch([tmp_path], 16 * MIB, ended.set) as watch:
        (tmp_path / "little").write_bytes(os.urandom(4 * MIB))
        assert not ended.wait(1.5)
        (tmp_path / "much").write_bytes(os.urandom(32 * MIB))
        assert ended.wait(10)
    assert watch.exceeded


def test_what_somebody_else_writes_ends_no_build(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    ended = threading.Event()
    with disk.DiskWatch([own], 16 * MIB, ended.set) as watch:
        other.write_bytes(os.urandom(48 * MIB))
        assert not ended.wait(1.5)
    assert not watch.exceeded


def test_output_is_shown_by_lines_wherever_it_is_broken() -> None:
    shown: list[str] = []
    output = Output(shown.append)
    for piece in (b"one\ntw", b"o\nthr", b"ee"):
        output.add(piece)
    output.close()
    assert shown == ["       one\n", "       two\n", "       three\n"]
    assert output.text == "one\ntwo\nthree\n"


def test_a_line_without_end_takes_no_memory_and_a_flood_is_cut() -> None:
    shown: list[str] = []
    output = Output(shown.append)
    for _ in range(2 * MOST_SHOWN // MIB):
        output.add(b"x" * MIB)
        assert len(output._rest) <= LONGEST_LINE
    output.close()
    assert sum(map(len, shown)) < MOST_SHOWN * 1.1
    assert "isn't shown" in shown[-1]


def test_what_is_not_shown_keeps_its_long_lines() -> None:
    output = Output(None)
    output.add(b'{"a": "' + b"x" * 100_000 + b'"}')
    output.close()
    assert len(output.text.splitlines()) == 1
