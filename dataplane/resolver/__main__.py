"""``python -m dataplane.resolver``: runs in the resolver's namespace, without rights."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

from dataplane import addresses
from dataplane.resolver import denials, lessons
from dataplane.resolver.server import serve
from dataplane.resolver.table import Table
from infra import config as installation


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # As the first process of a container it would otherwise be asked in vain.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    config = installation.load()
    own = addresses.workload(config, addresses.RESOLVER)
    table = Table(config.resolver_dir / "table.json")
    counts = denials.Denials(denials.path_in(config.resolver_dir))
    agent = lessons.Agent(lessons.path_in(config.resolver_dir))
    asyncio.run(serve(table, counts, [own.v4, own.v6], agent=agent))


if __name__ == "__main__":
    main()
