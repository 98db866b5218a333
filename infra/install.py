"""Brings a state directory to this version: users, folders, settings, keys, database, base image."""

from __future__ import annotations

import compileall
import hashlib
import ipaddress
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from dataplane.client import write_private
from infra import base_image, launcher, services, supervise, users
from infra.config import Config

REPOSITORY = Path(__file__).resolve().parents[1]
#: What of the tree is needed at run time.
_CODE = ("bpf", "cells", "dataplane", "infra", "platform", "web", "manage.py", "requirements.lock")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "node_modules", "tests", "*.pyc", "bench", ".*")
Say = Callable[[str], None]


class InstallError(RuntimeError):
    """The machine can't run the platform; the message says why and what to do."""


def check(config: Config) -> None:
    """What can be told before anything is changed."""
    if os.geteuid() != 0:
        raise InstallError("The platform needs root: it loads kernel programs. Run it with sudo.")
    free = shutil.disk_usage(config.home if config.home.exists() else config.home.parent).free
    if free < 3 * 2**30:
        raise InstallError(f"Only {free // 2**20} MiB are free where {config.home} lies; 3 GiB are needed.")
    if len(str(config.run)) > 70:
        raise InstallError(
            f"{config.home} is too long a path: unix sockets in it would exceed 108 characters."
        )
    texts = (
        config.index_url,
        config.open_networks,
        config.dns_servers,
        config.apps_domain,
        config.portal_host,
    )
    if config.loader not in ("auto", "bcc", "prebuilt"):
        raise InstallError(f"CYTOPLANE_LOADER is {config.loader}: it can be auto, bcc or prebuilt.")
    where = (config.control_url, config.node_name, config.agents_bind, config.agents_names)
    cluster = (config.check_image, config.cluster_networks, config.underlay)
    for text in (*texts, *where, config.edge_interface, *cluster):
        if not text.isprintable() or '"' in text or "\\" in text:
            raise InstallError(f"The setting {text!r} holds characters that no setting may have.")
    try:
        config.opened  # noqa: B018  it is parsed
    except ValueError as error:
        raise InstallError(f"CYTOPLANE_OPEN_NETWORKS can't be read: {error}.") from None
    try:
        config.upstreams  # noqa: B018  likewise
    except ValueError as error:
        raise InstallError(f"CYTOPLANE_DNS_SERVERS can't be read: {error}.") from None
    if (config.role, config.engine) not in (("platform", "machine"), ("node", "machine")):
        raise InstallError(
            f"An installation of role {config.role!r} and engine {config.engine!r} isn't started like this: "
            "the role is platform or node; on Kubernetes the chart `data-plane` starts what runs there."
        )
    try:
        config.control_plane, config.outside_names, ipaddress.ip_address(config.agents_bind)
    except ValueError as error:
        raise InstallError(
            f"CYTOPLANE_CONTROL_URL, CYTOPLANE_AGENTS_NAMES or CYTOPLANE_AGENTS_BIND can't be read: {error}."
        ) from None
    domain, portal = config.apps_domain.lower(), config.portal_host.lower()
    shares = domain == portal or portal.endswith(f".{domain}") or domain.endswith(f".{portal}")
    if shares and domain != "localhost":
        raise InstallError(
            f"Applications under {domain} could set cookies for the portal at {portal}. "
            "Choose an apps_domain that isn't part of the portal's host name, nor the other way round."
        )


def write_config(config: Config) -> None:
    """The settings of this installation, so that every later command finds them."""
    lines = [
        f"net = {config.net}",
        f"portal_port = {config.portal_port}",
        f"apps_port = {config.apps_port}",
        f"agents_port = {config.agents_port}",
        f'apps_domain = "{config.apps_domain}"',
        f'portal_host = "{config.portal_host}"',
        f'cache = "{config.cache}"',
        f"portal_tls = {config.portal_tls}",
        f'portal_origin = "{config.portal_origin}"',
        f'portal_bind = "{config.portal_bind}"',
        f'shared_dir = "{config.shared_dir}"',
        f'index_url = "{config.index_url}"',
        f'open_networks = "{config.open_networks}"',
        f'dns_servers = "{config.dns_servers}"',
        f'edge_interface = "{config.edge_interface}"',
        f"edge_connections = {config.edge_connections}",
        f'loader = "{config.loader}"',
        f'role = "{config.role}"',
        f'engine = "{config.engine}"',
        f'control_url = "{config.control_url}"',
        f'node_name = "{config.node_name}"',
        f'agents_bind = "{config.agents_bind}"',
        f'agents_names = "{config.agents_names}"',
        f"registry_port = {config.registry_port}",
        f'check_image = "{config.check_image}"',
        f'cluster_networks = "{config.cluster_networks}"',
        f'underlay = "{config.underlay}"',
    ]
    services.write(config.home / "config.toml", "\n".join(lines) + "\n", config, None, 0o644)


