"""What a cell may pull: a file from desired state, and whose token it is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from dataplane.registry import grants, names
from infra.config import Config

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
SHOP, BANK = "cell-7-1f3a9c20", "cell-8-00000001"


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def endpoint(namespace: str, token: str, image: str) -> dict[str, Any]:
    return {"id": "r1", "pod": {"namespace": namespace, "pull": hashed(token)}, "process": {"image": image}}


def snapshot(*endpoints: dict[str, Any]) -> dict[str, Any]:
    return {"generation": 1, "endpoints": list(endpoints)}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = Config(home=tmp_path)
    made.agent_dir.mkdir()
    return made


def read(config: Config) -> grants.Grants:
    found = grants.Grants(grants.path_in(config))
    found.refresh()
    return found


def test_a_token_opens_the_images_of_its_cell_alone(config: Config) -> None:
    grants.write(
        config,
        snapshot(endpoint(SHOP, "one", f"t1/p1@{A}"), endpoint(BANK, "two", f"t2/p2@{B}")),
    )
    known = read(config)
    shop = known.cell(SHOP, "one")
    assert shop is not None and shop.images == {"t1/p1": frozenset({A})}
    for namespace, token in (
        (SHOP, "two"),
        (BANK, "one"),
        (SHOP, ""),
        ("", ""),
        ("", "one"),
        ("cell-9-00000000", "one"),
    ):
        assert known.cell(namespace, token) is None, (namespace, token)


def test_only_root_reads_the_file_and_no_token_is_in_it(config: Config) -> None:
    grants.write(config, snapshot(endpoint(SHOP, "one", f"t1/p1@{A}")))
    file = grants.path_in(config)
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"one" not in file.read_bytes()


def test_a_machines_endpoints_grant_nothing(config: Config) -> None:
    grants.write(config, snapshot({"id": "r1", "process": {"image": f"t1/p1@{A}"}}))
    assert read(config).cell("", "") is None


def test_another_state_counts_at_once_and_the_same_one_writes_nothing(config: Config) -> None:
    state = snapshot(endpoint(SHOP, "one", f"t1/p1@{A}"))
    grants.write(config, state)
    known, before = read(config), grants.path_in(config).stat().st_ino
    grants.write(config, state)
    assert grants.path_in(config).stat().st_ino == before
    grants.write(config, snapshot(endpoint(SHOP, "other", f"t1/p1@{B}")))
    known.refresh()
    assert known.cell(SHOP, "one") is None
    fresh = known.cell(SHOP, "other")
    assert fresh is not None and fresh.images == {"t1/p1": frozenset({B})}


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b'{"cell-7-1f3a9c20": 1}', b'{"cell-7-1f3a9c20": {"pull": ""}}', b"\xff"]
)
def test_a_damaged_file_grants_nothing(config: Config, text: bytes) -> None:
    grants.path_in(config).write_bytes(text)
    assert read(config).cell(SHOP, "") is None


@pytest.mark.parametrize(
    "path",
    [
        "/v2/_catalog", "/v2/t1/p1/tags/list", "/v2/t1/p1/blobs/uploads/", "/v2/t1/p1/manifests/",
        f"/v2/t1/../t2/manifests/{A}", f"/v2/t1/p1/x/manifests/{A}", f"/v2/t1%2fp1/manifests/{A}", f"//v2/t1/p1/manifests/{A}",
        f"/v2/t1/p1/manifests/{A}/", f"/v2/t1/p1/manifests/{A}\n", "/v2/t1/p1/blobs/sha256:../../x",
    ],
)  # fmt: skip
def test_nothing_but_a_piece_of_an_image_is_understood(path: str) -> None:
    assert names.asked(path) is None


def test_pieces_of_images_are_understood() -> None:
    assert names.asked(f"/v2/t1/p1/manifests/{A}") == ("t1/p1", "manifests", A)
    assert names.asked(f"/v2/t1/p1/blobs/{B}") == ("t1/p1", "blobs", B)
    assert names.asked("/v2/cytoplane/check/manifests/2") == ("cytoplane/check", "manifests", "2")
    assert names.check_image(5001) == "127.0.0.1:5001/cytoplane/check:2"
