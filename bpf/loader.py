"""Compiles, checks, pins and attaches the kernel programs, then ends.

``python -m bpf.loader load|unload|status`` prints one JSON object. Loading again upgrades in place:
maps are kept (same layout) or made anew beside the old ones (another layout), hooks are replaced
without a gap, and tc filters keep the old program until the agent replaces them.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from bpf import layout, source
from bpf import sys as bpf
from infra import config as installation

#: program → (bcc's program type name, attach type of linux/bpf.h or None for tc)
PROGRAMS: dict[str, tuple[str, int | None]] = {
    "from_workload": ("SCHED_CLS", None),
    "to_workload": ("SCHED_CLS", None),
    "connect4": ("CGROUP_SOCK_ADDR", 10),
    "connect6": ("CGROUP_SOCK_ADDR", 11),
    "sendmsg4": ("CGROUP_SOCK_ADDR", 14),
    "sendmsg6": ("CGROUP_SOCK_ADDR", 15),
    "recvmsg4": ("CGROUP_SOCK_ADDR", 19),
    "recvmsg6": ("CGROUP_SOCK_ADDR", 20),
    "getpeername4": ("CGROUP_SOCK_ADDR", 29),
    "getpeername6": ("CGROUP_SOCK_ADDR", 30),
    "sockops": ("SOCK_OPS", 3),
}


_OUR_MOUNTS = Path("/run/cytoplane.mounts")


class LoadError(RuntimeError):
    """Loading failed; the message says what and what to do about it."""


def _mounts() -> list[tuple[str, str]]:
    return [tuple(line.split()[1:3]) for line in Path("/proc/mounts").read_text().splitlines()]  # type: ignore[misc]


def mount_bpffs() -> None:
    """Mount the file systems that a fresh machine lacks."""
    kinds = {kind for _, kind in _mounts()}
    for kind, where in (("bpf", "/sys/fs/bpf"), ("tracefs", "/sys/kernel/tracing")):
        if kind not in kinds and Path(where).exists():
            subprocess.run(["mount", "-t", kind, kind, where], check=True)
            # As long-lived as the mount: neither survives a restart of the machine.
            with _OUR_MOUNTS.open("a") as notes:
                notes.write(f"{where}\n")


def unmount_ours() -> None:
    """Take back the mounts that we made, once no installation needs them."""
    if not _OUR_MOUNTS.exists() or any(Path("/sys/fs/bpf").glob("cytoplane-*")):
        return
    for where in reversed(_OUR_MOUNTS.read_text().split()):
        subprocess.run(["umount", where], check=False, capture_output=True)
    _OUR_MOUNTS.unlink()


def cgroup_root() -> Path:
    """Where the version 2 hierarchy is mounted; hybrid systems have it below /sys/fs/cgroup."""
    for where, kind in _mounts():
        if kind == "cgroup2":
            return Path(where)
    raise LoadError("no cgroup2 hierarchy is mounted: mount one, e.g. at /sys/fs/cgroup/unified")


def find_headers() -> None:
    """Let bcc find kernel headers: those of the running kernel, else Debian's newest.

    Safe because the programs use nothing but UAPI structures.
    """
    wanted = Path("/lib/modules") / platform.release()
    if (wanted / "build").exists():
        return
    candidates = sorted(Path("/usr/src").glob("linux-headers-*-amd64"))
    if not candidates:
        raise LoadError("no kernel headers: install linux-headers-amd64")
    wanted.mkdir(parents=True, exist_ok=True)
    common = Path(str(candidates[-1]).replace("-amd64", "-common"))
    for name, target in (("build", candidates[-1]), ("source", common)):
        link = wanted / name
        if link.is_symlink():
            link.unlink()
        link.symlink_to(target)


def pins(config: installation.Config) -> Path:
    """The folder of this layout's pins."""
    return config.bpffs / source.layout_hash()


