"""Turns the C sources into one text that bcc compiles.

The sources use a neutral syntax, so that the same text can be built for bcc and for libbpf:
``CY_MAP(...)``, ``CY_MAP_OF_MAPS(...)``, ``CY_STORAGE(...)``, ``map_lookup(map, key)``, ``map_update(map, key, value)``,
``map_delete(map, key)``, ``storage_get(map, socket, flags)``. bcc rewrites map methods only in the
main file and not inside macros, hence includes are flattened and the calls expanded here.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

HERE = Path(__file__).parent
FILES = ("workload.bpf.c", "sockets.bpf.c")
#: What pinned objects depend on: another layout gets another folder of pins.
LAYOUT_FILES = ("lib/types.h", "lib/maps.h")

_INCLUDE = re.compile(r'^#include "(lib/[a-z0-9_]+\.h)"\n', re.M)
_MAP = re.compile(r'^CY_MAP\("(\w+)", (struct \w+|__u\d+), (struct \w+|__u\d+), (\w+), (\d+), (\w+)\)', re.M)
_MAP_OF_MAPS = re.compile(
    r'^CY_MAP_OF_MAPS\((__u\d+), "(\w+)", (struct \w+), (struct \w+), (\w+), (\d+), (\d+)\)', re.M
)
_STORAGE = re.compile(r"^CY_STORAGE\((\w+), (struct \w+)\)", re.M)


def flatten() -> str:
    """All sources as one text in neutral syntax; every header once."""
    seen: set[str] = set()

    def include(match: re.Match) -> str:
        name = match.group(1)
        if name in seen:
            return ""
        seen.add(name)
        text = (HERE / name).read_text().replace("#pragma once\n", "")
        return _INCLUDE.sub(include, text)

    return "\n".join(_INCLUDE.sub(include, (HERE / name).read_text()) for name in FILES)


def layout_hash() -> str:
    """Twelve hex digits that change when a structure or a map changes."""
    text = "".join((HERE / name).read_text() for name in LAYOUT_FILES)
    return hashlib.sha256(re.sub(r"/\*.*?\*/|\s+", "", text, flags=re.S).encode()).hexdigest()[:12]


def maps() -> list[str]:
    """Names of all maps that are pinned, in order of declaration."""
    text = flatten()
    return (
        [match.group(4) for match in _MAP.finditer(text)]
        + [match.group(5) for match in _MAP_OF_MAPS.finditer(text)]
        + [match.group(1) for match in _STORAGE.finditer(text)]
    )


def for_bcc(pins: Path) -> str:
    """The text for bcc with maps pinned below ``pins``, opened there if they exist already."""
    text = flatten()

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


def as_externals(text: str) -> str:
    """Maps as external variables named ``<map>_value``: enough for a compiler's warnings."""
    text = _MAP.sub(r"extern \3 \4_value;", text)
    text = _MAP_OF_MAPS.sub(
        r"""extern void *\5_value;
extern \4 *inner_lookup(void *, const void *);
extern long inner_update(void *, const void *, const void *);
extern long inner_delete(void *, const void *);""",
        text,
    )
    return _STORAGE.sub(r"extern \2 \1_value;", text)
