"""Boxes, wires made of cubic curves, and labels that don't lie on each other."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from web import formats
from web.picture import NORTH, WEST, EdgeView

LABEL_HEIGHT = 20
#: Width of a character of a label (11 px), for the widest of the fonts that systems use.
LABEL_CHARACTER = 6.9


class Point(NamedTuple):
    x: float
    y: float


@dataclass(frozen=True)
class Box:
    x: float
    y: float
    w: float
    h: float

    @property
    def cx(self) -> float:
        return self.x + self.w / 2

    @property
    def cy(self) -> float:
        return self.y + self.h / 2

    @property
    def right(self) -> float:
        return self.x + self.w

    @property
    def bottom(self) -> float:
        return self.y + self.h

    def overlaps(self, other: Box, margin: float = 2) -> bool:
        """Whether two boxes share ground, counting ``margin`` around them."""
        return not (
            self.right + margin <= other.x
            or other.right + margin <= self.x
            or self.bottom + margin <= other.y
            or other.bottom + margin <= self.y
        )


class Curve(NamedTuple):
    """A cubic Bézier curve from ``a`` to ``d``."""

    a: Point
    b: Point
    c: Point
    d: Point

    def at(self, t: float) -> Point:
        u = 1 - t
        weights = (u * u * u, 3 * u * u * t, 3 * u * t * t, t * t * t)
        return Point(
            sum(w * p.x for w, p in zip(weights, self, strict=True)),
            sum(w * p.y for w, p in zip(weights, self, strict=True)),
        )


def straight(a: Point, b: Point) -> Curve:
    """A line, as a curve."""
    third = Point(a.x + (b.x - a.x) / 3, a.y + (b.y - a.y) / 3)
    return Curve(a, third, Point(b.x - (b.x - a.x) / 3, b.y - (b.y - a.y) / 3), b)


def _down(a: Point, b: Point) -> Curve:
    """From ``a`` to ``b``, leaving and arriving vertically."""
    bend = max(24.0, abs(b.y - a.y) * 0.5)
    sign = 1 if b.y >= a.y else -1
    return Curve(a, Point(a.x, a.y + sign * bend), Point(b.x, b.y - sign * bend), b)


def _across(a: Point, b: Point) -> Curve:
    """From ``a`` to ``b``, leaving and arriving horizontally."""
    bend = max(24.0, abs(b.x - a.x) * 0.5)
    sign = 1 if b.x >= a.x else -1
    return Curve(a, Point(a.x + sign * bend, a.y), Point(b.x - sign * bend, b.y), b)


@dataclass(frozen=True)
class Route:
    """How a wire passes a gate: which one, upright or sideways, around which boxes."""

    side: str
    vertical: bool
    out: float
    into: float
    lane: int
    denied: bool
    others: list[Box]


@dataclass
class Wire:
    """An edge as it is drawn. ``stop`` is where a denied one is halted, ``label`` where its words are."""

    curves: list[Curve]
    stop: Point
    edge: EdgeView = field(default=None)  # type: ignore[assignment]
    label: Box | None = None

    @classmethod
    def between(cls, source: Box, target: Box, out: float, into: float, lane: int, others: list[Box]) -> Wire:
        """Between two components of the cell, around the ``others`` in between."""
        if target.y > source.bottom:
            a, b = Point(source.cx + out, source.bottom), Point(target.cx + into, target.y)
            curves = _clear_way(a, b, lane, others)
        elif abs(target.y - source.y) < 1 and target.x != source.x:
            right = target.x > source.x
            a = Point(source.right if right else source.x, source.cy + out / 2)
            b = Point(target.x if right else target.right, target.cy + into / 2)
            curves = [straight(a, b)] if is_clear([straight(a, b)], others) else [_under(source, target)]
        else:
            curves = [_around(source, target, lane)]
        wire = cls(curves, Point(0, 0))
        wire.stop = wire.at(0.5)
        return wire

    @classmethod
    def through(cls, source: Box, target: Box, crossing: Point, route: Route) -> Wire:
        """Through a gate of the cell at ``crossing``; a denied one is halted in front of the gate."""
        inbound = route.side in (NORTH, WEST)
        out, into, others = route.out, route.into, route.others
        if route.vertical:
            a = Point(source.cx + (0 if inbound else out), source.bottom)
            b = Point(target.cx + (into if inbound else 0), target.y)
            before = [_down(a, crossing)] if inbound else _clear_way(a, crossing, route.lane, others)
            after = _clear_way(crossing, b, route.lane, others) if inbound else [_down(crossing, b)]
        elif inbound:
            before = [_across(Point(source.right, source.cy), crossing)]
            after = [_across(crossing, Point(target.x, target.cy + into / 2))]
            if not is_clear(after, others):
                edge = min(box.x for box in [*others, target]) - 20
                above = target.y - 22 - route.lane % 3 * 7
                corner, turn = Point(edge, above), Point(target.cx + into - 24, above)
                end = Point(target.cx + into, target.y)
                after = [_across(crossing, corner), straight(corner, turn), _turn(turn, end)]
        else:
            before = [_across(Point(source.right, source.cy + out / 2), crossing)]
            if not is_clear(before, others):
                edge = max(box.right for box in [*others, source]) + 20
                below = source.bottom + 22 + route.lane % 3 * 7
                start, turn = Point(source.cx + out, source.bottom), Point(source.cx + out + 24, below)
                corner = Point(edge, below)
                before = [
                    _turn(start, turn, first_down=True),
                    straight(turn, corner),
                    _across(corner, crossing),
                ]
            after = [_across(crossing, Point(target.x, target.cy))]
        if route.denied and inbound:
            last = before[-1]
            return cls(before, last.at(0.72 if route.vertical else 0.8))
        stop = before[-1].at(0.8) if not route.vertical else Point(crossing.x, crossing.y - 26)
        return cls(before + after, stop)

    @property
    def path(self) -> str:
        """The wire as SVG path data."""
        first = self.curves[0].a
        text = [f"M{first.x:.1f} {first.y:.1f}"]
        for c in self.curves:
            text.append(f"C{c.b.x:.1f} {c.b.y:.1f} {c.c.x:.1f} {c.c.y:.1f} {c.d.x:.1f} {c.d.y:.1f}")
        return "".join(text)

    @property
    def tip(self) -> str:
        """Points of the arrow head."""
        last = self.curves[-1]
        angle = math.atan2(last.d.y - last.c.y, last.d.x - last.c.x)
        corners = [last.d]
        for turn in (2.65, -2.65):
            corners.append(
                Point(last.d.x + 9 * math.cos(angle + turn), last.d.y + 9 * math.sin(angle + turn))
            )
        return " ".join(f"{p.x:.1f},{p.y:.1f}" for p in corners)

    @property
    def text(self) -> str:
        """The words on the wire: what flows or why not; a quiet edge has its port."""
        return label_of(self.edge)

    def at(self, t: float) -> Point:
        """A point of the whole wire, ``t`` from 0 to 1."""
        index = min(len(self.curves) - 1, int(t * len(self.curves)))
        return self.curves[index].at(t * len(self.curves) - index)


def label_of(edge: EdgeView) -> str:
    """The words on an edge."""
    if edge.denied:
        return f"denied :{edge.port}" if edge.port else "denied"
    if edge.audited:
        return f"audited :{edge.port}" if edge.port else "audited"
    if edge.rate > 0:
        return f":{edge.port} · {formats.rate(edge.rate)}"
    return f":{edge.port}"


def is_clear(curves: list[Curve], others: list[Box]) -> bool:
    """Whether curves pass no box but at its rim."""
    for curve in curves:
        for i in range(1, 16):
            p = curve.at(i / 16)
            if any(o.x - 3 < p.x < o.right + 3 and o.y + 2 < p.y < o.bottom - 2 for o in others):
                return False
    return True


def _clear_way(a: Point, b: Point, lane: int, others: list[Box]) -> list[Curve]:
    """Downwards from ``a`` to ``b``: directly if nothing is in between, else through the nearest gap."""
    direct = [_down(a, b)]
    if is_clear(direct, others):
        return direct
    step = 12 + lane % 4 * 9
    between = [o for o in others if o.bottom > a.y and o.y < b.y]
    if not between:
        return direct
    top, bottom = min(o.y for o in between) - 8, max(o.bottom for o in between) + 8
    candidates = [x for o in between for x in (o.x - step, o.right + step)]
    nearness = sorted(candidates, key=lambda x: abs(x - a.x) + abs(x - b.x))
    for x in nearness:
        p, q = Point(x, top), Point(x, bottom)
        way = [_down(a, p), straight(p, q), _down(q, b)]
        if is_clear([way[1]], others):
            return way
    return direct


def _turn(a: Point, b: Point, first_down: bool = False) -> Curve:
    """A quarter turn, leaving vertically if ``first_down`` and arriving vertically if not."""
    if first_down:
        return Curve(a, Point(a.x, a.y + (b.y - a.y) * 0.7), Point(a.x + (b.x - a.x) * 0.3, b.y), b)
    return Curve(a, Point(a.x + (b.x - a.x) * 0.7, a.y), Point(b.x, a.y + (b.y - a.y) * 0.3), b)


def _under(source: Box, target: Box) -> Curve:
    a, b = Point(source.cx, source.bottom), Point(target.cx, target.bottom)
    return Curve(a, Point(a.x, a.y + 56), Point(b.x, b.y + 56), b)


def _around(source: Box, target: Box, lane: int) -> Curve:
    """Beside the column, alternating sides, further out with each one."""
    right = lane % 2 == 1
    reach = 34 + (lane // 2 % 3) * 16
    x = max(source.right, target.right) if right else min(source.x, target.x)
    sign = 1 if right else -1
    a = Point(source.right if right else source.x, source.cy)
    b = Point(target.right if right else target.x, target.cy)
    return Curve(a, Point(x + sign * reach * 1.5, a.y), Point(x + sign * reach * 1.5, b.y), b)


def place_labels(wires: list[Wire], taken: list[Box], width: float) -> None:
    """Give each wire a label box on itself that overlaps nothing; the least bad one if there is none."""
    for wire in wires:
        w = max(30.0, len(wire.text) * LABEL_CHARACTER + 14)
        best, least = None, math.inf
        stops = [Box(wire.stop.x - 9, wire.stop.y - 9, 18, 18)] if wire.edge.denied else []
        steps = (0.7, 0.3, 0.5, 0.62, 0.38, 0.8, 0.2, 0.88, 0.12)
        for t in steps if len(wire.curves) > 1 else (0.5, 0.4, 0.6, 0.3, 0.7, 0.22, 0.78):
            p = wire.at(t)
            x = min(max(2.0, p.x - w / 2), width - w - 2)
            box = Box(x, p.y - LABEL_HEIGHT / 2, w, LABEL_HEIGHT)
            hits = sum(1 for other in [*taken, *stops] if box.overlaps(other))
            if hits < least:
                best, least = box, hits
            if hits == 0:
                break
        wire.label = best
        if best is not None:
            taken.append(best)
