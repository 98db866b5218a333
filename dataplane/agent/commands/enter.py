"""``python -m dataplane.agent.commands.enter``: becomes a command in a container that runs. As root, by the agent.

podman and runc can't: they enter the user namespace first, and may then not enter the network namespace, which
is the node's. Everything else is as they do it. Until the command's first instruction nothing in the container
may look at this process: it isn't dumpable, and of the node it has no file open.

Inherits a socket, and the folder in /proc of the container's process; their numbers are its arguments. It reads one document from it (``Order``) and answers with lines:
``{"pid"}``, with the terminal's end if there is one, and ``{"error"}`` if the command can't be run.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import stat
import struct
import sys
import termios
from pathlib import Path
from typing import Any, NoReturn

from dataplane.agent import seccomp
from dataplane.agent.commands import joining
from dataplane.agent.commands.filter import Filter

_SET_DUMPABLE, _SET_NO_NEW_PRIVS, _SET_PDEATHSIG, _CAPBSET_DROP, _CAP_AMBIENT = 4, 38, 1, 24, 47
_AMBIENT_CLEAR = 4
_CAPABILITIES_3 = 0x20080522
#: Unlock a terminal's end, and its number; Python has no names for them.
_TIOCSPTLCK, _TIOCGPTN = 0x40045431, 0x80045430
#: In this order: the user's last, since it takes the right to enter those that are the node's.
_NAMESPACES = ("net", "ipc", "uts", "cgroup", "pid", "mnt")
_libc = ctypes.CDLL(None, use_errno=True)


class Impossible(Exception):
    """Why the command can't be run, as a sentence."""


def _call(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _prctl(option: int, first: int = 0, second: int = 0) -> None:
    zero = ctypes.c_ulong(0)
    _call(_libc.prctl(option, ctypes.c_ulong(first), ctypes.c_ulong(second), zero, zero), f"prctl {option}")


def _enter(process: int) -> int:
    """Enter all namespaces of a process but its user's, whose descriptor is the result.

    ``process``: its folder in /proc, which is closed: it leads to everything on the node.
    """
    opened = {
        name: os.open(f"ns/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
        for name in (*_NAMESPACES, "user")
    }
    os.close(process)
    for name in _NAMESPACES:
        _call(_libc.setns(opened[name], 0), f"setns {name}")
        os.close(opened[name])
    return opened["user"]


def _yield_memory(process: int) -> None:
    """When the node runs out of memory, be ended no later than the container: its agent is ended last."""
    own = Path("/proc/self/oom_score_adj")
    with open(os.open("oom_score_adj", os.O_RDONLY, dir_fd=process)) as file:
        wanted = int(file.read())
    if wanted > int(own.read_text()):
        own.write_text(str(wanted))


def _give_up_rights(process: dict[str, Any], user_namespace: int) -> None:
    """Become the container's user, without a capability or a way to one."""
    # Nobody may enter the one that he is in: pods have the node's.
    if os.fstat(user_namespace).st_ino != Path("/proc/self/ns/user").stat().st_ino:
        _call(_libc.setns(user_namespace, 0), "setns user")
    os.close(user_namespace)
    # Numbers of capabilities that this kernel doesn't have are refused.
    for number in range(64):
        if _libc.prctl(_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0) and ctypes.get_errno() != errno.EINVAL:
            raise OSError(ctypes.get_errno(), "capabilities can't be dropped")
    user = process["user"]
    os.setgroups(user.get("additionalGids") or [])
    os.setresgid(user["gid"], user["gid"], user["gid"])
    os.setresuid(user["uid"], user["uid"], user["uid"])
    _prctl(_CAP_AMBIENT, _AMBIENT_CLEAR)
    header, data = struct.pack("Ii", _CAPABILITIES_3, 0), bytes(24)
    _call(_libc.capset(header, data), "capset")


def _terminal(control: socket.socket, size: tuple[int, int]) -> None:
    """A terminal of the container's own as the process's input and output; its other end for the agent."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    # What else the container may have put there isn't given to anybody.
    if not stat.S_ISCHR(os.fstat(master).st_mode) or os.fstat(master).st_rdev != os.makedev(5, 2):
        raise Impossible("The container has no terminals.")
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    number = struct.unpack("I", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))[0]
    slave = os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for number in (0, 1, 2):
        os.dup2(slave, number)
    socket.send_fds(control, [b'{"terminal": true}\n'], [master])
    os.close(master)


def _become(order: dict[str, Any], user_namespace: int, control: socket.socket, filter_: Filter) -> NoReturn:
    """In the container's namespace of processes: everything up to the command's first instruction."""
    process, parent = order["process"], os.getppid()
    os.setsid()
    for limit in process.get("rlimits") or ():
        resource.setrlimit(getattr(resource, limit["type"]), (limit["soft"], limit["hard"]))
    if profile := process.get("apparmorProfile"):
        Path("/proc/self/attr/exec").write_text(f"exec {profile}")
    if label := process.get("selinuxLabel"):
        # Not the agent's own, which may everything.
        Path("/proc/self/attr/exec").write_text(label)
    _give_up_rights(process, user_namespace)
    # Changing the user has taken this back; whoever waits for the command ends it with himself.
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(_SET_DUMPABLE, 0)
    if os.getppid() != parent:
        os._exit(1)
    if order["tty"]:
        _terminal(control, tuple(order["size"]))
    _prctl(_SET_NO_NEW_PRIVS, 1)
    os.umask(0o022)
    environment = dict(pair.partition("=")[::2] for pair in process["env"])
    if order["tty"]:
        environment["TERM"] = "xterm"
    folder = process.get("cwd") or "/"
    try:
        os.chdir(folder)
    except OSError:
        raise Impossible(f"The container's folder {folder} isn't there, or is closed to its user.") from None
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    words = order["words"]
    filter_.load()
    os.execvpe(words[0], words, environment)  # noqa: S606


def _sentence(error: BaseException) -> str:
    if isinstance(error, Impossible):
        return str(error)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "There is no such program in the container."
    if isinstance(error, PermissionError):
        return "The container's user may not run this program."
    if isinstance(error, OSError) and error.errno == errno.ENOEXEC:
        return "It isn't a program: its first line names no interpreter."
    return f"It can't be started: {error}."


def main(arguments: list[str]) -> int:
    control = socket.socket(fileno=int(arguments[0]))
    control.set_inheritable(False)
    container = int(arguments[1])
    os.set_inheritable(container, False)
    order = json.loads(control.makefile("rb").readline())
    agent = order["agent"]
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(_SET_DUMPABLE, 0)
    if os.getppid() != agent:
        return 1
    os.environ.clear()
    # From here on a module could only come from the container, and would run with the node's rights.
    sys.path.clear()
    sys.meta_path.clear()
    try:
        # Without one of its own, which no container of a cell is, it gets what containers of a machine have.
        filter_ = Filter(order["seccomp"] or seccomp.profile())
        _yield_memory(container)
        joining.join(container, os.getpid())
        user_namespace = _enter(container)
        child = os.fork()
    except (OSError, ValueError, joining.NotPlaced) as error:
        control.sendall(json.dumps({"error": f"It can't be started: {error}."}).encode() + b"\n")
        return 1
    if child == 0:
        try:
            _become(order, user_namespace, control, filter_)
        except BaseException as error:
            control.sendall(json.dumps({"error": _sentence(error)}).encode() + b"\n")
        finally:
            os._exit(1)
    control.sendall(json.dumps({"pid": child}).encode() + b"\n")
    # Only the command holds its streams now: their end is its end.
    for number in (0, 1, 2, control.fileno(), user_namespace):
        os.close(number)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
