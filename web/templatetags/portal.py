"""What templates need: icons, built files, states, times, numbers, sparklines, links of a list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from django import template
from django.conf import settings
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from web import formats, states

register = template.Library()
BUILD = Path(__file__).resolve().parent.parent / "static" / "build"


@lru_cache(maxsize=4)
def _json(name: str, stamp: int) -> dict[str, str]:
    """A file of the build; read again only when it changed (``stamp`` is its time)."""
    return json.loads((BUILD / name).read_text())


def _built(name: str) -> dict[str, str]:
    try:
        return _json(name, (BUILD / name).stat().st_mtime_ns)
    except FileNotFoundError:
        return {}


@register.simple_tag
def asset(name: str) -> str:
    """URL of a built file by its plain name (``app.js``); its real name carries a hash."""
    return f"{settings.STATIC_URL}build/{_built('manifest.json').get(name, name)}"


@register.simple_tag
def icon(name: str, extra: str = "") -> SafeString:
    """An icon as inline SVG, hidden from screen readers: the word beside it is what is read."""
    body = _built("icons.json").get(name, "")
    # Bodies come from the icon set at build time; only the class name is a parameter.
    return format_html(
        '<svg class="icon {}" viewBox="0 0 24 24" aria-hidden="true" focusable="false">{}</svg>',
        extra,
        mark_safe(body),  # noqa: S308
    )


@register.simple_tag
def state(kind: str, value: str, shape: str = "state", word: str = "") -> SafeString:
    """A state as icon and word. ``shape``: ``state`` (plain) or ``chip`` (on its own ground)."""
    found = states.look(kind, value)
    return format_html(
        '<span class="{} tone-{}">{}{}</span>',
        shape,
        found.tone,
        icon(found.icon, "spin" if found.spins else ""),
        word or found.word,
    )


@register.simple_tag
def tone(kind: str, value: str) -> str:
    return f"tone-{states.look(kind, value).tone}"


@register.simple_tag
def word(kind: str, value: str) -> str:
    return states.look(kind, value).word


@register.simple_tag
def state_icon(kind: str, value: str) -> SafeString:
    found = states.look(kind, value)
    return icon(found.icon, "spin" if found.spins else "")


@register.simple_tag
def kind_icon(kind: str, extra: str = "") -> SafeString:
    return icon(states.KIND_ICONS.get(kind, "box"), extra)


@register.simple_tag
def when(moment: datetime | None, none: str = "never") -> SafeString | str:
    """A time: relative in place, absolute on hover; the script keeps it fresh in the reader's zone."""
    if moment is None:
        return none
    return format_html(
        '<time datetime="{}" title="{} UTC" data-ago>{}</time>',
        moment.isoformat(timespec="milliseconds"),
        moment.strftime("%Y-%m-%d %H:%M:%S"),
        formats.ago(moment),
    )


@register.simple_tag
def sparkline(points: Sequence[float], bad: Sequence[float] = (), label: str = "") -> SafeString:
    """A line of values over time, oldest first; ``bad`` is drawn over it in the alert colour."""
    width, height = 240, 36
    top = max([*points, *bad, 1])
    drawn = []
    for values in (points, bad):
        step = width / max(1, len(values) - 1)
        pairs = [f"{i * step:.1f},{height - 2 - (height - 4) * v / top:.1f}" for i, v in enumerate(values)]
        drawn.append(" ".join(pairs))
    area = f"0,{height} {drawn[0]} {width},{height}" if drawn[0] else ""
    alarming = format_html('<polyline class="bad" points="{}"/>', drawn[1]) if any(bad) else ""
    return format_html(
        '<svg class="spark" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<line class="zero" x1="0" x2="{}" y1="{}" y2="{}"/><polygon class="area" points="{}"/>'
        '<polyline class="line" points="{}"/>{}</svg>',
        width, height, label, width, height - 1, height - 1, area, drawn[0], alarming,
    )  # fmt: skip


@register.simple_tag(takes_context=True)
def link(context: dict, **changes: object) -> str:
    """This page's address with some query parameters changed; an empty one is dropped."""
    request: HttpRequest = context["request"]
    query = request.GET.copy()
    query.pop("part", None)
    for key, value in changes.items():
        if value in (None, ""):
            query.pop(key, None)
        else:
            query[key] = str(value)
    text = query.urlencode()
    return f"{request.path}?{text}" if text else request.path


register.filter("duration", formats.duration)
register.filter("ago", formats.ago)
register.filter("number", formats.count)
register.filter("size", formats.size)
register.filter("rate", formats.rate)
register.filter("protocol", formats.protocol)


@register.filter
def short(commit: str) -> str:
    """A commit as people say it."""
    return (commit or "")[:8]


@register.filter
def marked(text: str) -> SafeString:
    """A sentence whose `names` between backticks are shown as code."""
    pieces = str(text).split("`")
    if len(pieces) % 2 == 0:  # an odd mark stays what it is
        return format_html("{}", text)
    return format_html_join(
        "", "{}", ((format_html("<code>{}</code>", p) if i % 2 else p,) for i, p in enumerate(pieces))
    )


@register.filter
def listed(value: object) -> str:
    """A value of an audit event as people write it."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


@register.filter
def get(mapping: dict, key: object) -> object:
    """A value of a mapping by a key that is itself a variable."""
    return mapping.get(key, "") if mapping else ""


@register.filter
def plus(value: float, other: float) -> str:
    """A sum of coordinates, as SVG writes it."""
    return f"{float(value) + float(other):g}"


@register.filter
def clipped(text: str, limit: int) -> str:
    """Text that fits a drawn box: SVG doesn't cut by itself."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


@register.simple_tag
def icon_body(kind: str) -> SafeString:
    """The strokes of a kind's icon, for use inside a drawing."""
    name = states.KIND_ICONS.get(kind, kind)
    return mark_safe(_built("icons.json").get(name, _built("icons.json").get("box", "")))  # noqa: S308


@register.filter
def split(text: str) -> list[str]:
    """The words of a literal, to loop over."""
    return text.split()
