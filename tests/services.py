"""A private PostgreSQL and Redis for tests: on unix sockets in a temporary folder, gone with the run.

Loaded as a plugin (``-p tests.services`` in pyproject.toml), because Django's settings read the state
directory when they are imported, which pytest-django does before any conftest. Importing this makes
the folder and names it; the services start when the first test wants them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
import redis

from infra import config as installation
from infra.config import Config

#: What an installation is told by its environment. A developer's own must not reach the tests.
_OURS = (
    *("HOME", "NET", "PORTAL_PORT", "APPS_PORT", "AGENTS_PORT", "APPS_DOMAIN", "PORTAL_HOST", "PORTAL_TLS"),
    *("DATABASE", "DATABASE_USER", "DATABASE_HOST", "DATABASE_PORT", "REDIS", "SECRET_KEY", "STATIC"),
    *("DATABASE_PASSWORD", "DATABASE_TLS", "DATABASE_CA", "REDIS_HOST", "PORTAL_ORIGIN", "PORTAL_BIND"),
    "SHARED_DIR",
)
#: Whom PostgreSQL (which refuses to run as root) and Redis run as when the tests are root's.
_USER = "postgres"
_SECONDS = 30.0
_FAST = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "60",
    "autovacuum": "off",
    # A test that forgot a lock names itself instead of hanging.
    "lock_timeout": "20s",
    "idle_in_transaction_session_timeout": "60s",
}


def _prepare() -> Path:
    for name in _OURS:
        os.environ.pop(f"CYTOPLANE_{name}", None)
    home = Path(tempfile.mkdtemp(prefix="cytoplane-tests-"))
    home.chmod(0o755)
    os.environ["CYTOPLANE_HOME"] = str(home)
    return home


HOME = _prepare()
CONFIG: Config = installation.load()


def _binaries() -> Path:
    """PostgreSQL's own folder: Debian puts ``initdb`` and ``postgres`` on nobody's path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    elsewhere = shutil.which("initdb")
    if elsewhere is None:
        raise RuntimeError("PostgreSQL's initdb isn't installed (Debian: postgresql-15)")
    return Path(elsewhere).resolve().parent


def _unprivileged(command: list[str]) -> list[str]:
    """The command without rights, ended by the kernel when the tests die in whatever way."""
    prefix = ["setpriv", "--pdeathsig", "INT"]
    if os.geteuid() == 0:
        user = pwd.getpwnam(_USER)
        prefix += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--inh-caps=-all"]
    return [*prefix, "--", *command]


def _own(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    if os.geteuid() == 0:
        user = pwd.getpwnam(_USER)
        os.chown(path, user.pw_uid, user.pw_gid)
    return path


class Services:
    """PostgreSQL and Redis of this run, where the settings of ``CONFIG`` expect them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._processes: list[subprocess.Popen] = []

    def start(self) -> None:
        """Start both; does nothing the second time."""
        if self._processes:
            return
        self._postgres()
        self._redis()

    def _spawn(self, name: str, command: list[str]) -> subprocess.Popen:
        with (HOME / f"{name}.log").open("wb") as output:
            process = subprocess.Popen(_unprivileged(command), cwd="/", stdout=output, stderr=output)
        self._processes.append(process)
        return process

    def _wait(self, name: str, process: subprocess.Popen, ready) -> None:  # type: ignore[no-untyped-def]
        end = time.monotonic() + _SECONDS
        while process.poll() is None and time.monotonic() < end:
            if ready():
                return
            time.sleep(0.02)
        raise RuntimeError(f"{name} didn't start:\n{(HOME / f'{name}.log').read_text()[-2000:]}")

    def _postgres(self) -> None:
        binaries, data = _binaries(), _own(HOME / "postgres")
        sockets = _own(self.config.postgres_socket_dir)
        role = self._role()
        options = [f"--username={role}", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        command = [str(binaries / "initdb"), "-D", str(data), *options, "--no-instructions"]
        subprocess.run(_unprivileged(command), cwd="/", check=True, capture_output=True, timeout=_SECONDS)
        settings = {**_FAST, "unix_socket_directories": str(sockets)}
        more = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        process = self._spawn("postgresql", [str(binaries / "postgres"), "-D", str(data), *more])

        def ready() -> bool:
            try:
                with psycopg.connect(host=str(sockets), user=role, dbname="postgres", autocommit=True):
                    return True
            except psycopg.OperationalError:
                return False

        self._wait("postgresql", process, ready)

    @staticmethod
    def _role() -> str:
        from django.conf import settings

        return settings.DATABASES["default"]["USER"]

    def _redis(self) -> None:
        socket = self.config.redis_socket
        _own(socket.parent)
        command = [
            "redis-server",
            "--port",
            "0",
            "--unixsocket",
            str(socket),
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        process = self._spawn("redis", command)

        def ready() -> bool:
            try:
                return bool(self.redis().ping())
            except (redis.RedisError, OSError):
                return False

        self._wait("redis", process, ready)

    def redis(self) -> redis.Redis:
        """A client of this run's Redis."""
        return redis.Redis(unix_socket_path=str(self.config.redis_socket))

    @property
    def running(self) -> bool:
        return bool(self._processes)

    def stop(self) -> None:
        """End both; what they hold is thrown away with the folder."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait(timeout=_SECONDS)
        self._processes.clear()


SERVICES = Services(CONFIG)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    SERVICES.stop()
    shutil.rmtree(HOME, ignore_errors=True)
