"""The `cyto` command of this machine: a two-line program in the state directory, linked where shells look."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

from infra import services
from infra.config import Config

LINK = Path("/usr/local/bin/cyto")


def _program(config: Config) -> Path:
    return config.home / "bin" / "cyto"


def install(config: Config, venv: Path, app: Path) -> None:
    """Write the program; link it unless the name is somebody else's. Its default platform is this one."""
    program = _program(config)
    services.owned(program.parent, config, None, 0o755)
    # The repository's root is for the rules of cytoplane.yaml.
    path = f"{app / 'platform'}:{app}"
    text = (
        f"#!/bin/sh\nPYTHONPATH={shlex.quote(path)} PYTHONDONTWRITEBYTECODE=1 "
        f"CYTO_DEFAULT_URL={shlex.quote(config.portal_url)} CYTO_PROGRAM={shlex.quote(str(program))} "
        f'exec {shlex.quote(str(venv / "bin" / "python"))} -m cli "$@"\n'
    )
    services.write(program, text, config, None, 0o755)
    if not LINK.is_symlink() and not LINK.exists():
        with contextlib.suppress(OSError):
            LINK.symlink_to(program)
    elif LINK.is_symlink() and not LINK.exists():
        LINK.unlink()
        LINK.symlink_to(program)


def remove(config: Config) -> None:
    """Take the link away if it is this installation's."""
    if LINK.is_symlink() and LINK.readlink() == _program(config):
        LINK.unlink()
