"""What a picture of a cell is made of, before anybody decides where it is drawn.

Plain values, filled by ``web.queries_cell`` from rows and by tests by hand; laid out by
``web.layout``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime

#: Sides of a cell, as DESIGN calls them: internet, external hosts, callers, providers.
NORTH, SOUTH, WEST, EAST, INSIDE = "north", "south", "west", "east", "inside"


@dataclass(frozen=True)
class End:
    """One end of an edge. ``stranger``: it has no business here (another tenant, unknown address)."""

    key: str
    name: str
    side: str
    kind: str = "service"
    where: str = ""
    url: str = ""
    stranger: bool = False
    #: What one asks about it by (``component``, ``project/component@environment``, host, address);
    #: empty for what isn't the reader's to ask about.
    ref: str = ""


@dataclass(frozen=True)
class Node:
    """A component as it is drawn: its end, its state as tone and word, and a note below."""

    end: End
    tone: str
    word: str
    note: str = ""


@dataclass
class EdgeView:
    """Everything known about one edge: what is declared, what flowed, what was refused or would have been.

    ``rate`` is packets each second over the last minutes, ``points`` packets for each minute, oldest
    first. ``sentence`` says why.
    """

    source: End
    destination: End
    port: int
    protocol: str
    denied: bool = False
    #: It passes for the record: nothing declares it, and the project is in audit.
    audited: bool = False
    declared: bool = False
    via_gateway: bool = False
    rate: float = 0.0
    packets: int = 0
    bytes: int = 0
    last_at: datetime | None = None
    reason: str = ""
    rule: int = 0
    sentence: str = ""
    #: Where the verdict is explained, with the declaration that would change it; empty if nowhere.
    why_url: str = ""
    points: list[int] = field(default_factory=list)

    @property
    def key(self) -> str:
        """Stable name of the edge within its cell, safe in HTML ids and attributes."""
        ends = f"{self.source.key}>{self.destination.key}:{self.port}/{self.protocol}"
        text = f"{ends}:{self.verdict}:{self.reason}"
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def verdict(self) -> str:
        return "denied" if self.denied else "audited" if self.audited else "allowed"

    @property
    def title(self) -> str:
        """The edge in a line: who calls whom, the verdict and why."""
        line = f"{self.source.name} → {self.destination.name} :{self.port}/{self.protocol} · {self.verdict}"
        return f"{line} · {self.sentence}" if self.sentence else line

    @property
    def style(self) -> str:
        """Class names of the drawn edge."""
        if self.denied:
            return "denied"
        flow = "quiet" if self.rate <= 0 else "flowing fast" if self.rate > 50 else "flowing"
        return f"audited {flow}" if self.audited else flow


@dataclass
class Cell:
    """A cell ready to be drawn."""

    name: str
    nodes: list[Node]
    edges: list[EdgeView]

    @property
    def ends(self) -> list[End]:
        """Ends outside the cell, each once, in order of appearance."""
        found: dict[str, End] = {}
        for edge in self.edges:
            for end in (edge.source, edge.destination):
                if end.side != INSIDE:
                    found.setdefault(end.key, end)
        return list(found.values())

    @property
    def shape(self) -> str:
        """Changes if and only if something has to be drawn in another place."""
        keys = sorted(
            [n.end.key for n in self.nodes] + [e.key for e in self.edges] + [e.key for e in self.ends]
        )
        return hashlib.sha256("|".join(keys).encode()).hexdigest()[:12]
