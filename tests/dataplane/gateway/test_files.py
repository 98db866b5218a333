"""Envoy's files are written again only where they can be others, and where Envoy is behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataplane.gateway.files import Gateway
from infra.config import Config


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    made = Gateway(Config(home=tmp_path))
    made.start_files()
    return made


def document(address: str = "192.0.2.1") -> dict[str, Any]:
    cluster = {"name": "c1", "protocol": "http", "backends": [["r1", address, 80]], "source4": "192.0.2.9",
               "source6": "2001:db8::9", "sticky": False, "weights": [1]}  # fmt: skip
    return {"routes": [], "clusters": [cluster], "listeners": [], "doors": []}


def test_what_was_written_of_the_same_neednt_be_made_again(gateway: Gateway) -> None:
    assert gateway.unchanged(b"one", {"r1"}) is None
    expected = gateway.apply(document(), {"r1"}, b"one")
    assert gateway.unchanged(b"one", {"r1"}) == expected
    assert gateway.unchanged(b"two", {"r1"}) is None
    assert gateway.unchanged(b"one", set()) is None
    assert gateway.unchanged(b"one", None) is None
    assert gateway.unchanged(None, {"r1"}) is None


def test_what_has_no_stamp_is_made_each_time(gateway: Gateway) -> None:
    gateway.apply(document(), {"r1"}, b"one")
    gateway.apply(document("192.0.2.2"), {"r1"})
    assert gateway.unchanged(b"one", {"r1"}) is None
    assert gateway.unchanged(None, {"r1"}) is None


def test_files_that_envoy_is_behind_with_are_written_again(gateway: Gateway) -> None:
    expected = gateway.apply(document(), {"r1"}, b"one")
    assert gateway.wait(expected, 0) == sorted(expected), "there is no Envoy"
    assert gateway.unchanged(b"one", {"r1"}) is None


def test_a_failure_on_the_way_leaves_nothing_believed(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.apply(document(), {"r1"}, b"one")

    def fails(*_: Any) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", fails)
        with pytest.raises(OSError, match="no space"):
            gateway.apply(document("192.0.2.3"), {"r1"}, b"two")
    assert gateway.unchanged(b"two", {"r1"}) is None
    assert gateway.unchanged(b"one", {"r1"}) is None
