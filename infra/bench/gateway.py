"""Requests through the north gateway against a bare Envoy in the same namespace to the same replica."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from dataplane import addresses
from dataplane.agent.network import path_of
from infra.bench.report import show
from infra.bench.world import World, load_from

PORT = 19999
ROUNDS = 7


def _bare(address: str) -> dict:
    """The least that Envoy needs to pass requests on."""
    kind = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bare",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "site"}}]}]},
        "http_filters": [{"name": "envoy.filters.http.router",
                          "typed_config": {"@type": f"{kind}.http.router.v3.Router"}}],
    }  # fmt: skip
    endpoint = {"endpoint": {"address": {"socket_address": {"address": address, "port_value": 8080}}}}
    return {
        "static_resources": {
            "listeners": [{
                "name": "bare",
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": PORT}},
                "filter_chains": [{"filters": [
                    {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
            }],
            "clusters": [{
                "name": "site", "connect_timeout": "2s",
                "load_assignment": {"cluster_name": "site", "endpoints": [{"lb_endpoints": [endpoint]}]},
            }],
        }
    }  # fmt: skip


def run() -> None:
    with World() as world:
        world.deploy_site()
        config = world.config
        _, own, _ = world.replica("site")
        file = world.folder / "bare.json"
        file.write_text(json.dumps(_bare(own.v4)))
        envoy = Path(sys.prefix) / "bin" / "envoy"
        command = ["nsenter", f"--net={path_of(config, 'gateway')}", "--", str(envoy), "-c", str(file)]
        command += ["--concurrency", "2", "--disable-hot-restart", "--log-level", "error"]
        bare = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            time.sleep(2)
            north = addresses.workload(config, addresses.GATEWAY_NORTH).v4
            host = f"Host: bench.acme.{config.apps_domain}"
            through, plain = [], []
            for _ in range(ROUNDS):
                through.append(
                    load_from(config, "gateway", f"http://{north}:{addresses.NORTH_HTTP_PORT}/", host)
                )
                plain.append(load_from(config, "gateway", f"http://127.0.0.1:{PORT}/", host))
        finally:
            bare.terminate()
            bare.wait()
    a, b = statistics.median(through), statistics.median(plain)
    rows = [
        {"way": "A: north gateway", "requests/s": a, "of B": a / b},
        {"way": "B: bare Envoy", "requests/s": b, "of B": 1.0},
    ]
    show("gateway", rows, "wrk, 8 connections kept alive, 2 s each in turn, to one nginx replica.")
