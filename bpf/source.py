"""Turns the C sources into one text for each object, for bcc or for libbpf.

The sources use a neutral syntax: ``CY_MAP(...)``, ``CY_MAP_OF_MAPS(...)``, ``CY_STORAGE(...)``,
``map_lookup(map, key)``, ``map_update(map, key, value)``, ``map_delete(map, key)``,
``inner_lookup``, ``inner_update`` and ``inner_delete`` for what a map of maps gave, and
``storage_get(map, socket, flags)``. bcc rewrites map methods only in the main file and not inside
macros, hence includes are flattened and the calls expanded here.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from bpf.programs import OBJECTS, PROGRAMS

HERE = Path(__file__).parent
#: What pinned objects depend on: another layout gets another folder of pins.
LAYOUT_FILES = {"cells": ("lib/types.h", "lib/maps.h"), "edge": ("lib/edge.h",)}

_INCLUDE = re.compile(r'^#include "(lib/[a-z0-9_]+\.h)"\n', re.M)
_MAP = re.compile(r'^CY_MAP\("(\w+)", (struct \w+|__u\d+), (struct \w+|__u\d+), (\w+), (\d+), (\w+)\)', re.M)
_MAP_OF_MAPS = re.compile(
    r'^CY_MAP_OF_MAPS\((__u\d+), "(\w+)", (struct \w+), (struct \w+), (\w+), (\d+), (\d+)\)', re.M
)
_STORAGE = re.compile(r"^CY_STORAGE\((\w+), (struct \w+)\)", re.M)
_PROGRAM = re.compile(r"^int (\w+)\(struct ", re.M)


class Declared(NamedTuple):
    """A map as the sources declare it. Of a map of maps, ``inner`` is (kind, key, value, entries)."""

    name: str
    kind: str
    key: str
    value: str
    entries: int
    flags: int = 0
    inner: tuple[str, str, str, int] | None = None


def flatten(object_name: str = "cells") -> str:
    """An object's sources as one text in neutral syntax; every header once."""
    seen: set[str] = set()

    def include(match: re.Match) -> str:
        name = match.group(1)
        if name in seen:
            return ""
        seen.add(name)
        text = (HERE / name).read_text().replace("#pragma once\n", "")
        return _INCLUDE.sub(include, text)

    return "\n".join(_INCLUDE.sub(include, (HERE / name).read_text()) for name in OBJECTS[object_name])


@cache
def layout_hash(object_name: str = "cells") -> str:
    """Twelve hex digits that change when a structure or a map of the object changes.

    A process keeps to the sources that it began with, whatever is installed meanwhile.
    """
    text = "".join((HERE / name).read_text() for name in LAYOUT_FILES[object_name])
    return hashlib.sha256(re.sub(r"/\*.*?\*/|\s+", "", text, flags=re.S).encode()).hexdigest()[:12]


def maps(object_name: str = "cells") -> dict[str, Declared]:
    """All maps that are pinned."""
    text = flatten(object_name)
    found = []
    for kind, key, value, name, entries, flags in _MAP.findall(text):
        found.append(Declared(name, kind, key, value, int(entries), int(flags == "BPF_F_NO_PREALLOC")))
    for key, kind, inner_key, value, name, entries, inner_entries in _MAP_OF_MAPS.findall(text):
        inner = (kind, inner_key, value, int(inner_entries))
        found.append(Declared(name, "hash_of_maps", key, "__u32", int(entries), 0, inner))
    found += [Declared(name, "sk_storage", "int", value, 0, 1) for name, value in _STORAGE.findall(text)]
    return {declared.name: declared for declared in found}


