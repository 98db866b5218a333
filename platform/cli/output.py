"""Data on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


def console() -> Console:
    """Standard output; not cut to any width where no person looks at it."""
    return Console(
        width=None if sys.stdout.isatty() else 400, highlight=False, soft_wrap=not sys.stdout.isatty()
    )


def note(text: str) -> None:
    """Progress and remarks for people."""
    print(text, file=sys.stderr, flush=True)


def as_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def ago(moment: str | None) -> str:
    """A time of the API, relative to now."""
    if not moment:
        return "never"
    at = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    seconds = (datetime.now(UTC) - at).total_seconds()
    if seconds < 0:
        return at.strftime("%Y-%m-%d")
    for limit, size, unit in ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h"), (86400 * 60, 86400, "d")):
        if seconds < limit:
            return f"{int(seconds // size)} {unit} ago"
    return at.strftime("%Y-%m-%d")


def table(rows: list[dict[str, Any]], columns: dict[str, str], *, raw: bool, empty: str) -> None:
    """Rows as a table (key → heading), or all that is known of them as JSON."""
    if raw:
        as_json(rows)
        return
    if not rows:
        note(empty)
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in columns.values():
        shown.add_column(heading, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(_cell(row.get(key))) for key in columns))
    console().print(shown)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def facts(document: dict[str, Any], *, raw: bool, title: str = "") -> None:
    """One thing as lines of name and value."""
    if raw:
        as_json(document)
        return
    if title:
        console().print(Text(title, style="bold"))
    width = max((len(key) for key in document), default=0)
    for key, value in document.items():
        print(f"{key.replace('_', ' '):<{width}}  {_cell(value)}")
