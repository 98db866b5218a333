"""An installation of role `node`: agent, gateway, resolver and podman, whose control plane is elsewhere."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from dataplane.agent import podman
from dataplane.agent.healthfile import HEALTH_FILE
from dataplane.client import write_private
from dataplane.gateway.files import Gateway
from infra import services, supervise, supervisor, users
from infra.config import Config

#: What runs here, by its name among all parts of an installation.
PARTS = ("podman", "agent", "resolver", "gateway")
#: Of the system's users.
USERS = ("-gw", "-dns")
#: Seconds after which the agent's word is old.
SILENCE = 60


def folders(config: Config) -> None:
    """The state directory: every part sees what is its own."""
    services.owned(config.home, config, None, 0o755)
    services.owned(config.run, config, None, 0o755)
    services.owned(config.logs, config, None, 0o700)
    services.owned(config.agent_dir, config, None, 0o700)
    services.owned(config.gateway_dir, config, "-gw", 0o700)
    services.owned(config.resolver_dir, config, None, 0o750, "-dns")
    services.owned(config.run / "agent", config, None, 0o700)


def prepare(config: Config, venv: Path, copy_code: Callable[[Config], tuple[Path, bool]]) -> bool:
    """Everything that can be done before the parts run; whether their code changed."""
    users.ensure(config, USERS)
    folders(config)
    app, changed = copy_code(config)
    podman.write_settings(config)
    supervise.write(config, venv, app, PARTS)
    _program(config, venv)
    return changed


def keep_token(config: Config, token: str) -> None:
    """Where the agent finds it. Raises ``ValueError`` for what isn't a token."""
    if not token.startswith("cye_") or not token.isascii() or not token.isprintable() or len(token) > 400:
        raise ValueError("what was given isn't an enrolment token")
    config.agent_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(config.agent_dir / "enrolment", token.encode())


def _program(config: Config, venv: Path) -> None:
    """`bin/cytoplane-node up|down|status|purge`, for whoever operates the machine."""
    source = Path(__file__).resolve().parents[1]
    text = (
        f"#!/bin/sh\nexport CYTOPLANE_HOME={shlex.quote(str(config.home))} "
        f"PYTHONPATH={shlex.quote(str(source))} PYTHONDONTWRITEBYTECODE=1\n"
        f'exec {shlex.quote(f"{venv}/bin/python")} -m infra.control "$@"\n'
    )
    services.owned(config.home / "bin", config, None, 0o755)
    services.write(config.home / "bin" / "cytoplane-node", text, config, None, 0o755)


def problems(config: Config, resolver: Callable[[Config], str]) -> dict[str, str]:
    """Part → what is wrong with it, "" if nothing is."""
    checks: dict[str, Callable[[], str]] = {
        "podman": lambda: "" if podman.Podman(config).alive() else "it doesn't answer",
        "agent": lambda: _agent(config),
        "resolver": lambda: resolver(config),
        "gateway": lambda: "" if Gateway(config).healthy() else "its admin interface doesn't answer",
    }
    running, found = supervisor.states(config), {}
    for name, check in checks.items():
        state = running.get(name, "not running")
        try:
            found[name] = check() if state == "RUNNING" else state.lower()
        except (OSError, RuntimeError) as error:
            found[name] = str(error) or type(error).__name__
    return found


def _agent(config: Config) -> str:
    """What the agent says of itself; here nobody else can be asked."""
    try:
        said = json.loads((config.run / "agent" / HEALTH_FILE).read_text())
    except (OSError, ValueError):
        return "it hasn't said anything about itself yet"
    if time.time() - said["at"] > SILENCE:
        return f"it was last heard of {time.time() - said['at']:.0f} s ago"
    if not said["enrolled"]:
        return "it isn't enrolled: make a token with `cyto planes token`, and look at logs/agent.log"
    return "; ".join(said["problems"])
