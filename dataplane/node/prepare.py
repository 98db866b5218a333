"""``python -m dataplane.node.prepare``: makes a node ready for its agent, as the first container of its pod.

The two namespaces that gateway and resolver live in are mounts. They must be the node's, not a container's:
so they outlive every container, and a gateway that is started anew finds the same one. Only a privileged
container may make mounts for others (Kubernetes' rule for ``Bidirectional``), so this is the one that is
privileged, for a second; the agent finds them and has no need to be.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dataplane.agent.network import LASTING, full_name, path_of
from infra import config as installation
from infra import services
from infra.config import Config

_BPF = Path("/sys/fs/bpf")
#: Of f_type in statfs(2); ``linux/magic.h``.
_BPF_MAGIC = "cafe4a11"


def _is_namespace(path: Path) -> bool:
    """Whether a namespace is mounted there; a file that only marks the place of one isn't."""
    return path.exists() and os.path.ismount(path)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[:300]}")


def namespaces(config: Config) -> None:
    """Make what isn't there; what is there is somebody's who runs. Raises ``RuntimeError``."""
    for name in LASTING:
        path = path_of(config, name)
        if not _is_namespace(path):
            path.unlink(missing_ok=True)
            _run("ip", "netns", "add", full_name(config, name))


def folders(config: Config) -> None:
    """The state of a node: every part sees what is its own, as on a machine."""
    services.owned(config.home, config, None, 0o755)
    services.owned(config.run, config, None, 0o755)
    services.owned(config.run / "agent", config, None, 0o700)
    services.owned(config.agent_dir, config, None, 0o700)
    services.owned(config.gateway_dir, config, "-gw", 0o700)
    services.owned(config.resolver_dir, config, None, 0o750, "-dns")


def bpf_file_system() -> None:
    """Where programs and maps are pinned. Raises ``RuntimeError``."""
    found = subprocess.run(
        ["stat", "--file-system", "--format=%t", str(_BPF)], capture_output=True, text=True, check=False
    )
    if found.stdout.strip() != _BPF_MAGIC:
        _run("mount", "-t", "bpf", "bpf", str(_BPF))


def main() -> int:
    config = installation.load()
    try:
        folders(config)
        bpf_file_system()
        namespaces(config)
    except (OSError, RuntimeError, KeyError) as error:
        print(f"the node can't be prepared: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
