"""PostgreSQL and Redis as an operator has them: on an address, with a password, over TLS alone."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import redis

from infra.kubernetes.certificates import Authority
from tests import services


class Servers:
    """Both on one address and ports of their own; ``stop`` ends them, the folder is the caller's."""

    def __init__(self, folder: Path, address: str, postgres_port: int, redis_port: int) -> None:
        self.folder, self.address = folder, address
        self.postgres_port, self.redis_port = postgres_port, redis_port
        self.password = secrets.token_urlsafe(18) + "@/:?"
        authority = Authority("servers of a test")
        self.authority = authority.pem
        certificate, key = authority.issue("servers", address=address)
        self._processes: list[subprocess.Popen] = []
        folder.chmod(0o755)
        (folder / "ca.crt").write_bytes(self.authority)
        for part in ("postgres", "redis"):
            home = services._own(folder / part)
            for name, content, mode in (("tls.pem", certificate, 0o644), ("tls.key", key, 0o600)):
                file = home / name
                file.write_bytes(content)
                file.chmod(mode)
                _give(file, home)

    def start(self) -> None:
        """Start both; raises ``RuntimeError`` with the log of the one that doesn't."""
        self._postgres()
        self._redis()

    def _postgres(self) -> None:
        home = self.folder / "postgres"
        binaries, data = services._binaries(), services._own(home / "data")
        words = services._own(home / "words")
        (words / "password").write_text(self.password)
        _give(words / "password", home)
        options = [
            "--username=cytoplane",
            "--auth=scram-sha-256",
            f"--pwfile={words / 'password'}",
            "--no-sync",
        ]
        command = [str(binaries / "initdb"), "-D", str(data), *options, "--encoding=UTF8", "--locale=C.UTF-8"]
        subprocess.run(services._unprivileged(command), cwd="/", check=True, capture_output=True, timeout=60)
        (data / "pg_hba.conf").write_text("hostssl all all all scram-sha-256\n")
        settings = {
            **services._FAST,
            "listen_addresses": self.address,
            "port": str(self.postgres_port),
            "unix_socket_directories": "",
            "ssl": "on",
            "ssl_cert_file": str(home / "tls.pem"),
            "ssl_key_file": str(home / "tls.key"),
        }
        more = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        self._spawn("postgres", [str(binaries / "postgres"), "-D", str(data), *more], self._postgres_ready)
        with self.connect("postgres") as connection:
            connection.execute("CREATE DATABASE cytoplane")

    def connect(self, database: str = "cytoplane") -> psycopg.Connection:
        return psycopg.connect(
            host=self.address,
            port=self.postgres_port,
            user="cytoplane",
            password=self.password,
            dbname=database,
            sslmode="verify-full",
            sslrootcert=str(self.folder / "ca.crt"),
            autocommit=True,
        )

    def _postgres_ready(self) -> bool:
        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def _redis(self) -> None:
        home = self.folder / "redis"
        settings = home / "redis.conf"
        settings.write_text(
            f"bind {self.address}\nport 0\ntls-port {self.redis_port}\ntls-auth-clients no\n"
            f"tls-cert-file {home / 'tls.pem'}\ntls-key-file {home / 'tls.key'}\n"
            f'tls-ca-cert-file {self.folder / "ca.crt"}\nrequirepass {self.password}\nsave ""\ndir {home}\n'
        )
        _give(settings, home)
        self._spawn("redis", ["redis-server", str(settings)], lambda: bool(_quiet(self.redis().ping)))

    def redis(self) -> redis.Redis:
        return redis.Redis(
            self.address,
            self.redis_port,
            password=self.password,
            ssl=True,
            ssl_ca_certs=str(self.folder / "ca.crt"),
        )

    def _spawn(self, name: str, command: list[str], ready: Callable[[], bool]) -> None:
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(services._unprivileged(command), cwd="/", stdout=output, stderr=output)
        self._processes.append(process)
        end = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < end:
            if ready():
                return
            time.sleep(0.1)
        raise RuntimeError(f"{name} didn't start:\n{log.read_text()[-2000:]}")

    def stop(self) -> None:
        """End both in order: a PostgreSQL that is killed leaves its shared memory behind."""
        for process in self._processes:
            process.send_signal(signal.SIGINT)
        for process in self._processes:
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=30)


def _give(file: Path, home: Path) -> None:
    """A file to whoever the folder belongs to."""
    status = home.stat()
    os.chown(file, status.st_uid, status.st_gid)


def _quiet(call: Callable[[], object]) -> object:
    try:
        return call()
    except (redis.RedisError, OSError):
        return None
