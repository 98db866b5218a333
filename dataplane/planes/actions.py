"""Changes to planes. ``touch`` is what everything calls whose change a plane must see."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from dataplane.planes.models import Node, Plane


def touch(plane: Plane) -> None:
    """Rebuild the plane's desired state once the surrounding transaction is committed."""
    from dataplane.planes.tasks import rebuild

    # Only machines pull.
    if plane.engine == Plane.Engine.MACHINE:
        rebuild.enqueue(plane.pk)


@transaction.atomic
def acknowledge(node: Node, generation: int, errors: list[str]) -> None:
    """The node says that it has applied a generation; what waits for it goes on."""
    if node.plane_id is None or generation < 0 or generation > Plane.objects.get(pk=node.plane_id).generation:
        return  # it can't have applied what was never sent
    if generation > node.acknowledged or node.acknowledged > generation + 10**6:
        node.acknowledged = generation
        node.save(update_fields=["acknowledged"])
    from delivery.actions import generation_acknowledged

    generation_acknowledged(node.plane_id, generation)


def record_health(node: Node, health: dict) -> None:
    """What the node says about itself; shown, never trusted."""
    node.health = health
    node.last_seen_at = timezone.now()
    node.save(update_fields=["health", "last_seen_at"])
