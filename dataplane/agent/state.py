"""The last desired state on disk: with it a node runs on without its control plane.

One file for each unit, named after its digest, and an index that is replaced as a whole. A change
writes the units that it brings and the index; what the index names is never written again.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataplane.agent.parts import Document, encode
from dataplane.client import write_private
from dataplane.desired import PLATFORM

#: Units from which on the disk is told once to write everything, instead of for each file.
_MANY = 16


class Damaged(RuntimeError):
    """The files exist and can't be believed."""


@dataclass
class State:
    """A generation of desired state. ``units``: number → JSON, as bytes: most are never looked at again."""

    plane: int = 0
    generation: int = 0
    mark: str = ""
    units: dict[str, bytes] = field(default_factory=dict)
    #: Digests of units, as far as they were asked for.
    _digests: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def view(self) -> Document:
        """All of it, put together part by part when it is looked at."""
        return Document(self.plane, self.generation, self.units)

    def after(self, answer: dict[str, Any]) -> State:
        """The state that an answer of the control plane leads to. Raises ``LookupError`` or ``TypeError``."""
        units = dict(self.units) if answer["base"] else {}
        digests = dict(self._digests) if answer["base"] else {}
        for number in answer["removed"]:
            units.pop(number, None)
            digests.pop(number, None)
        for number, unit in answer["units"].items():
            key = str(int(number))
            units[key] = encode(unit)
            digests.pop(key, None)
        return State(answer["plane"], answer["generation"], answer["mark"], units, digests)

    def digests(self) -> dict[str, str]:
        """Unit → its digest."""
        for number in self.units.keys() - self._digests.keys():
            self._digests[number] = _digest(self.units[number])
        return self._digests


def save(file: Path, state: State) -> None:
    """Keep a state; it holds secrets, so only root reads it. ``file`` is the index."""
    folder = _folder(file)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    wanted = state.digests()
    present = set(os.listdir(folder))
    names = {_name(number, digest): number for number, digest in wanted.items()}
    missing = [name for name in names if name not in present]
    for name in missing:
        _write(folder / name, state.units[names[name]], sync=len(missing) < _MANY)
    if len(missing) >= _MANY:
        os.sync()
    index = {"plane": state.plane, "generation": state.generation, "mark": state.mark, "units": wanted}
    text = json.dumps(index, sort_keys=True)
    write_private(file, json.dumps({"sha256": _digest(text.encode()), "index": text}).encode())
    for name in present - set(names):
        (folder / name).unlink(missing_ok=True)


def load(file: Path) -> State | None:
    """The kept state, None if there is none. Raises ``Damaged``."""
    if not file.exists():
        return None
    try:
        document = json.loads(file.read_text())
        if "snapshot" in document:
            return _earlier(document)
        text = document["index"]
        if _digest(text.encode()) != document["sha256"]:
            raise Damaged(f"{file} doesn't match its checksum")
        index = json.loads(text)
        units = {}
        for number, digest in index["units"].items():
            units[number] = (_folder(file) / _name(number, digest)).read_bytes()
            if _digest(units[number]) != digest:
                raise Damaged(f"unit {number} of {file} doesn't match its checksum")
        return State(index["plane"], index["generation"], index["mark"], units, index["units"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise Damaged(f"{file} can't be read: {error}") from error


def _earlier(document: dict[str, Any]) -> State:
    """What an agent kept that knew no units: it runs on with it, and asks for everything."""
    text = document["snapshot"]
    if _digest(text.encode()) != document["sha256"]:
        raise Damaged("the state doesn't match its checksum")
    whole = json.loads(text)
    return State(whole["plane"], units={PLATFORM: json.dumps(whole).encode()})


def _folder(file: Path) -> Path:
    return file.with_name("units")


def _name(number: str, digest: str) -> str:
    return f"{int(number)}-{digest[:32]}.json"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes, sync: bool) -> None:
    if sync:
        write_private(path, data)
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(data)
