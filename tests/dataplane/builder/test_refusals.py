"""What the kernel refused a build, read again and again."""

from __future__ import annotations

import os

import pytest

from dataplane.builder import refusals
from infra.config import Config
from tests.bpf.conftest import kernel  # noqa: F401  fixture

pytestmark = pytest.mark.root


def test_a_look_leaves_nothing_open(kernel: Config) -> None:  # noqa: F811
    """A builder lives for thousands of builds and looks twice at each."""
    refusals.take(kernel, 0)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        refusals.take(kernel, 0)
    assert len(os.listdir("/proc/self/fd")) == before
