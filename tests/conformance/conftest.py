"""The kernel side is loaded once for all worlds."""

from __future__ import annotations

from tests.bpf.conftest import kernel, tables  # noqa: F401  fixtures
