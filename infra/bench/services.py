"""Short HTTP connections through a service address at many services, against direct ones and against
iptables rules of the shape that kube-proxy writes.

Two pairs of namespaces with the same server: one on the platform's programs, one on plain veths with a
router between them, in whose namespace the rules are. Of the rules the first, the last and none are met.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bpf.tables import Service
from infra.bench import pair as pairs
from infra.bench.report import show

SIZES = (1, 100, 1000, 5000, 10000)
ROUNDS, SECONDS = 3, 2


class Router:
    """client – router – server on plain veths; ``rules`` are the router's."""

    CLIENT, SERVER = "192.0.2.2", "198.51.100.2"

    def __init__(self, traffic: Path) -> None:
        self.names = {part: f"cybench-{part}" for part in ("client", "router", "server")}
        self._traffic = traffic
        self._process: subprocess.Popen[str] | None = None

    def path(self, part: str) -> Path:
        return Path("/run/netns") / self.names[part]

    def open(self) -> None:
        for name in self.names.values():
            subprocess.run(["ip", "netns", "add", name], check=True)
        for part, network in (("client", self.CLIENT), ("server", self.SERVER)):
            near = network.rpartition(".")[0] + ".1"
            _ip(self.names["router"], f"link add {part} type veth peer name eth0 netns {self.names[part]}")
            _ip(self.names["router"], f"address add {near}/24 dev {part}", f"link set {part} up")
            _ip(self.names[part], "link set lo up", f"address add {network}/24 dev eth0", "link set eth0 up")
            _ip(self.names[part], f"route add default via {near}")
            pairs.tune(self.path(part))
        self._in_router("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self._process = pairs.serve(self._traffic, self.path("server"))

    def _in_router(self, *command: str, text: str | None = None) -> None:
        whole = pairs.inside(self.path("router"), *command)
        subprocess.run(whole, input=text, text=True, check=True, capture_output=True)

    def rules(self, count: int) -> None:
        """Services 10.96.0.1 and up: chains as kube-proxy 1.20 makes them, all for the one server."""
        lines = ["*nat", ":KUBE-SERVICES - [0:0]", ":KUBE-MARK-MASQ - [0:0]", ":KUBE-POSTROUTING - [0:0]"]
        lines += [f":KUBE-SVC-{n} - [0:0]" for n in range(count)] + [
            f":KUBE-SEP-{n} - [0:0]" for n in range(count)
        ]
        lines += [
            "-A PREROUTING -m comment --comment services -j KUBE-SERVICES",
            "-A POSTROUTING -m comment --comment postrouting -j KUBE-POSTROUTING",
            "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
            "-A KUBE-POSTROUTING -j MASQUERADE",
            "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
        ]
        for n in range(count):
            address = service_of(n)
            match = f'-d {address}/32 -p tcp -m comment --comment "bench/s{n} cluster IP" -m tcp --dport {pairs.PORT}'
            lines += [
                f"-A KUBE-SERVICES ! -s 192.0.2.0/24 {match} -j KUBE-MARK-MASQ",
                f"-A KUBE-SERVICES {match} -j KUBE-SVC-{n}",
                f'-A KUBE-SVC-{n} -m comment --comment "bench/s{n}" -j KUBE-SEP-{n}',
                f'-A KUBE-SEP-{n} -s {self.SERVER}/32 -m comment --comment "bench/s{n}" -j KUBE-MARK-MASQ',
                f'-A KUBE-SEP-{n} -p tcp -m comment --comment "bench/s{n}" -m tcp -j DNAT '
                f"--to-destination {self.SERVER}:{pairs.PORT}",
            ]
        self._in_router("iptables-legacy-restore", text="\n".join([*lines, "COMMIT", ""]))

    def no_rules(self) -> None:
        self._in_router("iptables-legacy", "-t", "nat", "-F")
        self._in_router("iptables-legacy", "-t", "nat", "-X")

    def wrk(self, address: str) -> float:
        return pairs.wrk(self.path("client"), address, SECONDS)

    def close(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
        for name in self.names.values():
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def service_of(number: int) -> str:
    return f"10.96.{number // 250}.{number % 250 + 1}"


def _ip(namespace: str, *lines: str) -> None:
    command = ["ip", "-n", namespace, "-batch", "-"]
    subprocess.run(command, input="\n".join(lines) + "\n", text=True, check=True)


@contextlib.contextmanager
def router(traffic: Path) -> Iterator[Router]:
    made = Router(traffic)
    made.close()
    try:
        made.open()
        yield made
    finally:
        made.close()


def run() -> None:
    rows = []
    with pairs.pair() as two, router(two.traffic) as plain:
        last: dict[str, float] = {}
        for size in SIZES:
            services = [
                Service(0, str(two.config.services4[3000 + n]), pairs.PORT, 6, ((two.server4, pairs.PORT),))
                for n in range(size)
            ]
            two.tables.set_services(services)
            plain.rules(size)
            found: dict[str, list[float]] = {}
            for _ in range(ROUNDS):
                for way, address in (("service", services[-1].address), ("direct", two.server4)):
                    found.setdefault(way, []).append(two.wrk(address, SECONDS))
                for way, address in (("first", service_of(0)), ("last", service_of(size - 1))):
                    found.setdefault(way, []).append(plain.wrk(address))
            plain.no_rules()
            for _ in range(ROUNDS):
                found.setdefault("plain", []).append(plain.wrk(Router.SERVER))
            last = {way: statistics.median(values) for way, values in found.items()}
            ratio = statistics.median(a / b for a, b in zip(found["service"], found["direct"], strict=True))
            rows.append(
                {
                    "services": size,
                    "A: service": last["service"],
                    "B: direct": last["direct"],
                    "A of B": ratio,
                    "iptables first": last["first"],
                    "iptables last": last["last"],
                    "plain, no rules": last["plain"],
                    "A of iptables last": last["service"] / last["last"],
                }
            )
    show(
        "services",
        rows,
        f"Connections/s: wrk with Connection: close, 4 at a time, medians of {ROUNDS} x {SECONDS} s in turn.",
    )
