"""``python -m dataplane.builder``: the builder's launcher, as root; builds themselves have no rights."""

from __future__ import annotations

import logging
import shutil
import threading

from dataplane import addresses
from dataplane.builder.work import Builder
from infra import config as installation


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = installation.load()
    work = config.builder_dir / "work"
    # What a build that was killed left behind; its build is given out again.
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o711, parents=True)
    builder = Builder(config)
    loops = [
        threading.Thread(target=builder.loop, args=(slot,), name=f"slot {slot}")
        for slot in range(addresses.BUILD_SLOTS)
    ]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()


if __name__ == "__main__":
    main()
