"""Prints what is wrong with each kind of node, as JSON; "" if nothing is."""

import json
from datetime import timedelta

from django.core.management.base import BaseCommand
from django.utils import timezone

from dataplane.planes.models import Node

SILENCE = timedelta(seconds=60)


class Command(BaseCommand):
    help = "The state of agents and builders as the control plane knows it."

    def handle(self, *args, **options):
        found = {}
        for node in Node.objects.order_by("pk"):
            problem = ""
            if node.last_seen_at is None or timezone.now() - node.last_seen_at > SILENCE:
                problem = f"it was last heard of {node.last_seen_at or 'never'}"
            elif node.kind == Node.Kind.AGENT and not node.health.get("healthy"):
                problem = (
                    "; ".join(map(str, node.health.get("problems", [])))
                    or "it hasn't reported its health yet"
                )
            found[node.kind] = problem
        self.stdout.write(json.dumps(found))
