"""``python -m infra.control up|down|status|purge|demo|join``: what the operator runs."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from infra import config as installation
from infra import health, install, launcher, node, supervisor, users
from infra.config import Config

_PYTHON_PARTS = ("web", "worker", "beat", "agent", "resolver", "index", "builder", "loopback")
START_SECONDS = 90


class Progress:
    """Steps with the seconds since the beginning."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"-----> {text} ({time.monotonic() - self._begun:.1f} s)", flush=True)


def _supervised(config: Config) -> int | None:
    """The supervisor's process id, if it runs."""
    try:
        pid = int((config.run / "supervisor.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if str(config.home / "supervisor.conf").encode() in command else None


def up(config: Config, say: Progress) -> None:
    """Start everything that doesn't run, and renew what runs an older version."""
    venv = install.venv_of()
    say("Preparing the installation")
    if config.role == "node":
        install.check(config)
        install.write_config(config)
        changed = node.prepare(config, venv, install.copy_code)
        _supervise(config, venv)
        _start(config, say, changed)
        return
    app, changed = install.prepare(config, venv, say)
    _supervise(config, venv)
    supervisor.start(config, ["postgres", "redis", "podman", "registry"])
    _wait(lambda: not health._postgres(config), 30, "PostgreSQL")
    say("Bringing the database up to date")
    install.database(config, venv, app)
    _start(config, say, changed)


def _supervise(config: Config, venv: Path) -> None:
    """A supervisor with the settings as they are now."""
    if _supervised(config) is not None:
        supervisor.reload(config)
        return
    command = [f"{venv}/bin/supervisord", "-c", str(config.home / "supervisor.conf")]
    subprocess.run(command, check=True, cwd="/", start_new_session=True)
    _wait(lambda: bool(supervisor.states(config)), 15, "the supervisor")


def _start(config: Config, say: Progress, changed: bool) -> None:
    """Start all parts and wait until each is healthy."""
    say("Starting the platform")
    if changed:
        supervisor.stop(config, _PYTHON_PARTS)
    supervisor.start(config, supervisor.states(config))
    end = time.monotonic() + START_SECONDS
    while True:
        found = {name: problem for name, problem in health.problems(config).items() if problem}
        if not found:
            break
        if time.monotonic() > end:
            for name, problem in found.items():
                print(f" !     {name}: {problem}\n       its log: {config.logs}/{name}.log")
            raise install.InstallError("Not every part is healthy; see above.")
        time.sleep(0.5)
    say("Every part is healthy")


def _wait(ready, seconds: float, what: str) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise install.InstallError(f"{what} didn't start within {seconds:.0f} s.")
        time.sleep(0.1)


def join(config: Config, say: Progress) -> int:
    """Take a token from standard input and bring this machine up as the node of a plane elsewhere."""
    if config.role != "node" or not config.control_url:
        raise install.InstallError("A node needs CYTOPLANE_ROLE=node and CYTOPLANE_CONTROL_URL.")
    try:
        node.keep_token(config, sys.stdin.read(1000).strip())
    except ValueError as error:
        raise install.InstallError(f"{str(error).capitalize()}.") from None
    up(config, say)
    return 0


def status(config: Config) -> int:
    """Every part with its state; 0 only if all are healthy."""
    if not (config.home / "supervisor.conf").exists():
        print(f"Nothing is installed in {config.home}. Start with `make demo` or `make up`.")
        return 1
    found = health.problems(config)
    width = max(map(len, found))
    for name, problem in found.items():
        print(f"{name:<{width}}  {problem or 'healthy'}")
    bad = [name for name, problem in found.items() if problem]
    if bad:
        print(f"\nNot healthy: {', '.join(bad)}. Logs are in {config.logs}.")
    return 1 if bad else 0


def down(config: Config, say: Progress) -> None:
    """Stop workloads and parts; state stays, and so does what the kernel enforces."""
    if _supervised(config) is not None:
        say("Stopping the platform")
        supervisor.stop(config, ["agent", "builder"])
        _stop_containers(config)
        supervisor.stop(config, supervisor.states(config))
    _stop_supervisor(config)
    say("Stopped")


def _stop_supervisor(config: Config) -> None:
    pid = _supervised(config)
    if pid is None:
        return
    supervisor.shutdown(config)
    end = time.monotonic() + 30
    while _supervised(config) is not None and time.monotonic() < end:
        time.sleep(0.1)
    with contextlib.suppress(OSError):
        if _supervised(config) is not None:
            os.kill(pid, signal.SIGKILL)


def _stop_containers(config: Config, remove: bool = False) -> None:
    from dataplane.agent import podman

    root, run = podman.folders(config)
    if not root.exists():
        return
    base = [
        "podman",
        "--root",
        str(root),
        "--runroot",
        str(run),
        "--runtime",
        "runc",
        "--cgroup-manager",
        "cgroupfs",
    ]
    verb = ["rm", "--all", "--force", "--time", "2"] if remove else ["stop", "--all", "--time", "5"]
    subprocess.run(
        [*base, *verb], env=podman.environment(config), capture_output=True, check=False, timeout=120
    )


def _end_containers(config: Config) -> None:
    """End, by id, containers that podman doesn't: it fails where its own records are damaged."""
    from dataplane.agent import podman

    storage = f"{podman.folders(config)[0]}/".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if not words[0].endswith(b"conmon") or not any(word.startswith(storage) for word in words):
                continue
            # The process is the monitor's child, and what that started ends with its pid namespace.
            for task in (folder / "task").iterdir():
                for pid in map(int, (task / "children").read_text().split()):
                    os.kill(pid, signal.SIGKILL)
            os.kill(int(folder.name), signal.SIGKILL)


def purge(config: Config, say: Progress) -> None:
    """Remove everything of the installation; works on leftovers of any crash."""
    from bpf import loader
    from dataplane.agent import network, podman
    from dataplane.builder import limits

    if config.home.exists() or config.bpffs.exists() or network.listing(config):
        say(f"Removing the installation in {config.home}")
    if _supervised(config) is not None:
        supervisor.stop(config, ["agent", "builder"])
    _stop_containers(config, remove=True)
    _end_containers(config)
    _stop_supervisor(config)
    _end_leftovers(config)
    network.remove_all(config)
    network.remove_host(config)
    loader.unload(config)
    _unmount(config.home)
    if (config.home / "config.toml").exists() or (config.home / "supervisor.conf").exists():
        shutil.rmtree(config.home, ignore_errors=True)
        _unmount(config.home)
        shutil.rmtree(config.home, ignore_errors=True)
    shutil.rmtree(podman.state_folder(config), ignore_errors=True)
    limits.remove(config)
    launcher.remove(config)
    users.remove(config)
    say("Nothing of it is left")


def _end_leftovers(config: Config) -> None:
    """End, by id, processes of the installation's own users or with its state directory as theirs."""
    own = set()
    for part in users.PARTS:
        with contextlib.suppress(KeyError):
            own.add(users.ids(config, part)[0])
    marker = f"CYTOPLANE_HOME={config.home}\0".encode()
    for _ in range(20):
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) in (1, os.getpid(), os.getppid()):
                continue
            with contextlib.suppress(OSError):
                ours = folder.stat().st_uid in own
                supervised = (
                    marker in (folder / "environ").read_bytes() + b"\0"
                    and b"supervis" not in (folder / "cmdline").read_bytes()
                )
                if ours or (supervised and _is_part(folder)):
                    found.append(int(folder.name))
        if not found:
            return
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _is_part(folder: Path) -> bool:
    """Root's own parts: agent, builder, podman and what starts in a namespace."""
    command = (folder / "cmdline").read_bytes()
    return any(
        word in command for word in (b"dataplane.", b"infra.enter", b"infra.index_proxy", b"system\0service")
    )


def _unmount(home: Path) -> None:
    """Take away mounts below the state directory, the deepest first."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{home}/")), key=len, reverse=True):
        subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)


def main() -> int:
    parser = argparse.ArgumentParser(description="Operate an installation of Cytoplane.")
    parser.add_argument("command", choices=["up", "down", "status", "purge", "demo", "join"])
    arguments = parser.parse_args()
    # Parts of other users read code and settings; what is secret is written with a mode of its own.
    os.umask(0o022)
    config = installation.load()
    say = Progress()
    try:
        if arguments.command == "status":
            return status(config)
        if arguments.command == "demo":
            from infra import demo

            up(config, say)
            return demo.run(config, say)
        if arguments.command == "join":
            return join(config, say)
        {"up": up, "down": down, "purge": purge}[arguments.command](config, say)
    except (install.InstallError, RuntimeError, subprocess.CalledProcessError, OSError) as error:
        print(f" !     {error}", file=sys.stderr)
        if isinstance(error, subprocess.CalledProcessError) and error.stderr:
            print(error.stderr[-1500:], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
