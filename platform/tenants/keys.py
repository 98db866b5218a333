"""The tenants' data keys: made with the tenant, unwrapped when needed, never stored in clear."""

from __future__ import annotations

from functools import lru_cache

from django.conf import settings

from controlplane import crypto
from tenants.models import Tenant, TenantKey


@lru_cache(maxsize=1)
def _masters(mtime: float) -> tuple[bytes, ...]:
    return tuple(crypto.read_master_keys(_file()))


def _file():
    return settings.CONFIG.secrets / "master.key"


def masters() -> list[bytes]:
    """The master keys, newest first; re-read when the file changes."""
    return list(_masters(_file().stat().st_mtime))


def create(tenant: Tenant) -> None:
    """Give a new tenant its data key."""
    wrapped = crypto.wrap(masters(), crypto.new_key(), f"tenant:{tenant.pk}")
    TenantKey.objects.create(tenant=tenant, wrapped=wrapped)


def _data_key(tenant_id: int) -> bytes:
    wrapped = TenantKey.objects.values_list("wrapped", flat=True).get(tenant_id=tenant_id)
    return crypto.unwrap(masters(), bytes(wrapped), f"tenant:{tenant_id}")


class Box:
    """Encrypts and decrypts for one tenant; holds its data key only as long as it is referenced."""

    def __init__(self, tenant_id: int) -> None:
        self._tenant_id = tenant_id
        self._key = _data_key(tenant_id)

    def seal(self, plain: str, purpose: str) -> bytes:
        """``purpose`` names the column or document, so that values can't be moved around."""
        return crypto.seal(self._key, plain.encode(), f"{self._tenant_id}:{purpose}")

    def unseal(self, sealed: bytes, purpose: str) -> str:
        return crypto.unseal(self._key, bytes(sealed), f"{self._tenant_id}:{purpose}").decode()


def rewrap() -> int:
    """Wrap every data key with the newest master key; the number of keys. Part of a rotation."""
    count = 0
    for row in TenantKey.objects.select_for_update():
        key = crypto.unwrap(masters(), bytes(row.wrapped), f"tenant:{row.tenant_id}")
        row.wrapped = crypto.wrap(masters(), key, f"tenant:{row.tenant_id}")
        row.save(update_fields=["wrapped"])
        count += 1
    return count
