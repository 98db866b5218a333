"""Which units of a plane a change reaches, and what they are now.

A unit is a cell's part of desired state. It is made of the cell's rows and of its neighbours' facts:
what was read of those when they last changed. So the cost of a change depends on how many cells it
reaches, never on how many there are. ``Work`` is done under the plane's lock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import CharField, F, Func, Q, QuerySet, Value

from cells.boundary.around import Around
from cells.boundary.compiler import compile_cell, compile_platform
from cells.boundary.incremental import PLATFORM, as_consumer, as_provider, faces
from cells.boundary.model import Boundary, Cell
from cells.boundary.plain import restore
from dataplane.planes import documents, edge, gateways, reading, topology
from dataplane.planes.models import Plane, Unit
from infra.config import Config
from projects.models import Connection, Workload

Numbers = set[int]
#: Tenant, environment, project.
Place = tuple[int, str, str]
#: The project that a connection's key names.
_SLUG = Func(F("key"), Value("/"), Value(1), function="split_part", output_field=CharField())


@dataclass
class Made:
    """A unit as it should be; ``document`` None where the cell is gone."""

    number: int
    document: dict[str, Any] | None
    cell: Cell | None = None


class Work:
    """One rebuild of a plane."""

    def __init__(self, plane: Plane, config: Config) -> None:
        self.plane, self._config = plane, config
        self._platform = topology.platform(config)
        #: Cells by their rows, as far as they were read; None: there is no such cell any more.
        self._read: dict[int, Cell | None] = {}
        #: What units were made of until now, as far as it was asked for.
        self._facts: dict[int, Cell | None] = {}
        self._stored: dict[int, dict[str, Any] | None] = {}
        #: Cells whose surroundings are known, and those surroundings.
        self._surrounded: Numbers = set()
        self._beside: Numbers = set()

    # Everything.
    def all(self) -> list[Made]:
        """Every unit of the plane, from its rows."""
        rows = topology.rows(self.plane)
        cells = topology.declared(rows, self._config)
        around, running = Around(cells), documents.endpoints(rows, self._config)
        made = [self._compiled(cell, around, running[cell.number]) for cell in cells]
        made.append(self.platform())
        kept = set(Unit.objects.filter(plane=self.plane).values_list("number", flat=True))
        self._remember(kept | {unit.number for unit in made})
        return made + [Made(number, None) for number in kept - {unit.number for unit in made}]

    def platform(self) -> Made:
        """The unit that is no cell's."""
        self._remember({PLATFORM})
        document = _document([], compile_platform(self._platform))
        more = {"gateways": gateways.peers(self.plane)} if gateways.meet(self.plane) else {}
        return Made(PLATFORM, {**document, "edge": edge.document(), **more})

    # What a change reaches.
    def reached(self, changed: Numbers) -> list[Made]:
        """The units that depend on these cells, which are read from their rows."""
        running = self._read_all(changed - {PLATFORM})
        read = self._read
        affected = set(read)
        for number, cell in read.items():
            before = self._facts[number]
            if as_consumer(before) != as_consumer(cell):
                affected |= self._cells_of(_providers(before) | _providers(cell))
            if faces(before) != faces(cell):
                affected |= self._through_audit([c for c in (before, cell) if c is not None])
        self._remember(affected)
        around = self._around([cell for n in affected if (cell := self._now(n)) is not None])
        made = [self.platform()] if PLATFORM in changed else []
        for number in sorted(affected):
            cell = self._now(number)
            if cell is None:
                made.append(Made(number, None))
            elif number in running:
                made.append(self._compiled(cell, around, running[number]))
            else:
                kept = self._stored[number] or {"endpoints": []}
                made.append(self._compiled(cell, around, kept["endpoints"]))
        return made

    def _read_all(self, changed: Numbers) -> dict[int, list[dict[str, Any]]]:
        """Read changed cells and those whose declarations mean something else because of them."""
        running: dict[int, list[dict[str, Any]]] = {}
        pending = set(changed)
        while pending:
            rows = topology.rows(self.plane, pending)
            beside = self._surround(pending)
            known = [cell for n in beside - pending if (cell := self._now(n)) is not None]
            found = {cell.number: cell for cell in topology.declared(rows, self._config, known)}
            running |= documents.endpoints(rows, self._config)
            others: set[Place] = set()
            for number in pending:
                before, cell = self._now(number), found.get(number)
                self._read[number] = cell
                # Whoever declares a connection to it means another workload now, or one more, or none.
                if as_provider(before) != as_provider(cell):
                    others |= {_place(c) for c in (before, cell) if c is not None}
            pending = self._callers(others)
        return running

    # What is known.
    def _now(self, number: int) -> Cell | None:
        """A cell as it was read, else by its facts."""
        return self._read[number] if number in self._read else self._facts.get(number)

    def _remember(self, numbers: Numbers) -> None:
        """Load the units, with what they were made of."""
        wanted = numbers - self._stored.keys()
        if wanted:
            self._recall(Q(number__in=wanted))
            self._absent(wanted)

    def _absent(self, numbers: Numbers) -> None:
        for number in numbers - self._stored.keys():
            self._facts[number] = self._stored[number] = None

    def _recall(self, which: Q) -> Numbers:
        """Load units; their numbers."""
        rows = Unit.objects.filter(which, plane=self.plane).values_list("number", "facts", "document")
        found = {number: (facts, document) for number, facts, document in rows}
        self._know({number: facts for number, (facts, _) in found.items()})
        self._keep({number: document for number, (_, document) in found.items()})
        return set(found)

    def _surround(self, changed: Numbers) -> Numbers:
        """Load the units of changed cells, and the facts of all that may be beside them; the numbers of those."""
        facts, documents = reading.surroundings(self.plane, changed)
        self._know(facts)
        self._keep(documents)
        self._absent(changed)
        self._surrounded |= changed
        self._beside |= facts.keys()
        return set(facts)

    # What was known once stays: that is what the result is compared with.
    def _know(self, found: Mapping[int, Any]) -> None:
        for number in found.keys() - self._facts.keys():
            facts = found[number]
            self._facts[number] = restore(Cell, facts) if facts is not None else None

    def _keep(self, found: Mapping[int, Any]) -> None:
        for number, document in found.items():
            self._stored.setdefault(number, document)

    def stored(self) -> dict[int, tuple[dict[str, Any] | None, Cell | None]]:
        """Document and facts of the units that were looked at, as they are kept."""
        return {number: (document, self._facts[number]) for number, document in self._stored.items()}

    def _compiled(self, cell: Cell, around: Around, running: list[dict[str, Any]]) -> Made:
        return Made(cell.number, _document(running, compile_cell(self._platform, cell, around)), cell)

    # Neighbours.
    def _around(self, cells: list[Cell]) -> Around:
        """Cells with all others that their parts depend on."""
        numbers = {cell.number for cell in cells}
        numbers |= self._cells_of({identity for cell in cells for identity in _providers(cell)})
        if unknown := numbers - self._facts.keys():
            self._recall(Q(number__in=unknown))
        apart = [cell for cell in cells if cell.number not in self._surrounded]
        if apart:
            beside = self._calling({_place(cell) for cell in apart}).values("workload__cell__number")
            numbers |= self._recall(Q(number__in=beside) | self._beside_in_audit(apart))
        numbers |= self._beside | self._read.keys()
        return Around(cell for n in sorted(numbers) if (cell := self._now(n)) is not None)

    def _callers(self, places: set[Place]) -> Numbers:
        """Cells of the plane that have ever declared a connection to one of these: of more, never of fewer."""
        if not places:
            return set()
        return set(self._calling(places).values_list("workload__cell__number", flat=True))

    def _calling(self, places: set[Place]) -> QuerySet[Connection]:
        return Connection.objects.annotate(slug=_SLUG).filter(
            slug__in={place[2] for place in places},
            workload__cell__environment__tenant__in={place[0] for place in places},
            workload__cell__environment__name__in={place[1] for place in places},
            workload__cell__environment__plane=self.plane,
        )

    def _through_audit(self, cells: list[Cell]) -> Numbers:
        """Cells beside these which may call them, or be called by them, because one of them is in audit."""
        return set(
            Unit.objects.filter(self._beside_in_audit(cells), plane=self.plane).values_list(
                "number", flat=True
            )
        )

    @staticmethod
    def _beside_in_audit(cells: list[Cell]) -> Q:
        places = {(cell.tenant, cell.environment) for cell in cells}
        found = Q(tenant__in={place[0] for place in places}, environment__in={place[1] for place in places})
        return found if any(cell.audit for cell in cells) else found & Q(audit=True)

    def _cells_of(self, identities: set[int]) -> Numbers:
        """Whose identities they are; who was read or remembered needn't be looked up."""
        found: Numbers = set()
        left = set(identities)
        for cell in [*self._read.values(), *self._facts.values()]:
            own = left & {workload.identity for workload in cell.workloads} if cell is not None else set()
            if own and cell is not None:
                found.add(cell.number)
                left -= own
        if left:
            rows = Workload.objects.filter(identity__in=left)
            found |= set(rows.values_list("cell__number", flat=True))
        return found


def _place(cell: Cell) -> Place:
    return cell.tenant, cell.environment, cell.project


def _providers(cell: Cell | None) -> set[int]:
    """Identities that a cell declares connections to."""
    workloads = cell.workloads if cell is not None else ()
    return {c.provider for w in workloads for c in w.connections if c.external is None}


def _document(running: list[dict[str, Any]], boundary: Boundary) -> dict[str, Any]:
    return json.loads(json.dumps({"endpoints": running, "boundary": documents.encode(boundary)}))
