"""Which servers the resolver asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from cells.boundary.model import TCP, UDP
from dataplane.agent import upstreams
from infra import install
from infra.config import Config


def found(tmp_path: Path, *texts: str, setting: str = "") -> list[str]:
    files = []
    for number, text in enumerate(texts):
        files.append(tmp_path / f"resolv-{number}")
        files[-1].write_text(text)
    config = Config(home=tmp_path, dns_servers=setting)
    return upstreams.servers(config, (*files, tmp_path / "missing"))


def test_the_operators_servers_come_before_the_machines(tmp_path: Path) -> None:
    machine = "nameserver 198.51.100.1\n"
    assert found(tmp_path, machine) == ["198.51.100.1"]
    assert found(tmp_path, machine, setting="10.1.2.3, 2001:DB8::1") == ["10.1.2.3", "2001:db8::1"]


def test_a_stub_on_the_loopback_is_looked_behind(tmp_path: Path) -> None:
    stub, behind = "nameserver 127.0.0.53\nnameserver ::1\n", "nameserver 10.0.0.2\n"
    assert found(tmp_path, stub, behind) == ["10.0.0.2"]
    assert found(tmp_path, stub) == []
    assert found(tmp_path, "nameserver 127.0.0.1\nnameserver 198.51.100.1\n", behind) == ["198.51.100.1"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x00\xff",
        "nameserver\n",
        "nameserver localhost\n",
        "nameserver fe80::1%eth0\n",
        "nameserver 0.0.0.0\n",
    ]
    + ["# nameserver 198.51.100.1\n", "search example.org\noptions ndots:1\n", "nameserver fe80::1\n"],
)
def test_what_isnt_a_server_that_can_be_reached_doesnt_count(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, text) == []


def test_as_many_as_a_resolver_takes_each_once(tmp_path: Path) -> None:
    text = "".join(f"nameserver 198.51.100.{n // 2}\n" for n in range(20))
    assert found(tmp_path, text) == ["198.51.100.0", "198.51.100.1", "198.51.100.2"]


def test_the_resolver_may_ask_them_at_port_53_alone() -> None:
    entries = upstreams.entries(["10.1.2.3", "2001:db8::1"])
    assert {(e.network, e.port, e.protocol) for e in entries} == {
        (network, 53, protocol) for network in ("10.1.2.3/32", "2001:db8::1/128") for protocol in (UDP, TCP)
    }


@pytest.mark.parametrize("setting", ["127.0.0.1", "::1", "dns.example.org", "10.0.0.0/8", '10.0.0.1"'])
def test_a_setting_that_cant_be_meant_is_refused_before_anything_starts(
    tmp_path: Path, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(install.InstallError):
        install.check(Config(home=tmp_path, dns_servers=setting))
    install.check(Config(home=tmp_path, dns_servers="10.0.0.1, 2001:db8::1"))
