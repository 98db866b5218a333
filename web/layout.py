"""Where everything in the picture of a cell is drawn: a pure function from a cell to shapes.

Two drawings are made of each cell, one for wide windows and one for phones; the style sheet shows one
of them. Units are SVG user units (pixels at full size). The flow is downwards: what the internet
calls is on top, what is called by it below.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from web.geometry import Box, Point, Route, Wire, place_labels
from web.picture import EAST, INSIDE, NORTH, SOUTH, WEST, Cell, EdgeView, End, Node

GATE_HEIGHT = 22
#: Ends drawn on one side; the table below the picture has all of them.
MOST_OUTSIDE = 6


@dataclass
class DrawnNode:
    node: Node
    box: Box


@dataclass
class DrawnEnd:
    end: End
    box: Box


@dataclass
class Gate:
    side: str
    box: Box
    open: bool


@dataclass
class Drawing:
    """Shapes with their places. ``style`` is ``wide`` or ``narrow``."""

    style: str
    width: float
    height: float
    membrane: Box
    nodes: list[DrawnNode] = field(default_factory=list)
    ends: list[DrawnEnd] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    hidden: int = 0


def ranks(nodes: list[Node], edges: list[EdgeView]) -> list[list[Node]]:
    """Components in rows: who is called from outside first, then by the longest way from there.

    Circles are cut where they close, so any graph gives rows.
    """
    by_key = {node.end.key: node for node in nodes}
    calls: dict[str, set[str]] = {key: set() for key in by_key}
    for edge in edges:
        if (
            edge.source.key in by_key
            and edge.destination.key in by_key
            and edge.source.key != edge.destination.key
        ):
            calls[edge.source.key].add(edge.destination.key)
    called = {key for targets in calls.values() for key in targets}
    entered = {e.destination.key for e in edges if e.source.side in (NORTH, WEST) and not e.denied}
    depth: dict[str, int] = {}

    def visit(key: str, level: int, above: frozenset[str]) -> None:
        if key in above or depth.get(key, -1) >= level:
            return
        depth[key] = level
        for target in sorted(calls[key]):
            visit(target, level + 1, above | {key})

    for key in by_key:
        if key in entered or key not in called:
            visit(key, 0, frozenset())
    for key in by_key:
        visit(key, depth.get(key, 0), frozenset())
    rows: dict[int, list[Node]] = {}
    for key, node in by_key.items():
        rows.setdefault(depth[key], []).append(node)
    return [_ordered(rows[level], calls, rows.get(level - 1, [])) for level in sorted(rows)]


def _ordered(row: list[Node], calls: dict[str, set[str]], above: list[Node]) -> list[Node]:
    """A row in the order of its callers, which keeps wires from crossing."""
    place = {node.end.key: i for i, node in enumerate(above)}

    def weight(node: Node) -> tuple[float, str]:
        callers = [place[k] for k in place if node.end.key in calls[k]]
        return (sum(callers) / len(callers) if callers else len(place) / 2, node.end.name)

    return sorted(row, key=weight)


def _sides(cell: Cell) -> tuple[dict[str, list[End]], int]:
    sides: dict[str, list[End]] = {NORTH: [], SOUTH: [], WEST: [], EAST: []}
    hidden = 0
    # Denied ends are what somebody comes to see, so they are the last to be left out.
    denied = {e.source.key for e in cell.edges if e.denied} | {
        e.destination.key for e in cell.edges if e.denied
    }
    for end in sorted(cell.ends, key=lambda e: (e.key not in denied, e.name)):
        if len(sides[end.side]) < MOST_OUTSIDE:
            sides[end.side].append(end)
        else:
            hidden += 1
    return sides, hidden


def wide(cell: Cell) -> Drawing:
    """The drawing for windows: gates on the four sides, the world around them."""
    node_w, node_h, gap_x, gap_y, end_w, end_h = 180, 68, 56, 76, 168, 46
    sides, hidden = _sides(cell)
    width = 1320.0
    left: float = end_w + 100 if sides[WEST] else 40
    right: float = width - (end_w + 100) if sides[EAST] else width - 40
    inner = right - left - 124
    per_row = max(1, int((inner + gap_x) // (node_w + gap_x)))
    rows = [
        row[i : i + per_row] for row in ranks(cell.nodes, cell.edges) for i in range(0, len(row), per_row)
    ]
    # A small cell is drawn small, in the middle of the picture.
    longest = max([len(row) for row in rows] or [1])
    spare = (right - left) - max(620.0, longest * (node_w + gap_x) + 200)
    if spare > 0:
        left, right = left + spare / 2, right - spare / 2
    top = (8 + end_h + 40) if sides[NORTH] else 28.0
    content = len(rows) * node_h + max(0, len(rows) - 1) * gap_y
    outside = max(len(sides[WEST]), len(sides[EAST])) * (end_h + 20)
    height_inside = max(content + 128, outside + 20, 220)
    membrane = Box(left, top, right - left, height_inside)
    drawing = Drawing("wide", width, 0, membrane, hidden=hidden)
    y = top + (height_inside - content) / 2
    for row in rows:
        row_w = len(row) * node_w + (len(row) - 1) * gap_x
        x = membrane.cx - row_w / 2
        for node in row:
            drawing.nodes.append(DrawnNode(node, Box(x, y, node_w, node_h)))
            x += node_w + gap_x
        y += node_h + gap_y
    bottom = membrane.bottom
    _row_of_ends(drawing, sides[NORTH], 8, end_w, end_h, membrane.cx)
    below = _row_of_ends(drawing, sides[SOUTH], bottom + 44, end_w, end_h, membrane.cx)
    _column_of_ends(drawing, sides[WEST], max(8, left - 140 - end_w), end_w, end_h, membrane.cy)
    _column_of_ends(drawing, sides[EAST], min(width - 8 - end_w, right + 140), end_w, end_h, membrane.cy)
    drawing.height = max(bottom + 28, below + 8)
    crossings = _crossings(cell)
    for side, at in (
        (NORTH, Point(membrane.cx, top)),
        (SOUTH, Point(membrane.cx, bottom)),
        (WEST, Point(left, membrane.cy)),
        (EAST, Point(right, membrane.cy)),
    ):
        _gate(drawing, side, at, crossings[side])
    _draw_wires(drawing, cell, crossings)
    return drawing


def narrow(cell: Cell) -> Drawing:
    """The drawing for phones: one column; callers above the cell, what is called below it."""
    node_w, node_h, gap_y, end_w, end_h = 216, 68, 56, 172, 46
    sides, hidden = _sides(cell)
    width = 380.0
    above, beneath = sides[NORTH] + sides[WEST], sides[SOUTH] + sides[EAST]
    top = 8.0
    drawing = Drawing("narrow", width, 0, Box(0, 0, 0, 0), hidden=hidden)
    for i in range(0, len(above), 2):
        top = _row_of_ends(drawing, above[i : i + 2], top, end_w, end_h, width / 2, gap=12) + 12
    top = top + 28 if above else 28.0
    nodes = [node for row in ranks(cell.nodes, cell.edges) for node in row]
    content = len(nodes) * node_h + max(0, len(nodes) - 1) * gap_y
    membrane = Box(8, top, width - 16, content + 120 if nodes else 160)
    drawing.membrane = membrane
    y = top + 60
    for node in nodes:
        drawing.nodes.append(DrawnNode(node, Box((width - node_w) / 2, y, node_w, node_h)))
        y += node_h + gap_y
    bottom = membrane.bottom
    below = bottom + 40
    for i in range(0, len(beneath), 2):
        below = _row_of_ends(drawing, beneath[i : i + 2], below, end_w, end_h, width / 2, gap=12) + 12
    drawing.height = below if beneath else bottom + 24
    crossings = _crossings(cell)
    for side, at in (
        (NORTH, Point(120, top)),
        (WEST, Point(260, top)),
        (SOUTH, Point(120, bottom)),
        (EAST, Point(260, bottom)),
    ):
        _gate(drawing, side, at, crossings[side], upright=False)
    _draw_wires(drawing, cell, crossings)
    return drawing


def _row_of_ends(
    drawing: Drawing, ends: list[End], y: float, w: float, h: float, centre: float, gap: float = 20
) -> float:
    """Draw ends beside each other; the lower edge of what was drawn (``y`` if nothing was)."""
    x = centre - (len(ends) * w + (len(ends) - 1) * gap) / 2
    for end in ends:
        drawing.ends.append(DrawnEnd(end, Box(x, y, w, h)))
        x += w + gap
    return y + h if ends else y


def _column_of_ends(drawing: Drawing, ends: list[End], x: float, w: float, h: float, centre: float) -> None:
    y = centre - (len(ends) * h + (len(ends) - 1) * 20) / 2
    for end in ends:
        drawing.ends.append(DrawnEnd(end, Box(x, y, w, h)))
        y += h + 20


def _side_of(edge: EdgeView) -> str:
    """The gate that an edge passes; ``inside`` for none."""
    if edge.source.side != INSIDE:
        return edge.source.side
    return edge.destination.side


def _crossings(cell: Cell) -> dict[str, list[EdgeView]]:
    found: dict[str, list[EdgeView]] = {NORTH: [], SOUTH: [], WEST: [], EAST: [], INSIDE: []}
    for edge in cell.edges:
        found[_side_of(edge)].append(edge)
    return found


def _gate(drawing: Drawing, side: str, at: Point, edges: list[EdgeView], upright: bool = True) -> None:
    is_open = any(not edge.denied for edge in edges)
    w, h = (54.0 if upright and side in (WEST, EAST) else 60.0), GATE_HEIGHT
    drawing.gates.append(Gate(side, Box(at.x - w / 2, at.y - h / 2, w, h), is_open))


def _crossing(gate: Box, spread: float, vertical: bool) -> Point:
    """Where a wire crosses a gate, ``spread`` places from its middle."""
    if vertical:
        return Point(gate.cx + max(-22.0, min(22.0, spread * 14)), gate.cy)
    return Point(gate.cx, gate.cy + max(-60.0, min(60.0, spread * 16)))


def _draw_wires(drawing: Drawing, cell: Cell, crossings: dict[str, list[EdgeView]]) -> None:
    boxes = {drawn.node.end.key: drawn.box for drawn in drawing.nodes}
    boxes |= {drawn.end.key: drawn.box for drawn in drawing.ends}
    gates = {gate.side: gate.box for gate in drawing.gates}
    lanes: dict[tuple[str, str], int] = {}

    def port(key: str, way: str, total: int) -> float:
        """Distance from the middle of a box's side, so that wires don't share one point."""
        index = lanes.get((key, way), 0)
        lanes[(key, way)] = index + 1
        return (index - (total - 1) / 2) * 18

    used: dict = {}
    for edge in cell.edges:
        for key, way in ((edge.source.key, "out"), (edge.destination.key, "in")):
            used[(key, way)] = used.get((key, way), 0) + 1
    lane = 0
    for edge in cell.edges:
        source, target = boxes.get(edge.source.key), boxes.get(edge.destination.key)
        if source is None or target is None:
            continue
        side = _side_of(edge)
        others = [
            d.box for d in drawing.nodes if d.node.end.key not in (edge.source.key, edge.destination.key)
        ]
        out = port(edge.source.key, "out", used[(edge.source.key, "out")])
        into = port(edge.destination.key, "in", used[(edge.destination.key, "in")])
        if side == INSIDE:
            lane += 1
            wire = Wire.between(source, target, out, into, lane, others)
        else:
            spread = crossings[side].index(edge) - (len(crossings[side]) - 1) / 2
            vertical = drawing.style == "narrow" or side in (NORTH, SOUTH)
            route = Route(side, vertical, out, into, len(drawing.wires), edge.denied, others)
            wire = Wire.through(source, target, _crossing(gates[side], spread, vertical), route)
        wire.edge = edge
        drawing.wires.append(wire)
    taken = [d.box for d in drawing.nodes] + [d.box for d in drawing.ends] + [g.box for g in drawing.gates]
    place_labels(drawing.wires, taken, drawing.width)
