"""Checks, pins and attaches the kernel programs, then ends.

``python -m bpf.loader load|unload|status`` prints one JSON object. Loading again upgrades in place:
maps are kept (same layout) or made anew beside the old ones (another layout), hooks are replaced
without a gap, and tc filters keep the old program until the agent replaces them.

The order makes it safe to be refused or killed anywhere: first every program is in the kernel and
pinned aside, then the hooks change, one by one and each in place, then the folder of pins changes in
one step. What is pinned aside and hangs on a hook is found by the next load and replaced in turn.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bpf import btf, fields, opening, source
from bpf import sys as bpf
from bpf.errors import LoadError
from bpf.machine import cgroup_root, find_headers, mount_bpffs, one_at_a_time, unmount_ours
from bpf.programs import HOOKS, PROGRAMS
from infra import config as installation

__all__ = [
    "HOOKS",
    "PROGRAMS",
    "LoadError",
    "cgroup_root",
    "find_headers",
    "load",
    "mount_bpffs",
    "pins",
    "status",
    "take_over",
    "unload",
]

_EXCHANGE = 2  # RENAME_EXCHANGE of linux/fs.h
_libc = ctypes.CDLL(None, use_errno=True)


def pins(config: installation.Config) -> Path:
    """The folder of this layout's pins."""
    return config.bpffs / source.layout_hash()


def load(config: installation.Config, hold: bool = False) -> dict:
    """Load everything, then attach everything. Returns what ``status`` returns, and what it cost.

    ``hold``: attach nothing. Another layout's programs go on until this one's maps are filled and
    ``take_over`` is called; not for a layout whose own programs are attached.
    """
    begun, used = time.monotonic(), time.process_time()
    mount_bpffs()
    with one_at_a_time(config.bpffs):
        folder = pins(config)
        (folder / "maps").mkdir(parents=True, exist_ok=True)
        os.chmod(config.bpffs, 0o700)
        opened = opening.open_object(config, "cells", folder / "maps")
        _check_structures(opened)
        aside = _pin_aside(folder, opened)
        if not hold:
            _attach_all(config, opened.programs)
        _switch(aside, folder / "programs")
        _clear(folder, ["programs"])
    cost = {"seconds": time.monotonic() - begun, "cpu_seconds": time.process_time() - used}
    rounded = {name: round(value, 2) for name, value in cost.items()}
    return {**status(config), **rounded, "peak_mib": _peak_mib()}


def _peak_mib() -> int:
    """The most memory that this process had resident; getrusage would tell its parent's."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM:"))
    return int(line.split()[1]) // 1024


def take_over(config: installation.Config) -> None:
    """Attach the hooks that ``load`` with ``hold`` pinned, in place of those of another layout."""
    with one_at_a_time(config.bpffs):
        programs = {name: bpf.object_get(pins(config) / "programs" / name) for name in HOOKS}
        try:
            _attach_all(config, programs)
        finally:
            for descriptor in programs.values():
                os.close(descriptor)


def _check_structures(opened: opening.Opened) -> None:
    """Compare the compiled structures with their mirrors in ``bpf.layout``, field by field."""
    wrong = fields.differences(btf.of_program(opened.programs["from_workload"]))
    if wrong:
        raise LoadError(f"structures differ between bpf/lib/types.h and bpf/layout.py: {'; '.join(wrong)}")


def _pin_aside(folder: Path, opened: opening.Opened) -> Path:
    """Pin the programs in a folder of their own, which isn't in use yet."""
    number = 0
    while (aside := folder / f"programs_{number}").exists():
        number += 1
    aside.mkdir()
    for name, descriptor in opened.programs.items():
        bpf.object_pin(descriptor, aside / name)
    (aside / "loader").symlink_to(opened.loader)
    return aside


def _switch(aside: Path, current: Path) -> None:
    """Make the folder the one in use, in one step; the earlier one is aside afterwards."""
    if not current.exists():
        aside.rename(current)
    elif _libc.renameat2(-100, bytes(aside), -100, bytes(current), _EXCHANGE):
        number = ctypes.get_errno()
        raise LoadError(
            f"bpffs can't exchange two folders ({os.strerror(number)}): Linux 5.17 or newer is needed"
        )


