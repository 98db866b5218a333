"""The way from a node through the control gateway to a registry that is elsewhere: both ends prove who they are."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from controlplane import registry_keys
from controlplane.management.commands.pod_files import _registry
from dataplane.client import ControlPlane
from dataplane.planes import authority, enrolment
from dataplane.planes.models import Node
from infra import control_gateway, services, users
from infra.config import Config
from tests.dataplane import listener, processes
from tests.dataplane.planes.conftest import Bare, bare  # noqa: F401  a fixture
from tests.services import Services

pytestmark = [pytest.mark.root, pytest.mark.django_db(transaction=True)]


@pytest.fixture(scope="module")
def config(installation: Services) -> Iterator[Config]:
    """The listener in front of this process, and Debian's registry over TCP as a pod has it."""
    patch = pytest.MonkeyPatch()
    patch.setattr(users, "ids", lambda config, part="": processes.nobody())
    with processes.folder("registry") as home:
        found = Config(home=home, net=listener.NET, agents_port=processes.free_port())
        for path in (home / "control-gateway", found.server_tls, home / "images", found.web_socket.parent):
            services.owned(path, found, "", 0o755)
        for name, content in registry_keys.make().items():
            (home / name).write_bytes(content)
            os.chown(home / name, *processes.nobody())
        listener._server_certificate(found.server_tls, authority.Authority())
        port = processes.free_port()
        settings = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(home / "images")}},
            "http": {
                "addr": f"127.0.0.1:{port}",
                "tls": {
                    "certificate": str(home / "registry.pem"),
                    "key": str(home / "registry.key"),
                    "clientcas": [str(home / "authority.pem")],
                },
            },
        }
        (home / "registry.yml").write_text(json.dumps(settings))
        environment = {
            "CYTOPLANE_REGISTRY_URL": f"https://localhost:{port}",
            "CYTOPLANE_REGISTRY_KEYS": str(home),
        }
        document = control_gateway.document(found, **_registry(environment))
        (home / "control-gateway" / "envoy.json").write_text(json.dumps(document))
        command = ["/usr/bin/docker-registry", "serve", str(home / "registry.yml")]
        registry = processes.process(command, home / "registry.log", lambda: processes.listens(port))
        with listener._web(found), registry, listener._envoy(found):
            (home / "port").write_text(str(port))
            yield found
    patch.undo()


@pytest.fixture
def agent(config: Config, bare: Bare, tmp_path: Path) -> ControlPlane:
    folder = tmp_path / "agent"
    made = ControlPlane(folder, config.control_plane)
    (folder / "enrolment").write_text(enrolment.create_token(Node.Kind.AGENT, bare.plane))
    made.enrol("node-1", {})
    return made


def test_a_node_reaches_the_registry_through_the_gateway(config: Config, agent: ControlPlane) -> None:
    context = ssl.create_default_context(cafile=str(agent.authority))
    context.load_cert_chain(str(agent.certificate), str(agent.key))
    with httpx.Client(base_url=agent.base, verify=context, timeout=30) as client:
        # The gateway doesn't wait for the registry's name before it listens.
        processes.await_true(lambda: client.get("/v2/").status_code == 200, "the registry isn't reached")
        answer = client.get("/v2/")
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


def test_nobody_but_the_gateway_reaches_the_registry_itself(config: Config, agent: ControlPlane) -> None:
    port = (config.home / "port").read_text()

    def context() -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(config.home / "authority.pem"))
        made.check_hostname = False
        return made

    nobody, node, server, gateway = context(), context(), context(), context()
    node.load_cert_chain(str(agent.certificate), str(agent.key))
    server.load_cert_chain(str(config.home / "registry.pem"), str(config.home / "registry.key"))
    gateway.load_cert_chain(str(config.home / "gateway.pem"), str(config.home / "gateway.key"))
    for stranger in (nobody, node, server):
        with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
            httpx.get(f"https://127.0.0.1:{port}/v2/", verify=stranger)
    assert httpx.get(f"https://127.0.0.1:{port}/v2/", verify=gateway).status_code == 200


def test_a_registry_with_a_password_is_asked_by_its_own_name() -> None:
    found = _registry(
        {
            "CYTOPLANE_REGISTRY_URL": "https://images.example.com:5443",
            "CYTOPLANE_REGISTRY_USER": "robot",
            "CYTOPLANE_REGISTRY_PASSWORD": "secret",
        }
    )
    assert found["action"]["host_rewrite_literal"] == "images.example.com:5443"
    assert found["action"]["append_x_forwarded_host"] is True
    assert found["headers"][0]["header"] == {"key": "authorization", "value": "Basic cm9ib3Q6c2VjcmV0"}
    assert found["registry"]["transport_socket"]["typed_config"]["sni"] == "images.example.com"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"CYTOPLANE_REGISTRY_URL": "https://images.example.com", "CYTOPLANE_REGISTRY_USER": "robot"},
        {"CYTOPLANE_REGISTRY_URL": "https://registry:5000", "CYTOPLANE_REGISTRY_KEYS": "/nonexistent"},
    ],
)
def test_the_gateway_accepts_its_settings(
    environment: dict[str, str], config: Config, tmp_path: Path
) -> None:
    if "CYTOPLANE_REGISTRY_KEYS" in environment:
        environment = {**environment, "CYTOPLANE_REGISTRY_KEYS": str(config.home)}
    document = control_gateway.document(config, listen=("::", 8443), **_registry(environment))
    file = tmp_path / "envoy.json"
    file.write_text(json.dumps(document))
    done = subprocess.run(
        [str(processes.ENVOY), "--mode", "validate", "-c", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
