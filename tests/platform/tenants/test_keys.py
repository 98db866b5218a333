"""Data keys: one a tenant, wrapped by the master key; a ciphertext opens only where it belongs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from django.conf import settings

from controlplane import crypto
from tenants import keys
from tenants.keys import Box
from tenants.models import TenantKey
from tests.factories import World


@pytest.fixture
def master_file(installation: object) -> Path:
    return settings.CONFIG.secrets / "master.key"


@pytest.fixture
def restored(master_file: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    """The run's master key is as it was when the test is over."""
    shutil.copy2(master_file, tmp_path / "kept")
    yield master_file
    shutil.copy2(tmp_path / "kept", master_file)
    keys._masters.cache_clear()


def test_the_master_key_is_its_owners_alone(master_file: Path) -> None:
    assert master_file.stat().st_mode & 0o777 == 0o600
    assert (settings.CONFIG.secrets / "authority.key").stat().st_mode & 0o777 == 0o600
    assert settings.CONFIG.secrets.stat().st_mode & 0o777 == 0o700


def test_what_is_sealed_opens_with_its_tenant_and_purpose_only(world: World) -> None:
    sealed = Box(world.acme.pk).seal("hush", "config:1")
    assert b"hush" not in sealed
    assert Box(world.acme.pk).unseal(sealed, "config:1") == "hush"
    for box, purpose, value in (
        (Box(world.globex.pk), "config:1", sealed),
        (Box(world.acme.pk), "config:2", sealed),
        (Box(world.acme.pk), "config:1", sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (Box(world.acme.pk), "config:1", sealed[:12]),
    ):
        with pytest.raises(InvalidTag):
            box.unseal(value, purpose)


def test_the_same_text_is_never_sealed_to_the_same_bytes(world: World) -> None:
    box = Box(world.acme.pk)
    assert len({box.seal("same", "p") for _ in range(50)}) == 50


def test_a_data_key_moved_to_another_tenant_doesnt_unwrap(world: World) -> None:
    mine = TenantKey.objects.get(tenant=world.acme)
    TenantKey.objects.filter(tenant=world.globex).update(wrapped=mine.wrapped)
    with pytest.raises(InvalidTag):
        Box(world.globex.pk)


def test_rotation_keeps_everything_readable_and_lets_the_old_key_go(world: World, restored: Path) -> None:
    sealed = Box(world.acme.pk).seal("hush", "p")
    wrapped = bytes(TenantKey.objects.get(tenant=world.acme).wrapped)
    old = keys.masters()
    crypto.write_master_key(restored, old)
    keys._masters.cache_clear()
    assert Box(world.acme.pk).unseal(sealed, "p") == "hush"
    assert keys.rewrap() == TenantKey.objects.count() == 2
    assert bytes(TenantKey.objects.get(tenant=world.acme).wrapped) != wrapped
    newest = keys.masters()[0]
    assert newest not in old
    (restored).write_text(restored.read_text().splitlines()[0] + "\n")
    keys._masters.cache_clear()
    assert keys.masters() == [newest]
    assert Box(world.acme.pk).unseal(sealed, "p") == "hush"


def test_a_lost_master_key_opens_nothing(world: World, restored: Path) -> None:
    crypto.write_master_key(restored)
    keys._masters.cache_clear()
    with pytest.raises(InvalidTag):
        Box(world.acme.pk)


def test_init_secrets_never_overwrites(master_file: Path) -> None:
    from django.core.management import call_command

    names = ("master.key", "django.key", "authority.key", "authority.pem")
    before = {name: (settings.CONFIG.secrets / name).read_bytes() for name in names}
    call_command("init_secrets")
    assert {name: (settings.CONFIG.secrets / name).read_bytes() for name in names} == before
