"""What the node itself needs so that workloads have a network: forwarding and address translation.

Everything carries the installation's number. Settings of the machine that are changed are noted
with their earlier values, so that ``remove_host`` leaves the machine as it was.
"""

from __future__ import annotations

import contextlib
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
    """The nftables text: masquerading at the uplink only, public port to the north gateway, and nothing
    of the node's connection tracking between addresses of the platform.

    Applied again it replaces every rule in one step; addresses in the sets stay.
    """
    veth = f'"{config.name}v*"'
    north = addresses.workload(config, addresses.GATEWAY_NORTH)
    w4, w6 = config.workloads4, config.workloads6
    port, inner = config.apps_port, addresses.NORTH_HTTP_PORT
    table = f"inet {_table(config)}"
    chains = {
        "direct": "type filter hook prerouting priority -450",
        "uplink": "type nat hook postrouting priority srcnat",
        "public": "type nat hook prerouting priority dstnat",
        "foreign": "type filter hook forward priority filter - 5",
    }
    return "\n".join(
        [
            f"add table {table}",
            f"add set {table} platform4 {{ type ipv4_addr; flags interval; auto-merge; }}",
            f"add set {table} platform6 {{ type ipv6_addr; flags interval; auto-merge; }}",
            f"add element {table} platform4 {{ {w4} }}",
            f"add element {table} platform6 {{ {w6} }}",
            *(f"add chain {table} {name} {{ {hook}; policy accept; }}" for name, hook in chains.items()),
            *(f"flush chain {table} {name}" for name in chains),
            f"""
table {table} {{
	chain direct {{
{_direct(config, veth)}
	}}
	chain uplink {{
		oifname != {veth} ip saddr {w4} ip daddr != @platform4 masquerade
		oifname != {veth} ip6 saddr {w6} ip6 daddr != @platform6 masquerade
	}}
	chain public {{
{_between(config, veth, north)}
		iifname != {veth} iifname != "lo" fib daddr type local tcp dport {port} meta nfproto ipv4 dnat ip to {north.v4}:{inner}
		iifname != {veth} iifname != "lo" fib daddr type local tcp dport {port} meta nfproto ipv6 dnat ip6 to [{north.v6}]:{inner}
	}}
	chain foreign {{
		iifname != {veth} oifname {veth} ct status & dnat != dnat ct state new counter drop
	}}
}}
""",
        ]
    )


def _between(config: Config, veth: str, north: addresses.Pair) -> str:
    """What other nodes' gateways say to this node's arrives there."""
    if config.engine != "kubernetes":
        return ""
    here = f'iifname != {veth} iifname != "lo" fib daddr type local tcp dport {addresses.GATEWAYS_PORT}'
    return f"""		{here} meta nfproto ipv4 dnat ip to {north.v4}:{addresses.GATEWAYS_PORT}
		{here} meta nfproto ipv6 dnat ip6 to [{north.v6}]:{addresses.GATEWAYS_PORT}"""


def _direct(config: Config, veth: str) -> str:
    """Which packets the node doesn't track: both ends are the platform's. The kernel programs judge them,
    and remember their flows themselves.

    Before reassembly (-400), which would be for tracking alone. On a machine such packets come from our
    own interfaces; anything else with such addresses stays in sight of the chain `foreign`. On Kubernetes
    they come from interfaces of any name.
    """
    if config.engine == "kubernetes":
        return """		ip saddr @platform4 ip daddr @platform4 notrack
		ip6 saddr @platform6 ip6 daddr @platform6 notrack"""
    return f"""		iifname {veth} ip saddr {config.workloads4} ip daddr {config.workloads4} notrack
		iifname {veth} ip6 saddr {config.workloads6} ip6 daddr {config.workloads6} notrack"""


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


def remove_rules(config: Config) -> None:
    """Take away the installation's rules, if there are any. Raises ``CalledProcessError``."""
    table = f"table inet {_table(config)}"
    gone = f"{table}\ndelete {table}"
    subprocess.run(["nft", "-f", "-"], input=gone, text=True, check=True, capture_output=True)


def remove_host(config: Config) -> None:
    """Take back what ``ensure_host`` did."""
    with contextlib.suppress(subprocess.CalledProcessError):
        remove_rules(config)
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


def set_platform(config: Config, pods: Iterable[str]) -> None:
    """Addresses of pods, all nodes' together, besides the platform's own range: between all these nothing
    is tracked or rewritten. Replaces what was set before, in one step. Raises ``CalledProcessError``."""
    wanted: dict[int, list[str]] = {4: [str(config.workloads4)], 6: [str(config.workloads6)]}
    for text in sorted(set(pods)):
        wanted[6 if ":" in text else 4].append(text)
    lines = []
    for family, elements in wanted.items():
        place = f"inet {_table(config)} platform{family}"
        lines += [f"flush set {place}", f"add element {place} {{ {', '.join(elements)} }}"]
    subprocess.run(["nft", "-f", "-"], input="\n".join(lines), text=True, check=True, capture_output=True)
