"""Log lines as they are shown: of deployments (chunks put together) and of workloads."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from delivery.models import Deployment, LogChunk, Replica
from projects.models import Cell
from telemetry.models import LogLine
from web import ansi

#: Lines of a deployment's log in the page; the whole is one download away.
SHOWN = 3000


@dataclass
class Line:
    """A line with its number from 1. ``kind``: head, fail, err or nothing special."""

    n: int
    parts: list[ansi.Part]
    kind: str = ""
    at: str = ""
    source: str = ""
    hue: int = 0

    def as_dict(self) -> dict:
        return {
            "n": self.n,
            "parts": self.parts,
            "kind": self.kind,
            "at": self.at or None,
            "from": self.source,
            "hue": self.hue,
        }


def _kind(text: str) -> str:
    bare = text.lstrip()
    if bare.startswith("-----> Failed"):
        return "fail"
    if bare.startswith("----->"):
        return "head"
    if bare.startswith(("!", "ERROR", "error:")) or " !  " in text[:8]:
        return "fail"
    return ""


@dataclass
class Assembler:
    """Makes lines of chunks, which may end anywhere."""

    count: int = 0
    last_chunk: int = 0
    rest: str = ""
    style: ansi.Style = field(default_factory=ansi.Style)

    def feed(self, text: str) -> list[Line]:
        *whole, self.rest = (self.rest + text).split("\n")
        return [self._line(line) for line in whole]

    def finish(self) -> list[Line]:
        """The last line, if the log ends without a line feed."""
        rest, self.rest = self.rest, ""
        return [self._line(rest)] if rest else []

    def _line(self, text: str) -> Line:
        self.count += 1
        found = ansi.parts(text.rstrip("\r"), self.style)
        return Line(self.count, found, _kind("".join(part for part, _ in found)))


def read_chunks(deployment_id: int, assembler: Assembler) -> list[Line]:
    """Lines of what was written since the assembler last read."""
    lines: list[Line] = []
    rows = LogChunk.objects.filter(deployment_id=deployment_id, pk__gt=assembler.last_chunk)
    for pk, text in rows.order_by("pk").values_list("pk", "text"):
        # A chunk that doesn't end its line but is followed by another one was written as a line.
        lines += assembler.feed(text)
        assembler.last_chunk = pk
    return lines


def deployment_lines(deployment: Deployment) -> list[Line]:
    """The log so far; the newest ``SHOWN`` lines."""
    assembler = Assembler()
    lines = read_chunks(deployment.pk, assembler)
    if deployment.state in Deployment.ENDED:
        lines += assembler.finish()
    return lines[-SHOWN:]


def deployment_text(deployment: Deployment) -> str:
    """The whole log as plain text."""
    chunks = LogChunk.objects.filter(deployment=deployment).order_by("pk").values_list("text", flat=True)
    return ansi.plain("".join(chunks))


@dataclass(frozen=True)
class LogFilter:
    """What of a cell's logs is wanted; empty means all."""

    component: str = ""
    stream: str = ""
    search: str = ""
    replica: int = 0


def workload_lines(cell: Cell, wanted: LogFilter, after: int = 0, limit: int = 400) -> list[Line]:
    """Lines of the cell's workloads in order: the newest ``limit``, or those after a line's id."""
    rows = LogLine.objects.filter(cell=cell)
    if wanted.component:
        rows = rows.filter(component=wanted.component)
    if wanted.stream:
        rows = rows.filter(stream=wanted.stream)
    if wanted.search:
        rows = rows.filter(text__icontains=wanted.search)
    if wanted.replica:
        rows = rows.filter(replica=wanted.replica)
    if after:
        found = list(rows.filter(pk__gt=after).order_by("pk")[:limit])
    else:
        found = list(rows.order_by("-pk")[:limit])[::-1]
    numbers = dict(Replica.objects.filter(pk__in={row.replica for row in found}).values_list("pk", "number"))
    return [_workload_line(row, numbers.get(row.replica, row.replica)) for row in found]


def _workload_line(row: LogLine, number: int) -> Line:
    source = f"{row.component}.{number}"
    return Line(
        n=row.pk,
        parts=ansi.parts(row.text.rstrip("\r\n"), ansi.Style()),
        kind="err" if row.stream in ("stderr", "err") else "",
        at=row.at.isoformat(timespec="milliseconds"),
        source=source,
        hue=zlib.crc32(source.encode()) % 6,
    )