def for_bcc(pins: Path, object_name: str = "cells") -> str:
    """The text for bcc with maps pinned below ``pins``, opened there if they exist already."""
    text = flatten(object_name)

    def table(match: re.Match) -> str:
        kind, key, value, name, entries, flags = match.groups()
        return f'BPF_TABLE_PINNED7("{kind}", {key}, {value}, {name}, {entries}, "{pins}/{name}", {flags});'

    text = _MAP.sub(table, text)
    text = _MAP_OF_MAPS.sub(
        rf"""BPF_TABLE("\2", \3, \4, \5_template, \7);
BPF_TABLE_PINNED7("hash_of_maps$\5_template", \1, int, \5, \6, "{pins}/\5", 0);
#define inner_lookup(table, key) ((\4 *)inner_lookup_(table, key))
#define inner_update(table, key, value) inner_update_(table, key, value, 0)
static void *(*inner_lookup_)(void *, void *) = (void *)BPF_FUNC_map_lookup_elem;
static long (*inner_update_)(void *, void *, void *, u64) = (void *)BPF_FUNC_map_update_elem;
static long (*inner_delete)(void *, void *) = (void *)BPF_FUNC_map_delete_elem;""",
        text,
    )
    # bcc has no pinned form of socket storage: its own declaration with a path in the section.
    text = _STORAGE.sub(
        rf"""struct \1_table {{
	int key;
	\2 leaf;
	void *(*sk_storage_get)(void *, void *, int);
	int (*sk_storage_delete)(void *);
	u32 flags;
}};
__attribute__((section("maps/sk_storage:{pins}/\1"))) struct \1_table \1 = {{ .flags = BPF_F_NO_PREALLOC }};
BPF_ANNOTATE_KV_PAIR(\1, int, \2);""",
        text,
    )
    text = re.sub(r"\bmap_lookup\((\w+), ", r"\1.lookup(", text)
    text = re.sub(r"\bmap_update\((\w+), ", r"\1.update(", text)
    text = re.sub(r"\bmap_delete\((\w+), ", r"\1.delete(", text)
    return re.sub(r"\bstorage_get\((\w+), ([^,]+), ([^)]+)\)", r"\1.sk_storage_get(\2, 0, \3)", text)


#: The neutral calls as helpers, with keys and values of the declared types.
_LIBBPF = """
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#undef inline
#define inline inline __attribute__((always_inline))
#define map_lookup(map, k) ({ __typeof__(map.key) key_ = (k); (__typeof__(map.value))bpf_map_lookup_elem(&map, key_); })
#define map_update(map, k, v) \\
	({ __typeof__(map.key) key_ = (k); __typeof__(map.value) value_ = (v); bpf_map_update_elem(&map, key_, value_, 0); })
#define map_delete(map, k) ({ __typeof__(map.key) key_ = (k); bpf_map_delete_elem(&map, key_); })
#define storage_get(map, socket, flags) ((__typeof__(map.value))bpf_sk_storage_get(&map, socket, 0, flags))
"""


def for_libbpf(object_name: str = "cells") -> str:
    """The text for clang and libbpf: maps by their types, programs by their sections."""
    text = flatten(object_name)
    includes = re.findall(r"^#include <.*>\n", text, re.M)
    text = re.sub(r"^#include <.*>\n", "", text, flags=re.M)

    def members(kind: str, entries: str, flags: str) -> str:
        lines = f"__uint(type, BPF_MAP_TYPE_{kind.upper()}); __uint(map_flags, {flags});"
        return lines + (f" __uint(max_entries, {entries});" if entries != "0" else "")

    def table(match: re.Match) -> str:
        kind, key, value, name, entries, flags = match.groups()
        types = f"__type(key, {key}); __type(value, {value});"
        return f'struct {{ {members(kind, entries, flags)} {types} }} {name} SEC(".maps");'

    def table_of_tables(match: re.Match) -> str:
        key, kind, inner_key, value, name, entries, inner_entries = match.groups()
        inner = f"{members(kind, inner_entries, '0')} __type(key, {inner_key}); __type(value, {value});"
        return (
            # A real map of the same types as well: of a mere template clang forgets the types.
            f"struct {name}_template {{ {inner} }};\n"
            f'struct {{ {inner.replace("struct ", "const struct ")} }} {name}_types SEC(".maps");\n'
            f"struct {{ {members('hash_of_maps', entries, '0')} __type(key, {key}); "
            f'__array(values, struct {name}_template); }} {name} SEC(".maps");\n'
            f"#define inner_lookup(table, key) (({value} *)bpf_map_lookup_elem(table, key))\n"
            "#define inner_update(table, key, value) bpf_map_update_elem(table, key, value, 0)\n"
            "#define inner_delete(table, key) bpf_map_delete_elem(table, key)"
        )

    for outer in _MAP_OF_MAPS.finditer(text):
        text = re.sub(rf"\bmap_lookup\({outer.group(5)}, ", f"bpf_map_lookup_elem(&{outer.group(5)}, ", text)
    text = _MAP_OF_MAPS.sub(table_of_tables, _MAP.sub(table, text))
    storage = members("sk_storage", "0", "BPF_F_NO_PREALLOC")
    text = _STORAGE.sub(
        rf'struct {{ {storage} __type(key, int); __type(value, \2); }} \1 SEC(".maps");',
        text,
    )

    def program(match: re.Match) -> str:
        found = PROGRAMS.get(match.group(1))
        return f'SEC("{found.section}") {match.group(0)}' if found else match.group(0)

    text = _PROGRAM.sub(program, text)
    licence = 'char licence[] SEC("license") = "GPL";'
    return "".join(includes).replace("uapi/", "") + _LIBBPF + text + f"\n{licence}\n"
