"""Structures of C and Python, field by field, by the type information of what the kernel loaded."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpf import btf, fields, layout, loader, source
from bpf import sys as bpf
from infra.config import Config


@pytest.fixture
def types(kernel: Config) -> Iterator[btf.Types]:
    pin = loader.pins(kernel) / "programs" / "from_workload"
    for descriptor in loader._pinned(pin.parent, pin.name):
        yield btf.of_program(descriptor)


@pytest.mark.root
def test_every_mirror_equals_the_compiled_structure_in_names_offsets_and_sizes(types: btf.Types) -> None:
    assert fields.differences(types, names=fields.NAMES) == []


def test_every_structure_that_user_space_packs_has_names() -> None:
    kinds = {kind.removeprefix("struct ") for kind in fields.mirrors() if kind.startswith("struct ")}
    assert kinds == set(fields.NAMES)
    assert set(layout.MAPS) <= set(source.maps())


@pytest.mark.root
def test_a_difference_of_any_kind_is_told(types: btf.Types) -> None:
    def told(mirror: str, names: str = "identity epoch remote port protocol direction") -> str:
        wanted = {"struct policy_key": struct.Struct(mirror)}
        return "; ".join(fields.differences(types, wanted, {"policy_key": names}))

    assert told("=IIIHBB") == ""
    assert "16 bytes in C and 20 in Python" in told("=IIIHBBI")
    assert "from remote on" in told("=IIHIBB")  # the same size in another order
    assert "from remote on" in told("=II8s")
    assert "called identity epoch remote" in told("=IIIHBB", "epoch identity remote port protocol direction")
    missing = fields.differences(types, {"struct nobody": struct.Struct("=I")})
    assert missing == ["struct nobody isn't in the compiled object's type information"]


@pytest.mark.root
def test_types_are_read_as_the_header_declares_them(types: btf.Types) -> None:
    size, members = types.structure("service_key")
    assert (size, [(f.name, f.offset, f.size) for f in members]) == (
        24,
        [("consumer", 0, 4), ("address", 4, 16), ("port", 20, 2), ("protocol", 22, 2)],
    )
    (words,) = types.members(members[1].type)
    assert (words.name, words.size) == ("w", 16)
    assert [(f.offset, f.size) for f in types.members(words.type)] == [(0, 4), (4, 4), (8, 4), (12, 4)]
    with pytest.raises(KeyError):
        types.structure("nobody")


def test_what_is_no_type_information_is_refused() -> None:
    with pytest.raises(ValueError, match="isn't BTF"):
        btf.Types(bytes(64))


def test_every_map_of_the_sources_is_understood() -> None:
    for name in ("cells", "edge"):
        text = "".join((Path(source.HERE) / file).read_text() for file in source.LAYOUT_FILES[name])
        assert len(re.findall(r"^CY_\w+\(", text, re.M)) == len(source.maps(name)) > 0


@pytest.mark.root
def test_a_program_without_type_information_says_so() -> None:
    # r0 = 0; exit: loaded by hand, as bcc and libbpf never do.
    import ctypes

    code = ctypes.create_string_buffer(struct.pack("=BBHiBBHi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0), 16)
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack("=IIQQ", 3, 2, ctypes.addressof(code), ctypes.addressof(licence))
    program = bpf._call(5, attributes)
    with pytest.raises(OSError, match="no type information"):
        bpf.type_information(program)
    loader.os.close(program)
