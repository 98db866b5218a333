"""``python -m dataplane.registry``: the proxy on this node's loopback, beside the agent and independent of it."""

from __future__ import annotations

import logging

import uvicorn

from dataplane.client import ControlPlane
from dataplane.registry import grants, local, upstream
from dataplane.registry.proxy import Proxy
from infra import config as installation
from infra.config import Config

#: Pulls at once; a runtime asks for a few layers of each image at the same time.
_MOST = 256


def application(config: Config) -> Proxy:
    control = ControlPlane(config.agent_dir, config.control_plane)
    return Proxy(
        grants.Grants(grants.path_in(config)),
        upstream.Upstream(control),
        local.Local(config.cache / "check"),
    )


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = installation.load()
    uvicorn.run(
        application(config),
        host="127.0.0.1",
        port=config.registry_port,
        log_level="warning",
        lifespan="off",
        server_header=False,
        date_header=False,
        limit_concurrency=_MOST,
    )


if __name__ == "__main__":
    main()
