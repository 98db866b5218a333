"""The supervisor's settings: every part, its user, its order, how it is restarted."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from dataplane.agent import podman
from infra import services, users
from infra.config import Config


@dataclass
class Part:
    """A supervised process. ``user`` None starts as root; such parts give rights up themselves or need them."""

    name: str
    command: str
    user: str | None
    priority: int
    environment: dict[str, str] = field(default_factory=dict)
    stop_signal: str = "TERM"
    stop_seconds: int = 20


def parts(config: Config, venv: Path, app: Path) -> list[Part]:
    """All parts in the order in which they start."""
    python = f"{venv}/bin/python"
    envoy = f"{venv}/bin/envoy"
    root, run = podman.folders(config)
    gw, dns = users.name(config, "-gw"), users.name(config, "-dns")
    limits = "prlimit --nofile=65536:65536 --" if _may_open(65536) else ""
    common = "--concurrency 2 --disable-hot-restart --log-level warning"
    return [
        Part(
            "postgres",
            f"/usr/lib/postgresql/15/bin/postgres -D {config.home}/postgres/data",
            users.name(config, "-db"),
            10,
            stop_signal="INT",
        ),
        Part(
            "redis", f"/usr/bin/redis-server {config.home}/redis/redis.conf", users.name(config, "-redis"), 10
        ),
        Part(
            "podman",
            f"/usr/bin/podman --root {root} --runroot {run} --runtime runc --cgroup-manager cgroupfs "
            f"--log-level error system service --time 0 unix://{podman.socket_path(config)}",
            None,
            15,
            podman.environment(config),
        ),
        Part(
            "registry",
            f"/usr/bin/docker-registry serve {config.home}/registry.yml",
            users.name(config, "-reg"),
            20,
        ),
        Part("web", f"{python} -m controlplane.serve", users.name(config), 30),
        Part(
            "worker",
            f"{python} -m celery -A controlplane.celery worker --pool threads --concurrency 6 "
            "--loglevel WARNING --without-gossip --without-mingle --without-heartbeat",
            users.name(config),
            30,
        ),
        Part(
            "beat",
            f"{python} -m celery -A controlplane.celery beat --loglevel WARNING "
            f"--schedule {config.run}/web/beat --pidfile=",
            users.name(config),
            30,
        ),
        Part(
            "control-gateway",
            f"{limits} {envoy} -c {config.home}/control-gateway/envoy.json {common} --base-id {config.net * 2 + 1}",
            gw,
            35,
        ),
        Part("agent", f"{python} -m dataplane.agent", None, 40),
        Part(
            "resolver", f"{python} -m infra.enter resolver {dns} -- {python} -m dataplane.resolver", None, 45
        ),
        Part(
            "gateway",
            f"{limits} {python} -m infra.enter gateway {gw} -- {envoy} -c {config.gateway_dir}/bootstrap.json "
            f"{common} --base-id {config.net * 2 + 2} --drain-time-s 3",
            None,
            45,
        ),
        Part("index", f"{python} -m infra.index_proxy", None, 45),
        Part("builder", f"{python} -m dataplane.builder", None, 50),
        Part("loopback", f"{python} -m infra.loopback", users.name(config), 50),
    ]


def _may_open(number: int) -> bool:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= number


def environment(config: Config, app: Path) -> dict[str, str]:
    """What every part gets; nothing else is inherited but certificates of registries."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key.endswith(("_CA_BUNDLE", "_CERT_FILE", "_CERT_DIR"))
    }
    return {
        **kept,
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": f"{app}:{app}/platform",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CYTOPLANE_HOME": str(config.home),
        "DJANGO_SETTINGS_MODULE": "controlplane.settings",
        "CYTOPLANE_CACHE": str(config.cache),
        "MALLOC_ARENA_MAX": "2",
    }


def _quoted(values: dict[str, str]) -> str:
    return ",".join('{}="{}"'.format(key, value.replace("%", "%%")) for key, value in sorted(values.items()))


def write(config: Config, venv: Path, app: Path, names: Collection[str] | None = None) -> Path:
    """supervisord's settings file, with all parts or those that are named."""
    lines = [
        "[unix_http_server]",
        f"file={config.run}/supervisor.sock",
        "chmod=0700",
        "[supervisord]",
        f"logfile={config.logs}/supervisor.log",
        "logfile_maxbytes=5MB",
        "logfile_backups=1",
        f"pidfile={config.run}/supervisor.pid",
        "umask=027",
        f"directory={config.home}",
        f"environment={_quoted(environment(config, app))}",
        "minfds=4096",
        "minprocs=200",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        "[supervisorctl]",
        f"serverurl=unix://{config.run}/supervisor.sock",
    ]
    for part in parts(config, venv, app):
        if names is not None and part.name not in names:
            continue
        lines += [
            f"[program:{part.name}]",
            f"command={part.command.strip().replace('%', '%%')}",
            *([f"user={part.user}"] if part.user else []),
            f"priority={part.priority}",
            "autostart=false",
            "autorestart=true",
            "startsecs=1",
            # Whatever dies is tried again for as long as the platform is meant to run.
            "startretries=1000000",
            f"stopsignal={part.stop_signal}",
            f"stopwaitsecs={part.stop_seconds}",
            "stopasgroup=true" if part.name not in ("postgres", "podman") else "stopasgroup=false",
            "killasgroup=true" if part.name not in ("postgres", "podman") else "killasgroup=false",
            # Sockets for a group; mount points that containers' mapped users must be able to traverse.
            *(["umask=007"] if part.name in ("registry", "redis", "postgres") else []),
            *(["umask=022"] if part.name in ("podman", "builder") else []),
            "redirect_stderr=true",
            f"stdout_logfile={config.logs}/{part.name}.log",
            "stdout_logfile_maxbytes=10MB",
            "stdout_logfile_backups=1",
            *([f"environment={_quoted(part.environment)}"] if part.environment else []),
        ]
    path = config.home / "supervisor.conf"
    services.write(path, "\n".join(lines) + "\n", config, None, 0o600)
    return path
