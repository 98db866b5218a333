"""System users of an installation: one for each part, named after its number."""

from __future__ import annotations

import grp
import pwd
import subprocess
from collections.abc import Iterable

from infra.config import Config

#: part → what it runs. The first is the web process's and workers'.
PARTS = {
    "": "web, workers and beat",
    "-db": "PostgreSQL",
    "-redis": "Redis",
    "-reg": "image registry",
    "-gw": "gateways",
    "-dns": "resolver",
    "-index": "package index proxy",
}


def name(config: Config, part: str = "") -> str:
    """User and group of a part, e.g. ``cy0-db``."""
    return f"{config.name}{part}"


def ensure(config: Config, parts: Iterable[str] = tuple(PARTS)) -> None:
    """Create what is missing, and let parts open the sockets that they need."""
    for part in parts:
        what = PARTS[part]
        user = name(config, part)
        try:
            pwd.getpwnam(user)
        except KeyError:
            command = [
                "useradd",
                "--system",
                "--user-group",
                "--no-create-home",
                "--home-dir",
                "/nonexistent",
            ]
            command += ["--shell", "/usr/sbin/nologin", "--comment", f"Cytoplane {what}", user]
            subprocess.run(command, check=True, capture_output=True)


def remove(config: Config) -> None:
    """Delete the users, for purge."""
    for part in PARTS:
        user = name(config, part)
        subprocess.run(["userdel", user], check=False, capture_output=True)
        subprocess.run(["groupdel", user], check=False, capture_output=True)


def ids(config: Config, part: str = "") -> tuple[int, int]:
    """(user id, group id) of a part."""
    return pwd.getpwnam(name(config, part)).pw_uid, grp.getgrnam(name(config, part)).gr_gid
