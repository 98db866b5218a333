"""The plugin's entry in a node's chain of CNI plugins: put in last, kept there, taken out again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dataplane.cni.build import NAME


class ChainError(RuntimeError):
    """The folder has no configuration that could be extended; the message says why."""


def configuration(folder: Path) -> Path:
    """The file that the container runtime takes: the first by name. Raises ``ChainError``."""
    files = sorted(f for f in folder.glob("*") if f.suffix in (".conf", ".conflist", ".json") and f.is_file())
    if not files:
        raise ChainError(f"{folder} holds no CNI configuration: the cluster's network isn't set up yet")
    return files[0]


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ChainError(f"{file} can't be read: {error}") from None
    plugins = document.get("plugins") if isinstance(document, dict) else None
    if not isinstance(plugins, list) or not all(isinstance(plugin, dict) for plugin in plugins):
        raise ChainError(f"{file} isn't a list of plugins (.conflist), which nothing can be chained to")
    return document


def entry(socket: Path) -> dict[str, str]:
    """What stands in the chain."""
    return {"type": NAME, "socket": str(socket)}


def chained(document: dict[str, Any], wanted: dict[str, str]) -> dict[str, Any]:
    """The configuration with the entry as its last plugin, once; everything else as it was."""
    others = [plugin for plugin in document["plugins"] if plugin.get("type") != NAME]
    return {**document, "plugins": [*others, wanted]}


def whole(folder: Path, socket: Path) -> bool:
    """Whether the chain ends with the entry. Raises ``ChainError``."""
    return _read(configuration(folder))["plugins"][-1:] == [entry(socket)]


def install(folder: Path, socket: Path) -> bool:
    """Put the entry where it belongs; whether something had to be changed. Raises ``ChainError``."""
    file = configuration(folder)
    document = _read(file)
    fresh = chained(document, entry(socket))
    if fresh != document:
        _write(file, fresh)
    return fresh != document


def remove(folder: Path) -> bool:
    """Take the entry out of every configuration; whether there was one."""
    found = False
    for file in sorted(folder.glob("*.conflist")):
        try:
            document = _read(file)
        except ChainError:
            continue
        others = [plugin for plugin in document["plugins"] if plugin.get("type") != NAME]
        if others != document["plugins"]:
            _write(file, {**document, "plugins": others})
            found = True
    return found


def _write(file: Path, document: dict[str, Any]) -> None:
    """Replace the file in one step; readers look at names that end in .conflist, so the new one has another."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}.new")
    fresh.write_text(json.dumps(document, indent=2) + "\n")
    fresh.chmod(0o644)
    fresh.rename(file)
