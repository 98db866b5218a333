"""Interfaces that tests make: a veth that is set up drops what is sent until the kernel has noticed its carrier,
which on a busy machine takes a second and more."""

from __future__ import annotations

import json
import subprocess

from tests.dataplane import processes


def await_up(link: str, namespace: str = "") -> None:
    """Wait until an interface carries packets; fails if it doesn't."""
    place = ["-n", namespace] if namespace else []
    command = ["ip", *place, "-j", "link", "show", "dev", link]

    def carries() -> bool:
        shown = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(shown.stdout)[0]["operstate"] == "UP"

    processes.await_true(carries, f"{link} carries nothing")
