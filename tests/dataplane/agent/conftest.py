"""The kernel side and its laboratory, for what the agent does with connections."""

from __future__ import annotations

from tests.bpf.conftest import kernel, laboratory, tables

__all__ = ["kernel", "laboratory", "tables"]
