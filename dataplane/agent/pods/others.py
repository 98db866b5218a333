"""What the plane's nodes say of their pods: listed, then watched, and kept on disk for when nobody answers."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from dataplane.agent.pods.cluster import Cluster, ClusterError, Expired
from dataplane.agent.pods.placements import Said
from dataplane.client import write_private

log = logging.getLogger("cytoplane.agent")
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0


class Others:
    """Placements by every node but this one. ``changed`` is called after each change."""

    def __init__(self, cluster: Cluster, own: str, file: Path, changed: Callable[[], None]) -> None:
        self._cluster, self._own, self._file, self._changed = cluster, own, file, changed
        self._lock = threading.Lock()
        self._said: dict[str, Said] = {}
        self._texts: dict[str, str] = {}
        #: Why they aren't followed at present, as a sentence.
        self.problem = ""
        self._restore()

    def said(self) -> list[Said]:
        with self._lock:
            return list(self._said.values())

    @property
    def unheard(self) -> bool:
        """Whether what this node itself has published isn't there, as far as is known."""
        with self._lock:
            return not self.problem and f"placements-{self._own}" not in self._texts

    def start(self) -> None:
        threading.Thread(target=self._run, name="placements", daemon=True).start()

    def _run(self) -> None:
        pause, version = FIRST_PAUSE, ""
        while True:
            try:
                if not version:
                    texts, version = self._cluster.placements()
                    self._take(texts, whole=True)
                self.problem = ""
                pause = FIRST_PAUSE
                for name, text, reached in self._cluster.watch(version):
                    if name:
                        self._take({name: text})
                    version = reached
            except Expired:
                version = ""
            except Exception as error:  # whatever it was, they must be followed again
                if not isinstance(error, ClusterError):
                    log.exception("following placements failed")
                    version = ""
                self.problem = f"where pods of other nodes are isn't followed: {error}"
                time.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    def _take(self, texts: dict[str, str | None] | dict[str, str], *, whole: bool = False) -> None:
        """What is damaged counts as nothing said."""
        with self._lock:
            before = dict(self._texts)
            if whole:
                self._texts.clear()
            for name, text in texts.items():
                if text is None:
                    self._texts.pop(name, None)
                else:
                    self._texts[name] = text
            if self._texts == before:
                return
            self._said = self._read(self._texts)
            write_private(self._file, json.dumps(self._texts, sort_keys=True).encode())
        self._changed()

    def _read(self, texts: dict[str, str]) -> dict[str, Said]:
        found = {}
        for name, text in texts.items():
            try:
                said = Said.read(json.loads(text))
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
                log.warning("%s can't be read: %s", name, error)
                continue
            # A node speaks under its own name only, and nobody else speaks for this one.
            if name == f"placements-{said.node}" and said.node != self._own:
                found[said.node] = said
        return found

    def _restore(self) -> None:
        try:
            texts = json.loads(self._file.read_text())
            self._texts = {str(name): str(text) for name, text in texts.items()}
        except (OSError, ValueError, AttributeError):
            return
        self._said = self._read(self._texts)
