"""Starts a command of a build with no rights on the machine: a program of its own, run as root.

The command gets a user namespace with a range of user ids that nobody else has, and mount, process,
IPC, host name and (given) network namespaces. It is root only over what belongs to its range. Folders
that belong to root are shown to it through mounts that translate owners, read-only. Its limits are a
control group that the caller made. Of the node's /sys it sees nothing that tells of others. When it ends, so does everything that it started.

``enclosure.py '<JSON>' -- command…`` with the keys ``first`` (lowest user id), ``network`` (path of a
namespace or null), ``cgroups`` (folders to join), ``binds`` (list of [source, name below /mnt,
translated]).
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import struct
import sys
from pathlib import Path

_UIDS = 1 << 16
_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
_NEWUSER, _NEWPID, _NEWNET = 0x10000000, 0x20000000, 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 1, 2, 4, 0x4000, 1 << 18
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_TREE_CLONE, _TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_EMPTY_SOURCE = 4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_IDMAP = 1, 2, 4, 0x00100000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_libc = ctypes.CDLL(None, use_errno=True)
#: What the node's /sys tells of everybody on it, but for control groups, which each step's container needs.
_HIDDEN = ("/sys/class/net", "/sys/devices/virtual/net", "/sys/fs/bpf")


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _mount(kind: bytes, target: str, flags: int, data: bytes | None = None) -> None:
    _check(_libc.mount(kind, target.encode(), kind, ctypes.c_ulong(flags), data), f"mount {target}")


def _bind(source: str, target: str, translated: int | None) -> None:
    """Show ``source`` at ``target``; with a user namespace, owners translated by it and read-only."""
    Path(target).mkdir()
    tree = _check(
        _libc.syscall(_OPEN_TREE, _AT_FDCWD, source.encode(), _TREE_CLONE | _TREE_CLOEXEC),
        f"open_tree {source}",
    )
    wanted = _ATTR_NOSUID | _ATTR_NODEV
    if translated is not None:
        wanted |= _ATTR_IDMAP | _ATTR_RDONLY
    attributes = struct.pack("QQQQ", wanted, 0, 0, translated or 0)
    _check(
        _libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, len(attributes)),
        f"mount_setattr {source}",
    )
    _check(
        _libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, target.encode(), _MOVE_EMPTY_SOURCE),
        f"move_mount {target}",
    )
    os.close(tree)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _inside(command: list[str], ready: int, go: int) -> int:
    """The child: takes its namespaces, becomes their root and waits for the command."""
    _check(_libc.unshare(_NEWUSER), "unshare user namespace")
    os.write(ready, b".")
    if os.read(go, 1) != b".":
        return 125
    _check(_libc.unshare(_NEWNS | _NEWPID | _NEWIPC | _NEWUTS | _NEWCGROUP), "unshare")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    _die_with_parent()  # a change of user takes it back
    process = os.fork()
    if process == 0:
        _die_with_parent()
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _mount(b"proc", "/proc", _MS_NOSUID | _MS_NODEV)
        os.execvpe(command[0], command, os.environ)  # noqa: S606
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main() -> int:
    settings, command = json.loads(sys.argv[1]), sys.argv[3:]
    _die_with_parent()
    for folder in settings["cgroups"]:
        Path(folder, "cgroup.procs").write_text(str(os.getpid()))
    if settings["network"]:
        namespace = os.open(settings["network"], os.O_RDONLY | os.O_CLOEXEC)
        _check(_libc.setns(namespace, _NEWNET), "enter the network namespace")
    _check(_libc.unshare(_NEWNS), "unshare mounts")
    _check(_libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None), "private mounts")
    ready, ready_writer = os.pipe()
    go_reader, go = os.pipe()
    child = os.fork()
    if child == 0:
        code = 125
        try:
            os.close(go)
            code = _inside(command, ready_writer, go_reader)
        except OSError as error:
            print(f"the build's enclosure: {error}", file=sys.stderr)
        finally:
            os._exit(code if code >= 0 else 128 - code)
    os.close(ready_writer)
    os.close(go_reader)
    if os.read(ready, 1) == b".":
        for kind in ("uid", "gid"):
            Path(f"/proc/{child}/{kind}_map").write_text(f"0 {settings['first']} {_UIDS}")
        owners = os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        for folder in _HIDDEN:
            if Path(folder).is_dir():
                _mount(b"tmpfs", folder, _MS_RDONLY | _MS_NOSUID | _MS_NODEV, b"mode=755,size=4k")
        _mount(b"tmpfs", "/mnt", _MS_NOSUID | _MS_NODEV, b"mode=755,size=1m")
        for source, name, translated in settings["binds"]:
            _bind(source, f"/mnt/{name}", owners if translated else None)
        os.write(go, b".")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