def _check_layouts(module) -> None:
    """Compare the compiled structures with their mirrors in ``bpf.layout``."""
    for name, (key, value) in layout.MAPS.items():
        table = module[name]
        copies = bpf.possible_cpus() if name in layout.PER_CPU else 1
        for what, mirror, size in (
            ("key", key, ctypes.sizeof(table.Key)),
            ("value", value, ctypes.sizeof(table.Leaf) // copies),
        ):
            if size != mirror.size:
                raise LoadError(f"map {name}: the {what} has {size} bytes in C and {mirror.size} in Python")


def _readable(verifier_log: str) -> str:
    """The verifier's complaint without its trace of instructions."""
    lines = [
        line for line in verifier_log.splitlines() if line.strip() and not re.match(r"^\s*\d+:|^R\d|^;", line)
    ]
    return " / ".join(lines[-3:])


def load(config: installation.Config) -> dict:
    """Compile, pin and attach. Returns what ``status`` returns."""
    import bcc  # the compiler stays resident, hence here and not in the agent

    mount_bpffs()
    find_headers()
    folder = pins(config)
    (folder / "programs").mkdir(parents=True, exist_ok=True)
    (folder / "maps").mkdir(exist_ok=True)
    os.chmod(config.bpffs, 0o700)
    try:
        module = bcc.BPF(text=source.for_bcc(folder / "maps"), cflags=["-Wno-unused-function"])
    except Exception as error:  # bcc raises bare Exception
        raise LoadError(f"the kernel programs don't compile: {error}") from error
    _check_layouts(module)
    root = os.open(cgroup_root(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name, (kind, attach_type) in PROGRAMS.items():
            try:
                if attach_type is None:
                    function = module.load_func(name, getattr(bcc.BPF, kind))
                else:
                    function = module.load_func(name, getattr(bcc.BPF, kind), attach_type=attach_type)
            except Exception as error:
                raise LoadError(f"the kernel refuses the program {name}: {_readable(str(error))}") from error
            pin = folder / "programs" / name
            fresh = pin.with_name(name + "_new")  # bpffs refuses dots
            fresh.unlink(missing_ok=True)
            bpf.object_pin(function.fd, fresh)
            if attach_type is not None:
                _attach(config, root, function.fd, name, attach_type)
            pin.unlink(missing_ok=True)  # bpffs renames onto free names only
            fresh.rename(pin)
    finally:
        os.close(root)
    return status(config)


def _attached_by_us(config: installation.Config, name: str) -> list[int]:
    """Descriptors of earlier versions of a program that this installation pinned."""
    found = []
    for pin in config.bpffs.glob(f"*/programs/{name}*"):
        try:
            found.append(bpf.object_get(pin))
        except OSError:
            continue
    return found


def _attach(config: installation.Config, root: int, program: int, name: str, kind: int) -> None:
    """Attach a hook, in place of the version that is attached if there is one."""
    ids = bpf.attached(root, kind)
    for earlier in _attached_by_us(config, name):
        try:
            if bpf.info(earlier)["id"] in ids:
                bpf.attach_cgroup(root, program, kind, replace=earlier)
                return
        finally:
            os.close(earlier)
    bpf.attach_cgroup(root, program, kind)


def unload(config: installation.Config) -> dict:
    """Detach everything of this installation and remove its pins; works on leftovers of a crash."""
    if not config.bpffs.exists():
        return {"loaded": False}
    root = os.open(cgroup_root(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name, (_, kind) in PROGRAMS.items():
            if kind is None:
                continue
            for program in _attached_by_us(config, name):
                try:
                    if bpf.info(program)["id"] in bpf.attached(root, kind):
                        bpf.detach_cgroup(root, program, kind)
                finally:
                    os.close(program)
    finally:
        os.close(root)
    from bpf import attach

    attach.detach_all(config)
    shutil.rmtree(config.bpffs)
    unmount_ours()
    return {"loaded": False}


def status(config: installation.Config) -> dict:
    """What is pinned and attached."""
    folder = pins(config)
    if not folder.exists():
        return {"loaded": False}
    root = os.open(cgroup_root(), os.O_RDONLY | os.O_DIRECTORY)
    hooks = {}
    try:
        for name, (_, kind) in PROGRAMS.items():
            if kind is None:
                continue
            try:
                program = bpf.object_get(folder / "programs" / name)
            except OSError:
                hooks[name] = False
                continue
            hooks[name] = bpf.info(program)["id"] in bpf.attached(root, kind)
            os.close(program)
    finally:
        os.close(root)
    return {"loaded": all(hooks.values()), "layout": folder.name, "hooks": hooks}


def main() -> int:
    parser = argparse.ArgumentParser(description="Load or unload the kernel programs of an installation.")
    parser.add_argument("command", choices=["load", "unload", "status"])
    arguments = parser.parse_args()
    config = installation.load()
    try:
        answer = {"load": load, "unload": unload, "status": status}[arguments.command](config)
    except (LoadError, OSError) as error:
        print(json.dumps({"loaded": False, "error": str(error)}))
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
