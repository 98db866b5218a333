"""Settings files of the embedded services: PostgreSQL, Redis, image registry, control gateway."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from infra import control_gateway as control_gateway_settings
from infra import users
from infra.config import Config

_PG = Path("/usr/lib/postgresql/15/bin")


def owned(path: Path, config: Config, part: str | None, mode: int, group: str | None = None) -> None:
    """A folder with an owner (None: root), a group and a mode."""
    path.mkdir(parents=True, exist_ok=True)
    uid, gid = (0, 0) if part is None else users.ids(config, part)
    if group is not None:
        gid = users.ids(config, group)[1]
    if part is not None and path.stat().st_uid not in (uid, 0):
        # An earlier version gave it to another part: what is in it goes along.
        for inner in path.rglob("*"):
            os.chown(inner, uid, gid, follow_symlinks=False)
    os.chown(path, uid, gid)
    path.chmod(mode)


def folders(config: Config) -> None:
    """The state directory: every part sees what is its own."""
    owned(config.home, config, None, 0o755)
    owned(config.run, config, None, 0o755)
    owned(config.logs, config, None, 0o700)
    owned(config.secrets, config, "", 0o700)
    owned(config.git_dir, config, "", 0o700)
    owned(config.archives_dir, config, "", 0o700)
    owned(config.home / "static", config, "", 0o755)
    owned(config.home / "registry", config, "-reg", 0o700)
    owned(config.home / "postgres", config, "-db", 0o700)
    owned(config.home / "redis", config, "-redis", 0o700)
    owned(config.home / "index", config, "-index", 0o700)
    owned(config.agent_dir, config, None, 0o700)
    owned(config.builder_dir, config, None, 0o711)
    owned(config.gateway_dir, config, "-gw", 0o700)
    owned(config.resolver_dir, config, None, 0o750, "-dns")
    owned(config.home / "control-gateway", config, "-gw", 0o700)
    owned(config.server_tls, config, "", 0o2750, "-gw")
    # Sockets: the folder says who may open them, and gives them its group.
    owned(config.run / "postgres", config, "-db", 0o2750, "")
    owned(config.run / "redis", config, "-redis", 0o2750, "")
    owned(config.run / "registry", config, "-reg", 0o2750, "-gw")
    owned(config.run / "web", config, "", 0o2750, "-gw")
    owned(config.run / "agent", config, None, 0o700)
    owned(config.run / "builder", config, None, 0o700)


def write(path: Path, text: str, config: Config, part: str | None = None, mode: int = 0o640) -> None:
    """A settings file for a part."""
    path.write_text(text)
    uid, gid = (0, 0) if part is None else users.ids(config, part)
    os.chown(path, uid, gid)
    path.chmod(mode)


def as_user(config: Config, part: str, command: list[str], **more: Any) -> subprocess.CompletedProcess:
    """Run a command as a part's user, without any way back to rights."""
    user = users.name(config, part)
    prefix = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--no-new-privs"]
    prefix += ["--inh-caps=-all", "--"]
    return subprocess.run([*prefix, *command], check=True, capture_output=True, text=True, **more)


def postgres(config: Config) -> None:
    """A private cluster, on a unix socket only; system users map to database roles."""
    data = config.home / "postgres" / "data"
    if not (data / "PG_VERSION").exists():
        as_user(
            config,
            "-db",
            [str(_PG / "initdb"), "-D", str(data), "--auth=peer", "--username=postgres", "--encoding=UTF8",
             "--locale=C.UTF-8", "--no-instructions"],
            cwd="/",
        )  # fmt: skip
    web, db = users.name(config), users.name(config, "-db")
    write(
        data / "pg_ident.conf",
        f"cytoplane {db} postgres\ncytoplane root postgres\ncytoplane {web} cytoplane\n",
        config,
        "-db",
        0o600,
    )
    write(data / "pg_hba.conf", "local all all peer map=cytoplane\n", config, "-db", 0o600)
    settings = f"""
listen_addresses = ''
unix_socket_directories = '{config.postgres_socket_dir}'
unix_socket_permissions = 0770
max_connections = 60
shared_buffers = 64MB
effective_cache_size = 512MB
maintenance_work_mem = 32MB
wal_compression = on
max_wal_size = 512MB
checkpoint_timeout = 15min
autovacuum_max_workers = 2
max_parallel_workers = 2
max_worker_processes = 4
log_min_duration_statement = 1000
"""
    write(data / "postgresql.auto.conf", settings, config, "-db", 0o600)


def redis(config: Config) -> None:
    """Broker and streams, on a unix socket only; nothing in it may not be lost."""
    settings = f"""
port 0
unixsocket {config.redis_socket}
unixsocketperm 770
dir {config.home / "redis"}
save ""
appendonly no
maxmemory 128mb
maxmemory-policy noeviction
daemonize no
"""
    write(config.home / "redis" / "redis.conf", settings, config, "-redis")


def registry(config: Config) -> None:
    """The image registry, reached only through the control gateway."""
    settings = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(config.home / "registry")},
            "delete": {"enabled": True},
        },
        "http": {
            "net": "unix",
            "addr": str(config.registry_socket),
            # Where an upload goes on is told without a host: builders and nodes elsewhere dial another one.
            "relativeurls": True,
        },
    }
    write(config.home / "registry.yml", json.dumps(settings), config, "-reg", 0o640)


def control_gateway(config: Config) -> None:
    """Envoy in front of the agents' application: verifies client certificates and forwards them."""
    document = control_gateway_settings.document(
        config, control_gateway_settings.pipe("registry", config.registry_socket)
    )
    write(config.home / "control-gateway" / "envoy.json", json.dumps(document, indent=1), config, "-gw")
