"""``python -m dataplane.controller``: in a pod with a service account, or with a kubeconfig in its folder."""

from __future__ import annotations

import logging
import signal
import sys

from dataplane.controller.controller import Controller
from infra import config as installation


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    controller = Controller(installation.load())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: controller.stop())
    controller.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
