"""What the node itself needs so that workloads have a network: forwarding and address translation.

Everything carries the installation's number. Settings of the machine that are changed are noted
with their earlier values, so that ``remove_host`` leaves the machine as it was.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

from dataplane import addresses
from infra.config import Config

_SYS = Path("/proc/sys")
_FORWARDING = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
#: Envoy watches the file of each cluster with an instance of its own, and ends when it gets no more.
_WATCHES, _MANY = "fs/inotify/max_user_instances", 16384


def _table(config: Config) -> str:
    return f"cytoplane_{config.net}"


def rules(config: Config) -> str:
    """The nftables text: masquerading at the uplink only, public port to the north gateway."""
    veth = f'"{config.name}v*"'
    north = addresses.workload(config, addresses.GATEWAY_NORTH)
    w4, w6 = config.workloads4, config.workloads6
    port, inner = config.apps_port, addresses.NORTH_HTTP_PORT
    return f"""
table inet {_table(config)}
delete table inet {_table(config)}
table inet {_table(config)} {{
	chain uplink {{
		type nat hook postrouting priority srcnat; policy accept;
		oifname != {veth} ip saddr {w4} ip daddr != {w4} masquerade
		oifname != {veth} ip6 saddr {w6} ip6 daddr != {w6} masquerade
	}}
	chain public {{
		type nat hook prerouting priority dstnat; policy accept;
		iifname != {veth} iifname != "lo" fib daddr type local tcp dport {port} meta nfproto ipv4 dnat ip to {north.v4}:{inner}
		iifname != {veth} iifname != "lo" fib daddr type local tcp dport {port} meta nfproto ipv6 dnat ip6 to [{north.v6}]:{inner}
	}}
	chain foreign {{
		type filter hook forward priority filter - 5; policy accept;
		iifname != {veth} oifname {veth} ct status & dnat != dnat ct state new counter drop
	}}
}}
"""


def ensure_host(config: Config) -> None:
    """Forwarding on, translation in place. Idempotent; raises ``OSError`` or ``CalledProcessError``."""
    notes = config.home / "machine.json"
    before: dict[str, str] = json.loads(notes.read_text()) if notes.exists() else {}
    wanted = {name: "1" for name in _FORWARDING if (_SYS / name).exists()}
    # A router ignores router advertisements unless it is told not to: an uplink that lives on them
    # would lose its default route.
    if "net/ipv6/conf/all/forwarding" in wanted:
        for file in (_SYS / "net/ipv6/conf").glob("*/accept_ra"):
            name = str(file.relative_to(_SYS))
            if file.parent.name not in ("all", "default", "lo") and file.read_text().strip() == "1":
                wanted[name] = "2"
    if (_SYS / _WATCHES).exists() and int((_SYS / _WATCHES).read_text()) < _MANY:
        wanted[_WATCHES] = str(_MANY)
    changed = {name: (_SYS / name).read_text().strip() for name in wanted}
    changed = {name: value for name, value in changed.items() if value != wanted[name]}
    if changed:
        config.home.mkdir(parents=True, exist_ok=True)
        notes.write_text(json.dumps({**changed, **before}))
    # accept_ra first: forwarding takes effect on it at once.
    for name in sorted(changed, key=lambda name: "forwarding" in name):
        (_SYS / name).write_text(wanted[name])
    subprocess.run(["nft", "-f", "-"], input=rules(config), text=True, check=True, capture_output=True)


def remove_host(config: Config) -> None:
    """Take back what ``ensure_host`` did."""
    subprocess.run(["nft", "delete", "table", "inet", _table(config)], check=False, capture_output=True)
    notes = config.home / "machine.json"
    if not notes.exists():
        return
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    if "cytoplane_" in tables:
        return  # another installation on this machine still forwards
    for name, value in json.loads(notes.read_text()).items():
        if (_SYS / name).exists():
            (_SYS / name).write_text(value)
    notes.unlink()


def set_platform(config: Config, addresses: Iterable[str]) -> None:
    """Addresses of pods, all nodes' together, besides the platform's own range: between all these
    nothing is tracked or rewritten. Replaces what was set before, in one step. Raises ``CalledProcessError``.
    """
    raise NotImplementedError
