"""Interfaces that tests make: a veth that is set up drops what is sent until the kernel has noticed its carrier,
which on a busy machine takes a second and more."""

from __future__ import annotations

import json
import subprocess
import time

SECONDS = 20.0


def await_up(link: str, namespace: str = "") -> None:
    """Wait until an interface carries packets; fails if it doesn't."""
    place = ["-n", namespace] if namespace else []
    end = time.monotonic() + SECONDS
    while True:
        shown = subprocess.run(
            ["ip", *place, "-j", "link", "show", "dev", link], capture_output=True, text=True, check=True
        )
        (found,) = json.loads(shown.stdout)
        if found["operstate"] == "UP":
            return
        assert time.monotonic() < end, f"{link} is {found['operstate']}"
        time.sleep(0.02)
