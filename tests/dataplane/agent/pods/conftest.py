"""Two nodes with agents, for everything that needs pods."""

from __future__ import annotations

from tests.dataplane.agent.pods.plane import pod_plane

__all__ = ["pod_plane"]
