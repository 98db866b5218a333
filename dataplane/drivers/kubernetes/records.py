"""What Helm has written down about a cell's release, read without starting Helm.

Helm 3 keeps each revision in a secret: JSON, packed, in base64, in the secret's own base64. Looking is
what happens most, and an executable that starts for each look costs more than all the rest.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dataplane.drivers.interface import Rejected
from dataplane.drivers.kubernetes.api import Api, Object

#: Where records are kept: a namespace of the platform's own, where nothing of a cell can write.
RELEASES = "cytoplane-releases"
#: Statuses of a release whose last operation ended in the middle.
UNFINISHED = {"pending-install", "pending-upgrade", "pending-rollback", "uninstalling"}
_LARGEST = 32 * 2**20


@dataclass(frozen=True)
class Record:
    """A revision: its status, what it was made from and what it holds."""

    release: str
    revision: int
    status: str
    chart: tuple[str, str]
    values: dict[str, Any]
    manifest: str

    @property
    def secret(self) -> str:
        """Name of the secret that it is kept in."""
        return f"sh.helm.release.v1.{self.release}.v{self.revision}"

    def made_from(self, chart: Path, values: dict[str, Any]) -> bool:
        """Whether it was installed whole, from this version of the chart and with these values."""
        return self.status == "deployed" and self.chart == _named(chart) and self.values == values

    def documents(self) -> list[Object]:
        """The objects, the namespace first. Raises ``Rejected``."""
        try:
            found = [item for item in yaml.load_all(self.manifest, _Loader) if isinstance(item, dict)]
        except yaml.YAMLError:
            found = []
        if not any(item.get("kind") == "Namespace" for item in found):
            raise Rejected("Helm's record of the cell can't be read.")
        return sorted(found, key=lambda item: item["kind"] != "Namespace")


def newest(api: Api, release: str) -> Record | None:
    """The newest revision of a release, whatever its status; None if there is no such release."""
    found = [(_number(row), row) for row in _all(api, release)]
    if not found:
        return None
    revision, row = max(found, key=lambda pair: pair[0])
    document = _unpacked(row)
    try:
        metadata = document["chart"]["metadata"]
        return Record(
            release=release,
            revision=revision,
            status=document["info"]["status"],
            chart=(metadata["name"], metadata["version"]),
            values=document.get("config") or {},
            manifest=document.get("manifest") or "",
        )
    except (KeyError, TypeError):
        raise Rejected("Helm's record of the cell can't be read.") from None


def forget(api: Api, release: str) -> None:
    """Take away all revisions of a release of which nothing is left."""
    for row in _all(api, release):
        api.delete("v1", "Secret", RELEASES, row["metadata"]["name"])


def _all(api: Api, release: str) -> list[Object]:
    return api.list("v1", "Secret", RELEASES, labelSelector=f"owner=helm,name={release}")


def _number(row: Object) -> int:
    text = row["metadata"]["name"].rpartition(".v")[2]
    return int(text) if text.isdigit() else 0


def _unpacked(row: Object) -> Object:
    try:
        packed = base64.b64decode(base64.b64decode(row["data"]["release"]))
        # What was packed may be larger than it looks.
        text = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(packed, _LARGEST)
        return json.loads(text)
    except (KeyError, TypeError, ValueError, binascii.Error, zlib.error):
        raise Rejected("Helm's record of the cell can't be read.") from None


@cache
def _named(chart: Path) -> tuple[str, str]:
    described = yaml.safe_load((chart / "Chart.yaml").read_text())
    return described["name"], str(described["version"])


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
