"""Lines of pods: the runtime's files as kubelet rotates them."""

from __future__ import annotations

from pathlib import Path

from dataplane.agent.pods.logs import PodTail

AT = "2026-01-02T03:04:05.123456789Z"


def write(file: Path, *texts: str, flag: str = "F", stream: str = "stdout") -> None:
    with file.open("a") as handle:
        for text in texts:
            handle.write(f"{AT} {stream} {flag} {text}\n")


def texts(tail: PodTail) -> list[str]:
    return [line["text"] for line in tail.read()]


def all_of(tail: PodTail) -> list[str]:
    found: list[str] = []
    while more := texts(tail):
        found += more
    return found


def test_new_lines_come_once_and_partial_ones_together(tmp_path: Path) -> None:
    tail = PodTail("r1", lambda: tmp_path)
    assert tail.read() == []
    write(tmp_path / "0.log", "one")
    (line,) = tail.read()
    assert line == {"replica": "r1", "at": line["at"], "stream": "stdout", "text": "one"}
    assert 1767323045.1 < line["at"] < 1767323045.2
    write(tmp_path / "0.log", "be", flag="P")
    write(tmp_path / "0.log", "other", stream="stderr")
    assert texts(tail) == ["other"]
    write(tmp_path / "0.log", "gin")
    assert texts(tail) == ["begin"]
    assert texts(tail) == []


def test_a_file_that_was_rotated_is_read_to_its_end_first(tmp_path: Path) -> None:
    tail = PodTail("r1", lambda: tmp_path)
    write(tmp_path / "0.log", "one")
    assert texts(tail) == ["one"]
    write(tmp_path / "0.log", "two")
    (tmp_path / "0.log").rename(tmp_path / "0.log.20260102-030405")
    write(tmp_path / "0.log", "three")
    assert all_of(tail) == ["two", "three"]
    # Twice before anybody looked.
    (tmp_path / "0.log").rename(tmp_path / "0.log.20260102-040405")
    write(tmp_path / "0.log", "four")
    (tmp_path / "0.log").rename(tmp_path / "0.log.20260102-050405")
    write(tmp_path / "0.log", "five")
    assert all_of(tail) == ["four", "five"]


def test_packing_an_old_file_changes_nothing(tmp_path: Path) -> None:
    tail = PodTail("r1", lambda: tmp_path)
    write(tmp_path / "0.log", "one")
    assert texts(tail) == ["one"]
    (tmp_path / "0.log").rename(tmp_path / "0.log.20260102-030405")
    write(tmp_path / "0.log", "two")
    assert all_of(tail) == ["two"]
    (tmp_path / "0.log.20260102-030405").unlink()
    (tmp_path / "0.log.20260102-030405.gz").write_bytes(b"\x1f\x8b")
    write(tmp_path / "0.log", "three")
    assert all_of(tail) == ["three"]


def test_a_container_that_was_started_again_goes_on_in_the_next_file(tmp_path: Path) -> None:
    tail = PodTail("r1", lambda: tmp_path)
    write(tmp_path / "0.log", "one", "last words")
    write(tmp_path / "1.log", "again")
    assert all_of(tail) == ["one", "last words", "again"]
    for number in range(2, 12):
        write(tmp_path / f"{number}.log", str(number))
    assert all_of(tail) == [str(number) for number in range(2, 12)]


def test_another_agent_goes_on_where_this_one_was(tmp_path: Path) -> None:
    first = PodTail("r1", lambda: tmp_path)
    write(tmp_path / "0.log", "one")
    assert texts(first) == ["one"]
    write(tmp_path / "0.log", "two")
    (tmp_path / "0.log").rename(tmp_path / "0.log.20260102-030405")
    write(tmp_path / "0.log", "three")
    assert all_of(PodTail("r1", lambda: tmp_path, first.place)) == ["two", "three"]


def test_files_that_went_before_they_were_read_hold_nothing_up(tmp_path: Path) -> None:
    tail = PodTail("r1", lambda: tmp_path)
    write(tmp_path / "0.log", "one")
    assert texts(tail) == ["one"]
    (tmp_path / "0.log").unlink()
    write(tmp_path / "3.log", "later")
    assert all_of(tail) == ["later"]


def test_others_files_in_the_folder_are_none_of_it(tmp_path: Path) -> None:
    for name in ("x.log", "0.logs", "0.txt", "0.log.tmp"):
        write(tmp_path / name, "no")
    assert texts(PodTail("r1", lambda: tmp_path)) == []


def test_a_line_half_written_is_not_left_behind_at_a_rotation(tmp_path: Path) -> None:
    tail = PodTail("r1", lambda: tmp_path)
    write(tmp_path / "0.log", "one")
    with (tmp_path / "0.log").open("a") as handle:
        handle.write(f"{AT} stdout F tw")
        handle.flush()
        assert texts(tail) == ["one"]
        handle.write("o\n")
    assert texts(tail) == ["two"]


def test_a_replicas_next_pod_is_followed_once_the_one_before_is_read_to_its_end(tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    now = [folders[0]]
    tail = PodTail("r1", lambda: now[0])
    write(folders[0] / "0.log", "one")
    assert texts(tail) == ["one"]
    write(folders[0] / "0.log", "last words")
    write(folders[1] / "0.log", "first words")
    now[0] = folders[1]
    assert all_of(tail) == ["last words", "first words"]
    write(folders[1] / "0.log", "more")
    assert all_of(tail) == ["more"]
