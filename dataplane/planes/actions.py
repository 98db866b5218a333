"""Changes to planes. ``touch`` is what everything calls whose change a plane must see."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction
from django.utils import timezone

from dataplane.planes import presence
from dataplane.planes.models import Node, Plane, Touched


def touch(plane: Plane, cells: Iterable[int] | None = None) -> None:
    """Rebuild the plane's desired state once the surrounding transaction is committed.

    ``cells``: numbers of those that changed; all of the plane if it isn't known.
    """
    if note(plane, cells):
        # The change is made whether or not this succeeds: what is noted is swept.
        transaction.on_commit(lambda: _rebuild(plane.pk), robust=True)


def _rebuild(plane_id: int) -> None:
    """At once and here, so that a change waits for no queue; by a worker where that isn't for sure short."""
    from dataplane.planes import snapshots
    from dataplane.planes.tasks import rebuild

    try:
        snapshots.at_once(plane_id)
    except snapshots.Later:
        rebuild.apply_async((plane_id,))
    except Exception:
        rebuild.apply_async((plane_id,))
        raise


def note(plane: Plane | None, cells: Iterable[int] | None = None) -> bool:
    """Write down in the transaction what the next rebuild must look at; False where nobody looks.

    So a wake-up that is lost loses no change.
    """
    if plane is None:
        return False
    numbers: list[int | None] = [None] if cells is None else list(cells)
    Touched.objects.bulk_create(Touched(plane=plane, number=number) for number in numbers)
    return True


@transaction.atomic
def acknowledge(node: Node, generation: int, errors: list[str]) -> None:
    """The node says that it has applied a generation; what waits for it goes on."""
    if node.plane_id is None or generation < 0 or generation > Plane.objects.get(pk=node.plane_id).generation:
        return  # it can't have applied what was never sent
    # An agent says it from two threads, so what is said later may be what was applied earlier: the row decides.
    known = {"acknowledged__gte": generation, "acknowledged__lte": generation + 10**6}
    Node.objects.filter(pk=node.pk).exclude(**known).update(acknowledged=generation)
    from delivery.actions import generation_acknowledged

    generation_acknowledged(node.plane_id, generation)


def record_health(node: Node, health: dict) -> None:
    """What the node says about itself; shown, never trusted."""
    returned = node.last_seen_at is not None and presence.silent(node)
    node.health = health
    node.last_seen_at = timezone.now()
    node.save(update_fields=["health", "last_seen_at"])
    if returned and node.plane is not None and node.kind == node.plane.joins_as:
        from delivery.actions import plane_returned

        plane_returned(node.plane.pk)
