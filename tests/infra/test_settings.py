"""Settings of a node whose control plane is elsewhere: what can be read, and what can't."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from infra import config as installation
from infra import install
from infra.config import Config, https_host


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://planes.example.com:8443", "planes.example.com:8443"),
        ("https://planes.example.com/", "planes.example.com:443"),
        ("https://192.0.2.1:8443", "192.0.2.1:8443"),
        ("https://[2001:db8::1]:8443", "[2001:db8::1]:8443"),
    ],
)
def test_the_control_plane_is_an_https_host(url: str, host: str) -> None:
    assert https_host(url) == host
    config = Config(home=Path("/nowhere"), control_url=url)
    assert (config.control_plane, config.control_host) == (f"https://{host}", host)


@pytest.mark.parametrize(
    "url",
    [
        "http://planes.example.com",
        "planes.example.com:8443",
        "https://",
        "https://user:secret@planes.example.com",
        "https://planes.example.com/path",
        "https://planes.example.com?x=1",
        "https://planes.example.com:99999",
        "https://a b",
        "https://-x.example.com",
        "https://[2001:db8::zz]",
    ],
)
def test_nothing_else_is(url: str) -> None:
    with pytest.raises(ValueError):
        https_host(url)


def test_what_nobody_set_is_this_machines_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CONTROL_URL", "NODE_NAME", "AGENTS_BIND", "AGENTS_NAMES", "ENGINE", "ROLE", "AGENTS_PORT"):
        monkeypatch.delenv(f"CYTOPLANE_{name}", raising=False)
    found = installation.load(tmp_path)
    assert (found.control_plane, found.agents_url) == ("https://localhost:8443", "https://localhost:8443")
    assert (found.agents_bind, found.engine, found.role) == ("127.0.0.1", "machine", "platform")
    assert found.node == socket.gethostname()[:80]
    assert (found.outside_names, found.underlays, found.cluster_ranges) == ([], [], [])


def test_lists_are_separated_by_commas(tmp_path: Path) -> None:
    found = Config(home=tmp_path, cluster_networks="10.1.0.0/16, fd00::/64", underlay="eth0, eth1,")
    assert [str(network) for network in found.cluster_ranges] == ["10.1.0.0/16", "fd00::/64"]
    assert found.underlays == ["eth0", "eth1"]


@pytest.mark.root
@pytest.mark.parametrize(
    "wrong",
    [
        {"control_url": "http://x"},
        {"agents_names": "a b"},
        {"agents_bind": "everywhere"},
        {"role": "other"},
        {"engine": "kubernetes"},
        {"node_name": 'x"\n'},
    ],
)
def test_what_cant_be_is_said_before_anything_is_changed(tmp_path: Path, wrong: dict[str, str]) -> None:
    install.check(Config(home=tmp_path))
    with pytest.raises(install.InstallError):
        install.check(Config(home=tmp_path, **wrong))  # type: ignore[arg-type]