def copy_code(config: Config) -> tuple[Path, bool]:
    """The code where unprivileged users can read it; (its folder, whether it changed)."""
    app = config.home / "app"
    key = _fingerprint()
    mark = app / ".key"
    if mark.exists() and mark.read_text() == key:
        return app, False
    fresh = config.home / "app.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for name in _CODE:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, fresh / name, ignore=_LEFT_OUT)
        elif source.exists():
            shutil.copy2(source, fresh / name)
    build = REPOSITORY / "web" / "static" / "build"
    if build.exists():
        shutil.copytree(build, fresh / "web" / "static" / "build", dirs_exist_ok=True)
    for path in [fresh, *fresh.rglob("*")]:
        os.chown(path, 0, 0)
        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    # Compiled once here, not by every part at every start.
    compileall.compile_dir(fresh, quiet=2, workers=0, stripdir=str(fresh), prependdir=str(app))
    (fresh / ".key").write_text(key)
    shutil.rmtree(app, ignore_errors=True)
    fresh.rename(app)
    return app, True


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for name in _CODE:
        source = REPOSITORY / name
        files = sorted(source.rglob("*")) if source.is_dir() else [source]
        for file in files:
            if file.is_file() and "node_modules" not in file.parts and file.suffix != ".pyc":
                status = file.stat()
                digest.update(
                    f"{file.relative_to(REPOSITORY)} {status.st_size} {status.st_mtime_ns}\n".encode()
                )
    return digest.hexdigest()


def manage(config: Config, venv: Path, app: Path, *arguments: str, data: str | None = None) -> str:
    """Run a management command as the web process's user; its output."""
    environment = supervise.environment(config, app)
    try:
        done = services.as_user(
            config,
            "",
            [f"{venv}/bin/python", f"{app}/manage.py", *arguments],
            env=environment,
            cwd=str(app),
            input=data,
        )
    except subprocess.CalledProcessError as error:
        raise InstallError(f"`{arguments[0]}` failed: {error.stderr.strip()[-1500:]}") from error
    return done.stdout.strip()


def prepare(config: Config, venv: Path, say: Say) -> tuple[Path, bool]:
    """Everything that can be done before the services run; (the code's folder, whether it changed)."""
    check(config)
    users.ensure(config)
    services.folders(config)
    write_config(config)
    app, changed = copy_code(config)
    services.postgres(config)
    services.redis(config)
    services.registry(config)
    services.control_gateway(config)
    from dataplane.agent import podman

    podman.write_settings(config)
    if not (config.secrets / "authority.pem").exists():
        manage(config, venv, app, "init_secrets")
    manage(config, venv, app, "server_certificate")
    base_image.ensure(config, say)
    supervise.write(config, venv, app)
    launcher.install(config, venv, app)
    return app, changed


def database(config: Config, venv: Path, app: Path) -> None:
    """Role, database, schema, what every installation has, and tokens for nodes without a certificate."""
    socket = str(config.postgres_socket_dir)

    def psql(*arguments: str) -> str:
        return services.as_user(
            config, "-db", ["psql", "-h", socket, "-U", "postgres", "-XAtq", *arguments], cwd="/"
        ).stdout.strip()

    if not psql("-c", "SELECT 1 FROM pg_roles WHERE rolname = 'cytoplane'"):
        psql("-c", "CREATE ROLE cytoplane LOGIN")
    if not psql("-c", "SELECT 1 FROM pg_database WHERE datname = 'cytoplane'"):
        psql("-c", "CREATE DATABASE cytoplane OWNER cytoplane")
    kinds = [
        kind
        for kind, folder in (("agent", config.agent_dir), ("builder", config.builder_dir))
        if not (folder / "client.cert").exists() and not (folder / "enrolment").exists()
    ]
    mark, key = config.home / "database.key", (app / ".key").read_text()
    if not kinds and mark.exists() and mark.read_text() == key:
        return
    tokens = json.loads(manage(config, venv, app, "bring_up", *kinds))
    for kind, token in tokens.items():
        folder = config.agent_dir if kind == "agent" else config.builder_dir
        write_private(folder / "enrolment", token.encode())
    mark.write_text(key)


def venv_of() -> Path:
    """The virtual environment that runs this."""
    return Path(sys.prefix)
