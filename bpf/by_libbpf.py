"""Loads prebuilt objects through libbpf (Debian's libbpf1), by ctypes: no compiler, no headers."""

from __future__ import annotations

import ctypes
import os
import re
import stat
from pathlib import Path

from bpf import prebuild, programs, source
from bpf.errors import LoadError, refused
from bpf.opening import Opened, captured

_pointer = ctypes.c_void_p


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise LoadError("libbpf can't be loaded: install libbpf1") from error
    for name, result, arguments in (
        ("bpf_object__open_file", _pointer, [ctypes.c_char_p, _pointer]),
        ("bpf_object__next_map", _pointer, [_pointer, _pointer]),
        ("bpf_map__name", ctypes.c_char_p, [_pointer]),
        ("bpf_map__set_pin_path", ctypes.c_int, [_pointer, ctypes.c_char_p]),
        ("bpf_object__next_program", _pointer, [_pointer, _pointer]),
        ("bpf_program__name", ctypes.c_char_p, [_pointer]),
        ("bpf_program__set_type", ctypes.c_int, [_pointer, ctypes.c_int]),
        ("bpf_program__set_expected_attach_type", ctypes.c_int, [_pointer, ctypes.c_int]),
        ("bpf_program__fd", ctypes.c_int, [_pointer]),
        ("bpf_object__load", ctypes.c_int, [_pointer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def open_file(path: Path, object_name: str, pins: Path) -> Opened:
    """Load an object of ``prebuild`` with its maps pinned in ``pins``. Raises ``LoadError``."""
    _check_owner(path)
    if not prebuild.whole(path):
        raise LoadError(f"{path} is damaged: build it again")
    library = _library()
    with captured() as output:
        handle = library.bpf_object__open_file(str(path).encode(), None)
    if not handle:
        raise LoadError(f"{path} isn't an object that libbpf can open: {_said(output)}. Build it again")
    wanted = source.maps(object_name)
    for each in _walk(library.bpf_object__next_map, handle):
        name = library.bpf_map__name(each).decode()
        if name in wanted:
            library.bpf_map__set_pin_path(each, str(pins / name).encode())
    expected = programs.of(object_name)
    found = {}
    for each in _walk(library.bpf_object__next_program, handle):
        name = library.bpf_program__name(each).decode()
        if name not in expected:
            raise LoadError(f"{path} has a program {name} that this version doesn't know: build it again")
        library.bpf_program__set_type(each, programs.KINDS[expected[name].kind])
        if expected[name].kind == "CGROUP_SOCK_ADDR":
            library.bpf_program__set_expected_attach_type(each, expected[name].hook)
        found[name] = each
    if missing := expected.keys() - found.keys():
        raise LoadError(f"{path} lacks the programs {', '.join(sorted(missing))}: build it again")
    with captured() as output:
        failed = library.bpf_object__load(handle)
    if failed:
        raise _failure(path, output, -failed)
    return Opened("prebuilt", {name: library.bpf_program__fd(each) for name, each in found.items()}, handle)


def _check_owner(path: Path) -> None:
    """What root loads into the kernel is root's to write."""
    for place in (path, path.parent):
        about = place.stat()
        if about.st_uid not in (0, os.geteuid()) or stat.S_IMODE(about.st_mode) & 0o022:
            raise LoadError(f"others than root can write {place}: `chown root` and `chmod go-w` it")


def _walk(following, handle):
    each = following(handle, None)
    while each:
        yield each
        each = following(handle, each)


def _said(output: list[str]) -> str:
    lines = [line.removeprefix("libbpf: ") for line in "".join(output).splitlines()]
    return "; ".join(lines[-2:])[:300]


def _failure(path: Path, output: list[str], number: int) -> LoadError:
    log = "".join(output)
    if program := re.search(r"prog '(\w+)': BPF program load failed", log):
        # Only what the verifier said, up to the end of its log.
        verifier = log.partition("BEGIN PROG LOAD LOG --")[2].partition("-- END PROG LOAD LOG")[0]
        return refused(program.group(1), verifier, os.strerror(number))
    return LoadError(f"libbpf can't load {path.name}: {_said(output) or os.strerror(number)}")
