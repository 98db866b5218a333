"""What the node needs beside its network."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.config import Config

_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")


@pytest.mark.root
def test_the_gateway_may_watch_a_file_for_each_of_thousands_of_clusters(kernel: Config) -> None:
    assert int(_INSTANCES.read_text()) >= 10_000
