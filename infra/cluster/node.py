"""``python -m infra.cluster.node NUMBER``: makes a node and holds it; the node lives as long as this does.

A node has a network namespace (made before), and a mount, control group and host name namespace made
here. It sees a root of its own, in memory but for what it keeps: the machine's /usr, a /run, /var and
/etc of its own, /sys of its own network, a bpffs of its own, and its own control groups as if they were
the only ones. Started again, it first ends what is left of its earlier life, as a reboot does.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from infra.cluster import groups
from infra.cluster.enter import NEWCGROUP, NEWNET, NEWNS, NEWUTS, born, enter_namespace
from infra.cluster.settings import Cluster, load

_REPOSITORY = Path(__file__).resolve().parents[2]
_libc = ctypes.CDLL(None, use_errno=True)
#: Of the machine's /etc: what programs need to find libraries, users, protocols and authorities.
_ETC = (
    "alternatives",
    "ca-certificates.conf",
    "group",
    "gai.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "passwd",
    "protocols",
    "rpc",
    "services",
    "ssl",
)
#: Settings of the whole machine that kubelet would change. It is shown what it wants to see.
_SHOWN = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def _run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True)


def _bind(source: str | Path, target: Path, *, recursive: bool = False, read_only: bool = False) -> None:
    source = Path(source)
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _run("mount", "--rbind" if recursive else "--bind", source, target)
    if read_only:
        _run("mount", "-o", "remount,bind,ro", target)


def _unshare(flags: int) -> None:
    if _libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare")


def _system(root: Path) -> None:
    """Programs and kernel interfaces."""
    _bind("/usr", root / "usr", recursive=True)
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            (root / name).symlink_to(path.readlink())
        elif path.exists():
            _bind(path, root / name)
    _bind("/dev", root / "dev", recursive=True)
    for name in ("proc", "sys", "run", "tmp", "root", "mnt", "home"):
        (root / name).mkdir()
    (root / "tmp").chmod(0o1777)
    _run("mount", "-t", "proc", "proc", root / "proc")
    shown = root / "run" / "shown"
    for name, value in _SHOWN.items():
        file = shown / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
        if (root / "proc/sys" / name).exists():
            _bind(file, root / "proc/sys" / name)
    # Its interfaces are those of this network namespace.
    _run("mount", "-t", "sysfs", "sysfs", root / "sys")
    _run("mount", "-t", "bpf", "bpf", root / "sys/fs/bpf")
    if (root / "sys/kernel/tracing").exists():
        _run("mount", "-t", "tracefs", "tracefs", root / "sys/kernel/tracing")


def _groups(root: Path, found: list[tuple[Path, str, str]]) -> None:
    """The same hierarchies in the same places; their roots are this node's groups."""
    if len(found) > 1:
        _run("mount", "-t", "tmpfs", "-o", "mode=755,size=1m", "tmpfs", root / "sys/fs/cgroup")
    for mount, kind, options in found:
        target = root / mount.relative_to("/")
        target.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", kind, *(["-o", options] if options else []), kind, target)


def _own(cluster: Cluster, node: int, root: Path) -> None:
    """What is the node's alone, and what of the machine its parts read."""
    home = cluster.node_home(node)
    for name in _ETC:
        if Path("/etc", name).exists():
            _bind(Path("/etc", name), root / "etc" / name, read_only=True)
    for file in (home / "etc").rglob("*"):
        target = root / "etc" / file.relative_to(home / "etc")
        if file.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            shutil.copy2(file, target)
    for name in ("lib", "log", "cache", "tmp"):
        (home / "var" / name).mkdir(parents=True, exist_ok=True)
    if not (home / "var/run").is_symlink():
        (home / "var/run").symlink_to("/run")
    _bind(home / "var", root / "var")
    plugins = root / "opt/cni/bin"
    plugins.mkdir(parents=True)
    for plugin in Path("/usr/lib/cni").iterdir():
        # Links: others may put plugins of their own beside them.
        (plugins / plugin.name).symlink_to(plugin)
    _bind(cluster.cache, root / cluster.cache.relative_to("/"), read_only=True)
    # The node agent is started from here as long as there is no image of it.
    _bind(_REPOSITORY, root / _REPOSITORY.relative_to("/"), read_only=True)


def make(cluster: Cluster, node: int) -> None:
    """Become the node. On return this process is in it and nothing else is."""
    place = f"node{node}"
    pidfile = cluster.run / f"{place}.pid"
    pidfile.unlink(missing_ok=True)
    groups.kill(cluster, place)
    groups.remove(cluster, place)
    groups.ensure(cluster)
    found = groups.hierarchies()
    enter_namespace(cluster.netns(place), NEWNET)
    groups.join(cluster, place, top=True)
    _unshare(NEWNS | NEWCGROUP | NEWUTS)
    groups.join(cluster, place)
    socket.sethostname(place)
    _run("mount", "--make-rprivate", "/")
    root = cluster.node_home(node) / "root"
    root.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", "mode=755,size=256m", "tmpfs", root)
    _system(root)
    _groups(root, found)
    _own(cluster, node, root)
    ready = os.open(cluster.run, os.O_RDONLY | os.O_DIRECTORY)
    os.chdir(root)
    _run("pivot_root", ".", "mnt")
    os.chdir("/")
    _run("mount", "--make-rshared", "/")
    # Only this node's view of it.
    _run("mount", "--make-rprivate", "/mnt")
    _run("umount", "--lazy", "/mnt")
    fresh = os.open(f"{place}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=ready)
    os.write(fresh, f"{os.getpid()} {born(os.getpid())}\n".encode())
    os.close(fresh)
    os.rename(f"{place}.new", f"{place}.pid", src_dir_fd=ready, dst_dir_fd=ready)
    os.close(ready)


def main() -> None:
    cluster, node = load(), int(sys.argv[1])
    make(cluster, node)
    # Nothing of an interpreter is needed to hold a node.
    os.execv("/usr/bin/sleep", ["sleep", "infinity"])  # noqa: S606


if __name__ == "__main__":
    main()
