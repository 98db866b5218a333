"""Numbers that the kernel and the gateway know things by: allocated in PostgreSQL, never reused."""

from __future__ import annotations

from datetime import timedelta

from django.db import connection
from django.utils import timezone

from controlplane.errors import CytoplaneError
from dataplane import addresses
from dataplane.planes.models import Plane, ReplicaAddress

#: kind → (first, last or None). Ranges of indexes are those of dataplane.addresses.
KINDS: dict[str, tuple[int, int | None]] = {
    "identity": (256, None),
    "cell": (1, None),
    "rule": (1000, None),
    "gateway": (0, addresses.CELL_GATEWAYS - 1),
    "service": (16, 65000),
    "listener": (10000, 60000),
    "door": (10000, 60000),
}
REST = timedelta(minutes=10)
FIRST_REPLICA, LAST_REPLICA = addresses.REPLICA_FIRST, addresses.REPLICA_LAST


def allocate(kind: str, scope: int | None = None) -> int:
    """The next number of ``kind``, counted for each ``scope`` (a tenant) if there is one.

    The row's lock makes two callers get two numbers. Raises ``unavailable`` when all are given out.
    """
    first, last = KINDS[kind]
    name = kind if scope is None else f"{kind}:{scope}"
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO planes_sequence (kind, next) VALUES (%s, %s) "
            "ON CONFLICT (kind) DO UPDATE SET next = planes_sequence.next + 1 RETURNING next",
            [name, first],
        )
        number = cursor.fetchone()[0]
    if last is not None and number > last:
        raise CytoplaneError("unavailable", part=f"numbers of kind {kind} (all are given out)")
    return number


def allocate_address(plane: Plane) -> int:
    """An address index for a replica: one that has rested, else a new one. Call in a transaction."""
    rested = (
        ReplicaAddress.objects.select_for_update(skip_locked=True)
        .filter(plane=plane, freed_at__lt=timezone.now() - REST)
        .order_by("freed_at")
        .first()
    )
    if rested:
        rested.freed_at = None
        rested.save(update_fields=["freed_at"])
        return rested.index
    Plane.objects.select_for_update().get(pk=plane.pk)
    highest = (
        ReplicaAddress.objects.filter(plane=plane).order_by("-index").values_list("index", flat=True).first()
    )
    index = FIRST_REPLICA if highest is None else highest + 1
    if index > LAST_REPLICA:
        raise CytoplaneError("unavailable", part="replica addresses of this plane (all are in use)")
    ReplicaAddress.objects.create(plane=plane, index=index)
    return index


def free_address(plane: Plane, index: int) -> None:
    """The address rests from now on."""
    ReplicaAddress.objects.filter(plane=plane, index=index).update(freed_at=timezone.now())
