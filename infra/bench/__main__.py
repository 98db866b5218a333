"""``python -m infra.bench NAME``."""

from __future__ import annotations

import importlib
import signal
import sys

NAMES = {
    "push": "git push to live, code only against new dependencies",
    "push_kube": "git push to live, on Kubernetes against the machine",
    "gateway": "requests through the north gateway against a bare Envoy",
    "service": "connections through a service address against direct ones",
    "service_kube": "connections through real kube-proxy at 5,000 services against direct ones",
    "cells_kube": "100 cells on the development cluster, one at a time against eight",
    "pods_kube": "the agent with 0, 50 and 200 pods, idle and while they come and go",
    "services": "connections at 1 to 10,000 services against direct ones and iptables rules",
    "veth": "traffic with policy and accounting against plain veths",
    "tracking": "traffic past the node's connection tracking against the same traffic tracked",
    "fresh": "a fresh Debian root to the first application live (minutes)",
    "compile": "10,000 cells compiled whole against one change",
    "change": "a changed declaration to the kernel's verdict, at 1, 100 and 1,000 cells",
    "state": "memory of desired state, in the agent and in the kernel, for each endpoint",
    "memory": "memory of the idle platform by part",
}


def main() -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in NAMES:
        print("make bench NAME=…")
        for known, what in NAMES.items():
            print(f"  {known:<12} {what}")
        return 2 if name else 0
    # Whoever ends a measurement early leaves nothing of it behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    importlib.import_module(f"infra.bench.{name}").run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
