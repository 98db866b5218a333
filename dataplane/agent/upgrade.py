"""From one layout of the kernel's tables to another, without a moment in which anything is open or cut.

The programs of the earlier layout go on judging by the earlier tables until the new ones are filled
whole; only then hooks and filters are replaced, each in place. What the programs themselves remember
(flows, translations of sockets, addresses behind names, what is in use) is handed over as it is, if its
own structure is the same. An agent that dies in between finds the earlier programs still in force and
begins again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from bpf import attach, loader, source
from bpf import sys as bpf
from infra.config import Config

#: What nobody could fill again.
MEMORY = ("conntrack", "translated", "counted", "usages", "affinity", "learned")


def earlier(config: Config) -> list[Path]:
    """Folders of pins of other layouts, the newest first."""
    if not config.bpffs.exists():
        return []
    own = loader.pins(config).name
    others = [
        each
        for each in config.bpffs.iterdir()
        if each.name != own and (each / "programs" / "connect4").exists()
    ]
    return sorted(others, key=lambda each: each.stat().st_mtime, reverse=True)


def needed(config: Config) -> bool:
    """Whether another layout's programs are in force."""
    return bool(earlier(config)) and not loader.status(config).get("loaded")


def signature(text: str, name: str) -> str:
    """A map's declaration and all that its structures are made of; "" if there is no such map."""
    declaration = re.search(rf"^CY_\w+\([^\n]*\b{name}\b[^\n]*\)$", text, re.M)
    if declaration is None:
        return ""
    structures = dict(re.findall(r"^struct (\w+) \{(.*?)^\};", text, re.M | re.S))
    constants = dict(re.findall(r"^#define (\w+) (\w+)$", text, re.M))
    found: list[str] = []

    def add(part: str) -> None:
        found.append(re.sub(r"/\*.*?\*/|\s+", "", part, flags=re.S))
        for word in re.findall(r"\w+", part):
            known = structures.pop(word, None) or constants.pop(word, None)
            if known is not None:
                add(f"{word} {known}")

    add(declaration.group(0))
    return "\n".join(found)


def _notes(config: Config) -> Path:
    return config.agent_dir / "layouts.json"


def note(config: Config) -> None:
    """Write down what this layout's maps look like, for its successor."""
    file = _notes(config)
    known = _read(file)
    known[loader.pins(config).name] = {name: signature(source.flatten(), name) for name in MEMORY}
    present = {each.name for each in config.bpffs.iterdir()}
    fresh = file.with_suffix(".new")
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh.write_text(json.dumps({name: maps for name, maps in known.items() if name in present}))
    fresh.replace(file)


def _read(file: Path) -> dict[str, dict[str, str]]:
    try:
        known = json.loads(file.read_text())
        return known if isinstance(known, dict) else {}
    except (OSError, ValueError):
        return {}


def hand_over(config: Config) -> list[str]:
    """Pin the earlier layout's memory in this one's folder, before the loader makes new; the maps' names."""
    text, known = source.flatten(), _read(_notes(config))
    before = next(iter(earlier(config)), None)
    if before is None:
        return []
    maps = loader.pins(config) / "maps"
    maps.mkdir(parents=True, exist_ok=True)
    handed = []
    for name in MEMORY:
        same = signature(text, name)
        if not same or known.get(before.name, {}).get(name) != same or (maps / name).exists():
            continue
        try:
            descriptor = bpf.object_get(before / "maps" / name)
        except OSError:
            continue
        try:
            bpf.object_pin(descriptor, maps / name)
        finally:
            os.close(descriptor)
        handed.append(name)
    return handed


def finish(config: Config) -> None:
    """Put the programs of this layout in force everywhere and forget the others. The tables must be filled."""
    loader.take_over(config)
    attach.renew(config)
    for folder in earlier(config):
        shutil.rmtree(folder)
