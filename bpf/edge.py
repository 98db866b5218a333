"""XDP at the node's edge: loading, attaching, and its tables.

``python -m bpf.edge load`` compiles and pins in a short-lived process, as the loader does; everything
else opens pins. The link is pinned beside the maps: what it enforces needs no process, and it goes
when its pin is taken away, with the rest of the installation at the latest.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bpf import btf, fields, layout, links, loader, opening, source
from bpf import sys as bpf
from bpf.reasons import REASONS
from infra import config as installation

HEADER, PROGRAM = "lib/edge.h", "node_edge"
TCP, UDP = 6, 17
SECOND = 10**9

_PACE = struct.Struct("=QQ")
_PORT = struct.Struct("=HH")
_PREFIX = struct.Struct("=I16s")
_OFFENDER = struct.Struct("=16sI")
_TALLY = struct.Struct("=QQQ")
#: map → (key, value)
MAPS: dict[str, tuple[struct.Struct, struct.Struct]] = {
    "edge_paces": (layout.U32, _PACE),
    "edge_ports": (_PORT, layout.U32),
    "edge_denied": (_PREFIX, layout.U32),
    "edge_sources": (struct.Struct("=16sI"), layout.U64),
    "edge_offenders": (_OFFENDER, _TALLY),
    "edge_counters": (layout.U32, layout.U64),
}
#: C structure → its fields in the order of the mirrors above.
_NAMES = {
    "edge_pace": "interval tolerance",
    "edge_port": "port protocol",
    "edge_prefix": "prefixlen address",
    "edge_source": "address protocol",
    "edge_offender": "address reason",
    "edge_tally": "packets bytes last",
}
_PER_CPU = frozenset({"edge_counters"})
#: Names of the counters in their order; the first two count what was meant to be refused.
COUNTERS = ("denied", "limited", "edge sources full", "edge offenders full")


class EdgeError(RuntimeError):
    """The edge can't be guarded; the message says why and what to do."""


def folder(config: installation.Config) -> Path:
    """Pins of this layout."""
    return config.bpffs / f"edge-{source.layout_hash('edge')}"


def _link(config: installation.Config) -> Path:
    return config.bpffs / "edge-link"


def load(config: installation.Config) -> None:
    """Load, check and pin. What is attached gets the new program in place of the old one."""
    loader.mount_bpffs()
    pins = folder(config)
    (pins / "maps").mkdir(parents=True, exist_ok=True)
    (pins / "programs").mkdir(exist_ok=True)
    os.chmod(config.bpffs, 0o700)
    opened = opening.open_object(config, "edge", pins / "maps")
    types = btf.of_program(opened.programs[PROGRAM])
    mirrors = {kind: mirror for kind, mirror in _mirrors().items() if kind.startswith("struct ")}
    if wrong := fields.differences(types, mirrors, _NAMES):
        raise EdgeError(f"structures differ between bpf/{HEADER} and bpf/edge.py: {'; '.join(wrong)}")
    pin = pins / "programs" / PROGRAM
    pin.unlink(missing_ok=True)  # bpffs pins onto free names only
    bpf.object_pin(opened.programs[PROGRAM], pin)


def _mirrors() -> dict[str, struct.Struct]:
    declared = source.maps("edge")
    pairs = [(declared[name], MAPS[name]) for name in MAPS]
    return {kind: mirror for d, both in pairs for kind, mirror in zip((d.key, d.value), both, strict=True)}


def attach(config: installation.Config, interface: str) -> str:
    """Guard the interface with what is loaded; "native" or "generic", "" if it was guarded before.

    Raises ``EdgeError`` where there is no such interface or another XDP program is on it, which is
    left alone.
    """
    wanted = _index(config, interface)
    program = bpf.object_get(folder(config) / "programs" / PROGRAM)
    link = links.pinned(_link(config))
    try:
        if link is not None and links.interface(link)[0] == wanted:
            if links.interface(link)[1] != bpf.info(program)["id"]:
                links.update(link, program)
            return ""
        detach(config)  # from the interface that was named before, or one that went away
        fresh, mode = links.attach_xdp(program, wanted)
        bpf.object_pin(fresh, _link(config))
        os.close(fresh)
        return mode
    except links.Occupied as error:
        raise EdgeError(
            f"the edge isn't guarded: {error} {interface}; take it off or name another edge_interface"
        ) from error
    except OSError as error:
        raise EdgeError(f"the edge isn't guarded: {interface} takes no XDP program ({error})") from error
    finally:
        os.close(program)
        if link is not None:
            os.close(link)


