"""Writing Envoy's files so that it never reads half of one, and knowing when it has read them."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import time
from pathlib import Path
from typing import Any

from dataplane.gateway import between, envoy
from infra.config import Config

_CLUSTERS = "cluster_manager.cds.version_text"
_CLUSTER_SECONDS = 2.0


def write(path: Path, resources: list[dict[str, Any]], *, again: bool = False) -> str:
    """Replace a file of resources if it differs, or anyhow; the version that is in it now."""
    body = json.dumps(resources, sort_keys=True)
    version = hashlib.sha256(body.encode()).hexdigest()[:16]
    text = json.dumps({"version_info": version, "resources": resources})
    if not again and path.exists() and path.read_text() == text:
        return version
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.chmod(0o644)
    temporary.rename(path)
    return version


def _serving(entry: dict[str, Any], serving: set[str] | None) -> tuple[list[list[Any]], list[int]]:
    """Backends of a cluster that may get traffic, and their weights."""
    weights = entry.get("weights") or [1] * len(entry["backends"])
    pairs = zip(entry["backends"], weights, strict=True)
    kept = [(b, weight) for b, weight in pairs if serving is None or b[0] in serving]
    return [b for b, _ in kept], [weight for _, weight in kept]


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("admin", timeout=2)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Gateway:
    """Envoy's files of an installation."""

    def __init__(self, config: Config) -> None:
        self._config, self._folder = config, config.gateway_dir
        #: What Envoy hadn't taken over when somebody last gave up waiting.
        self._overdue: set[str] = set()
        #: What the files were made of, where that has a stamp, and what Envoy must report of them.
        self._written: tuple[tuple[bytes, frozenset[str] | None, bool], dict[str, str]] | None = None

    def _made_of(
        self, stamp: bytes | None, serving: set[str] | None
    ) -> tuple[bytes, frozenset[str] | None, bool] | None:
        known = serving if serving is None else frozenset(serving)
        return None if stamp is None else (stamp, known, (self._folder / between.IDENTITY).exists())

    def unchanged(self, stamp: bytes | None, serving: set[str] | None) -> dict[str, str] | None:
        """What ``apply`` would answer, if it would write what is written; None if nobody knows."""
        written = self._written
        if written is None or self._overdue or written[0] != self._made_of(stamp, serving):
            return None
        return written[1]

    def apply(
        self, gateway: dict[str, Any], serving: set[str] | None = None, stamp: bytes | None = None
    ) -> dict[str, str]:
        """Write everything; stat name → version that Envoy must report for each file.

        ``stamp``: another value where ``gateway`` is another, if that is known. ``serving``: ids of replicas that may get traffic; None for all. Backends first and routes
        last: nothing ever points to what isn't there yet. Envoy reads every file of a folder when one
        of them is replaced, so clusters are waited for before routes are written. A file that was
        overdue is replaced even if it says the same: Envoy doesn't come back by itself to one that it
        couldn't use.
        """
        overdue, self._overdue = self._overdue, set()
        made_of, self._written = self._made_of(stamp, serving), None
        gateway = between.split(gateway, serving, (self._folder / between.IDENTITY).exists())
        backends = {entry["name"]: _serving(entry, serving) for entry in gateway["clusters"]}
        expected = {}

        def put(stat: str, path: Path, resources: list[dict[str, Any]]) -> None:
            expected[stat] = write(path, resources, again=stat in overdue)

        folder = self._folder / "eds"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        for entry in gateway["clusters"]:
            name, more = entry["name"], between.endpoints(entry)
            made = envoy.assignment(name, *backends[name], more)
            put(f"cluster.{name}.version_text", folder / f"{name}.json", [made])
        clusters = between.clusters(self._config, gateway, envoy.clusters(self._config, gateway))
        put(_CLUSTERS, self._folder / "cds.json", clusters)
        self._await_clusters(expected)
        routes = envoy.north_routes(gateway, self._config.apps_port)
        put("http.north.rds.north.version_text", self._folder / "rds.json", [routes])
        listeners = envoy.listeners(self._config, gateway) + between.listeners(self._config, gateway)
        put("listener_manager.lds.version_text", self._folder / "lds.json", listeners)
        for file in folder.glob("*.json"):
            if file.stem not in backends:
                file.unlink()
        if made_of is not None:
            self._written = made_of, expected
        return expected

    def _await_clusters(self, expected: dict[str, str]) -> None:
        """Give Envoy a moment for the clusters; one that isn't there reads all files when it starts."""
        end = time.monotonic() + _CLUSTER_SECONDS
        while time.monotonic() < end:
            try:
                if self._versions().get(_CLUSTERS) == expected[_CLUSTERS]:
                    return
            except OSError:
                return
            time.sleep(0.01)

    def start_files(self) -> None:
        """What Envoy needs to start before there is a snapshot."""
        self._folder.mkdir(parents=True, exist_ok=True)
        bootstrap = self._folder / "bootstrap.json"
        bootstrap.write_text(json.dumps(envoy.bootstrap(self._config), indent=1))
        bootstrap.chmod(0o644)
        if not (self._folder / "lds.json").exists():
            self.apply({"routes": [], "clusters": [], "listeners": [], "doors": []})

    def pending(self, expected: dict[str, str]) -> list[str]:
        """Files that Envoy hasn't taken over yet; all of them if it doesn't answer."""
        try:
            reported = self._versions()
        except OSError:
            return sorted(expected)
        return sorted(name for name, version in expected.items() if reported.get(name) != version)

    def wait(self, expected: dict[str, str], seconds: float) -> list[str]:
        """Wait until Envoy has taken everything over; what is still missing afterwards."""
        end = time.monotonic() + seconds
        while (missing := self.pending(expected)) and time.monotonic() < end:
            time.sleep(0.02)
        self._overdue = set(missing)
        return missing

    def _versions(self) -> dict[str, str]:
        text = self.admin("GET", "/stats?filter=version_text$")
        pairs = (line.partition(": ") for line in text.splitlines())
        return {name: value.strip().strip('"') for name, _, value in pairs}

    def admin(self, method: str, path: str) -> str:
        """Ask Envoy's admin interface; raises ``OSError``."""
        connection = _UnixConnection(self._folder / "admin.sock")
        try:
            connection.request(method, path)
            return connection.getresponse().read().decode(errors="replace")
        except http.client.HTTPException as error:
            raise OSError(f"Envoy's admin interface: {error}") from error
        finally:
            connection.close()

    def healthy(self) -> bool:
        """Whether Envoy is live."""
        try:
            return "LIVE" in self.admin("GET", "/ready")
        except OSError:
            return False
