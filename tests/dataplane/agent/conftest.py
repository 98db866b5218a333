"""The kernel side and its laboratory, for what the agent does with connections."""

from __future__ import annotations

from tests.bpf.conftest import kernel, laboratory, tables
from tests.cluster import two_nodes

__all__ = ["kernel", "laboratory", "tables", "two_nodes"]