def _index(config: installation.Config, interface: str) -> int:
    if interface in ("", "lo") or "/" in interface or interface.startswith(f"{config.name}v"):
        raise EdgeError(f"edge_interface can't be {interface}: name the interface that faces the network")
    try:
        return int(Path("/sys/class/net", interface, "ifindex").read_text())
    except OSError as error:
        raise EdgeError(f"there is no interface {interface}, which edge_interface names") from error


def detach(config: installation.Config) -> bool:
    """Guard nothing any more; whether anything was guarded."""
    pin = _link(config)
    there = pin.exists()
    pin.unlink(missing_ok=True)
    return there


def remove(config: installation.Config) -> None:
    """Detach, and forget tables and programs of every version."""
    detach(config)
    for pins in config.bpffs.glob("edge-*"):
        shutil.rmtree(pins)


def attached(config: installation.Config) -> int:
    """Index of the interface that is guarded, 0 if none is."""
    link = links.pinned(_link(config))
    if link is None:
        return 0
    try:
        return links.interface(link)[0]
    finally:
        os.close(link)


@dataclass(frozen=True)
class Offender:
    """A source that was refused. IPv6 sources are single addresses here."""

    address: str
    reason: str
    packets: int
    bytes: int
    last: int


class Tables:
    """The edge's maps, opened from their pins. Raises ``OSError`` if nothing is loaded."""

    def __init__(self, config: installation.Config) -> None:
        pins = folder(config) / "maps"
        self._maps = {
            name: bpf.Map(pins / name, key.size, value.size, bpf.possible_cpus() if name in _PER_CPU else 1)
            for name, (key, value) in MAPS.items()
        }

    def close(self) -> None:
        for opened in self._maps.values():
            opened.close()

    def set_ports(self, ports: Iterable[tuple[int, int]]) -> None:
        """The public ports, as (port, protocol): exactly these."""
        self._exactly("edge_ports", {_PORT.pack(*pair): layout.U32.pack(1) for pair in ports})

    def set_pace(self, protocol: int, per_second: float, burst: int = 0) -> None:
        """What one source may do: new connections (TCP) or packets (UDP) per second; 0: no limit.

        ``burst`` is how many may come at once, twice the pace if it isn't given.
        """
        interval = int(SECOND / per_second) if per_second else 0
        tolerance = interval * max(0, (burst or int(2 * per_second)) - 1)
        which = layout.U32.pack(int(protocol == UDP))
        self._maps["edge_paces"].set(which, _PACE.pack(interval, tolerance))

    def set_denied(self, networks: Iterable[str]) -> None:
        """Who may not come: exactly these. Raises ``OSError`` if they don't all fit."""
        wanted = {_PREFIX.pack(*layout.pack_network(text)): layout.U32.pack(1) for text in networks}
        self._exactly("edge_denied", wanted)

    def denied(self) -> list[str]:
        """The networks in force, sorted as text."""
        found = []
        for key in self._maps["edge_denied"].keys():
            prefix, raw = _PREFIX.unpack(key)
            address = layout.unpack_address(raw) or "::"
            length = prefix if ":" in address else prefix - 96
            found.append(str(ipaddress.ip_network((address, length))))
        return sorted(found)

    def _exactly(self, name: str, wanted: dict[bytes, bytes]) -> None:
        """Additions first: at no moment is anything off that stays."""
        table = self._maps[name]
        present = dict(table.items())
        for key, value in wanted.items():
            if present.get(key) != value:
                table.set(key, value)
        for key in present.keys() - wanted.keys():
            table.delete(key)

    def forget_sources(self) -> None:
        """Every source begins anew, and nobody has been refused."""
        for name in ("edge_sources", "edge_offenders"):
            self._exactly(name, {})

    def counters(self) -> dict[str, int]:
        """Packets since loading, by ``COUNTERS``."""
        found = {}
        for number, name in enumerate(COUNTERS):
            raw = self._maps["edge_counters"].get(layout.U32.pack(number)) or b""
            found[name] = sum(value for (value,) in layout.U64.iter_unpack(raw))
        return found

    def offenders(self, most: int = 10) -> list[Offender]:
        """Those that were refused most, of the about thousand that were refused last."""
        found = []
        for key, value in self._maps["edge_offenders"].items():
            raw, reason = _OFFENDER.unpack(key)
            found.append(
                Offender(layout.unpack_address(raw) or "::", REASONS[reason].code, *_TALLY.unpack(value))
            )
        return sorted(found, key=lambda o: -o.packets)[:most]


def main() -> int:
    try:
        load(installation.load())
    except (EdgeError, loader.LoadError, OSError) as error:
        print(json.dumps({"loaded": False, "error": str(error)[-2000:]}))
        return 1
    print(json.dumps({"loaded": True}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
