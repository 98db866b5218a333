"""Gets an object's programs into the kernel by whichever loader the node has. Nothing is attached here.

Maps are opened from their pins if they are there, made and pinned if not; programs pass the verifier
and are only descriptors of this process afterwards. So a refusal, or a process that is killed here,
changes nothing that is in force.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bpf import machine, prebuild, source
from bpf import sys as bpf
from bpf.errors import LoadError
from infra.config import Config

#: ``enum bpf_map_type`` of linux/bpf.h.
MAP_TYPES = {
    "hash": 1, "array": 2, "percpu_hash": 5, "percpu_array": 6, "lru_hash": 9, "lru_percpu_hash": 10,
    "lpm_trie": 11, "array_of_maps": 12, "hash_of_maps": 13, "sk_storage": 24,
}  # fmt: skip


@dataclass
class Opened:
    """Loaded programs: name → descriptor, valid as long as this object is there."""

    loader: str
    programs: dict[str, int]
    #: What owns the descriptors.
    owner: object = None


def chosen(config: Config) -> str:
    """``bcc`` or ``prebuilt``: as configured, or what the node can do."""
    wanted = config.loader
    if wanted not in ("auto", "bcc", "prebuilt"):
        raise LoadError(f"the setting `loader` is {wanted}: it can be auto, bcc or prebuilt")
    if wanted == "auto":
        return "bcc" if machine.can_compile() else "prebuilt"
    return wanted


def open_object(config: Config, name: str, pins: Path) -> Opened:
    """Load an object's programs with its maps in ``pins``. Raises ``LoadError``."""
    loader = chosen(config)
    _check_pins(name, pins)
    if loader == "bcc":
        from bpf import by_bcc  # its compiler stays resident

        machine.find_headers()
        return by_bcc.open_text(source.for_bcc(pins, name), name)
    from bpf import by_libbpf

    return by_libbpf.open_file(prebuild.build(name, prebuild.folder(config)), name, pins)


def _check_pins(name: str, pins: Path) -> None:
    """Maps that are there already must be what this version would make, whoever made them."""
    for declared in source.maps(name).values():
        try:
            descriptor = bpf.object_get(pins / declared.name)
        except FileNotFoundError:
            continue
        try:
            has = bpf.info(descriptor)
        finally:
            os.close(descriptor)
        wanted = {"type": MAP_TYPES[declared.kind], "max_entries": declared.entries, "flags": declared.flags}
        odd = [
            f"{what} {has[what]} instead of {value}" for what, value in wanted.items() if has[what] != value
        ]
        if odd:
            raise LoadError(
                f"the pinned map {declared.name} has {', '.join(odd)}: another program made {pins}. Stop the "
                "agent, move its workloads away, run `python -m bpf.loader unload` and start it again"
            )


@contextmanager
def captured() -> Iterator[list[str]]:
    """What the C libraries write to standard error meanwhile, as the list's one entry afterwards."""
    texts: list[str] = []
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield texts
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
