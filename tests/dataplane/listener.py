"""The agents' listener as an installation has it: Envoy with its settings, certificates, the agents'
application, the image registry. Import ``config`` into a module of tests."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn
from django.conf import settings

from dataplane.planes import authority
from dataplane.planes.agents_asgi import application
from infra import services, users
from infra.config import Config
from tests.dataplane import processes
from tests.services import Services

NET = int(os.environ.get("CYTOPLANE_TEST_NET", "11"))


@pytest.fixture(scope="module")
def config(installation: Services) -> Iterator[Config]:
    """The control gateway of an installation with a port of its own, in front of this process."""
    patch = pytest.MonkeyPatch()
    patch.setattr(users, "ids", lambda config, part="": processes.nobody())
    with processes.folder("control") as home:
        found = Config(home=home, net=NET, agents_port=processes.free_port())
        with listening(found):
            yield found
    patch.undo()


@processes.contextmanager
def listening(config: Config) -> Iterator[None]:
    """The listener in front of this process for an installation's settings."""
    for path in (
        config.home / "control-gateway",
        config.server_tls,
        config.home / "registry",
        config.web_socket.parent,
        config.registry_socket.parent,
    ):
        services.owned(path, config, "", 0o755)
    services.control_gateway(config)
    services.registry(config)
    _server_certificate(config.server_tls, authority.Authority())
    with _web(config), _registry(config), _envoy(config):
        yield


def said(config: Config) -> Config:
    """The tests' settings with this listener as the agents'; as ``settings.CONFIG`` they make true commands."""
    mine: Config = settings.CONFIG
    found = replace(mine, agents_port=config.agents_port)
    found.server_tls.mkdir(exist_ok=True)
    for name in ("server.pem", "server.key", "authority.pem"):
        shutil.copy(config.server_tls / name, found.server_tls / name)
    return found


def _server_certificate(folder: Path, signer: authority.Authority) -> None:
    certificate, key = signer.issue_server(["localhost", "127.0.0.1"])
    (folder / "server.key").write_bytes(authority.key_pem(key))
    (folder / "server.pem").write_text(authority.pem(certificate))
    (folder / "authority.pem").write_text(signer.pem)


@processes.contextmanager
def _web(config: Config) -> Iterator[None]:
    server = uvicorn.Server(
        uvicorn.Config(application, uds=str(config.web_socket), lifespan="off", log_level="warning")
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    processes.await_true(lambda: processes.answers(config.web_socket), "the agents' application isn't ready")
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(processes.SECONDS)


def _registry(config: Config):  # type: ignore[no-untyped-def]
    command = ["/usr/bin/docker-registry", "serve", str(config.home / "registry.yml")]
    socket = config.registry_socket
    return processes.process(command, config.home / "registry.log", lambda: processes.answers(socket))


def _envoy(config: Config):  # type: ignore[no-untyped-def]
    command = processes.envoy_command(config.home / "control-gateway" / "envoy.json")
    port = config.agents_port
    return processes.process(command, config.home / "control.log", lambda: processes.listens(port))