def _clear(folder: Path, keep: list[str]) -> None:
    """Forget programs that were pinned aside; their hooks have been replaced."""
    for aside in folder.glob("programs*"):
        if aside.name not in keep:
            shutil.rmtree(aside)


@contextmanager
def _root() -> Iterator[int]:
    descriptor = os.open(cgroup_root(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _ours(config: installation.Config, name: str) -> Iterator[int]:
    """Descriptors of every version of a program that this installation pinned, in any layout or aside."""
    return _pinned(config.bpffs, f"*/programs*/{name}")


def _pinned(folder: Path, pattern: str) -> Iterator[int]:
    """Descriptors of pinned programs; each is closed when the next one is asked for."""
    for pin in folder.glob(pattern):
        try:
            descriptor = bpf.object_get(pin)
        except OSError:
            continue
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _attach_all(config: installation.Config, programs: dict[str, int]) -> None:
    """Put every hook in place of its earlier version. If one can't be, the earlier ones come back."""
    done: list[tuple[str, int, int | None]] = []
    with _root() as root:
        try:
            for name, kind in HOOKS.items():
                if bpf.info(programs[name])["id"] not in bpf.attached(root, kind):
                    done.append((name, kind, _attach(config, root, programs[name], name, kind)))
        except OSError as error:
            for back, kind, earlier in reversed(done):
                if earlier is None:
                    bpf.detach_cgroup(root, programs[back], kind)
                else:
                    bpf.attach_cgroup(root, earlier, kind, replace=programs[back])
            failed = name
            raise LoadError(
                f"the program {failed} can't be attached to the root of the cgroups: {error.strerror}. What was "
                "attached before stays in force; look for another program there that doesn't share it"
            ) from error
        finally:
            for _, _, earlier in done:
                if earlier is not None:
                    os.close(earlier)


def _attach(config: installation.Config, root: int, program: int, name: str, kind: int) -> int | None:
    """Attach a hook; the version that it took the place of, None if there was none."""
    ids = bpf.attached(root, kind)
    for earlier in _ours(config, name):
        if bpf.info(earlier)["id"] in ids and bpf.info(earlier)["id"] != bpf.info(program)["id"]:
            bpf.attach_cgroup(root, program, kind, replace=earlier)
            return os.dup(earlier)
    bpf.attach_cgroup(root, program, kind)
    return None


def unload(config: installation.Config) -> dict:
    """Detach everything of this installation and remove its pins; works on leftovers of a crash."""
    if not config.bpffs.exists():
        return {"loaded": False}
    with one_at_a_time(config.bpffs):
        with _root() as root:
            for name, kind in HOOKS.items():
                for program in _ours(config, name):
                    if bpf.info(program)["id"] in bpf.attached(root, kind):
                        bpf.detach_cgroup(root, program, kind)
        from bpf import attach

        attach.detach_all(config)
        shutil.rmtree(config.bpffs)
    unmount_ours()
    return {"loaded": False}


def status(config: installation.Config) -> dict:
    """What is pinned and attached, and which loader did it."""
    current = pins(config) / "programs"
    if not current.exists():
        return {"loaded": False}
    hooks = {}
    with _root() as root:
        for name, kind in HOOKS.items():
            # One that is aside counts too: a load may be in the middle, or have been killed there.
            ids = {bpf.info(program)["id"] for program in _pinned(current.parent, f"programs*/{name}")}
            hooks[name] = not ids.isdisjoint(bpf.attached(root, kind))
    by = (current / "loader").readlink().name if (current / "loader").is_symlink() else "bcc"
    return {"loaded": all(hooks.values()), "layout": current.parent.name, "hooks": hooks, "loader": by}


def main() -> int:
    parser = argparse.ArgumentParser(description="Load or unload the kernel programs of an installation.")
    parser.add_argument("command", choices=["load", "unload", "status"])
    parser.add_argument("--hold", action="store_true", help="load and attach nothing yet")
    arguments = parser.parse_args()
    config = installation.load()
    try:
        if arguments.command == "load":
            answer = load(config, arguments.hold)
        else:
            answer = {"unload": unload, "status": status}[arguments.command](config)
    except (LoadError, OSError) as error:
        # What is in force goes on; whoever reads this decides by `error` and looks at `in_force`.
        print(json.dumps({"loaded": False, "error": str(error)}))
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
