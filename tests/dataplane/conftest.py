"""What runs on nodes, for real: most of it needs root."""

from __future__ import annotations

import pytest

from tests.dataplane import processes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if processes.root():
        return
    for item in items:
        if "root" in item.keywords and "/dataplane/" in str(item.path):
            item.add_marker(pytest.mark.skip(reason="needs root: namespaces, users or control groups"))
