"""Data on standard output, everything else on standard error."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cli.errors import usage

Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]

#: Verdicts of the API as people read them.
VERDICTS = {"audited": "would be denied"}
#: Colours alone; every other sequence of a terminal could move the cursor over what was said before.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def safe(text: str, *, colours: bool = False) -> str:
    """Text of somebody else's making, without what would steer the terminal; tabs and line ends stay."""
    text = text.replace("\r\n", "\n")
    if colours:
        pieces = re.split(f"({_COLOUR.pattern})", text)
        clean = "".join(p if _COLOUR.fullmatch(p) else safe(p) for p in pieces)
        return clean + ("\x1b[0m" if len(pieces) > 1 else "")
    return _CONTROL.sub("\ufffd", _SEQUENCE.sub("", text).replace("\r", "\n"))


def note(text: str) -> None:
    """Progress and remarks for people."""
    print(text, file=sys.stderr, flush=True)


def say(text: str) -> None:
    """A line of data for people."""
    print(safe(text, colours=sys.stdout.isatty()), flush=True)


def as_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False), flush=True)


def line_of_json(value: Any) -> None:
    """One document of many that come one after the other, each a line."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def done(answer: Any, text: str, *, raw: bool) -> None:
    """What was done, for people or for programs."""
    as_json(answer) if raw else note(text)


def ask(question: str, instead: str, *, hide: bool = False, twice: bool = False) -> str:
    """An answer from the terminal; where there is none, an error that names what to write ``instead``."""
    if not sys.stdin.isatty():
        raise usage(f"{question} is missing and nobody is there to ask.", instead)
    answer = str(typer.prompt(question, hide_input=hide, confirmation_prompt=twice, err=True))
    return answer if hide else answer.strip()


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


def person(name: str | None) -> str:
    """Who did something, without the token by which it was done."""
    return (name or "").partition(" (token")[0]


def table(rows: list[dict[str, Any]], columns: dict[str, str], *, raw: bool, empty: str) -> None:
    """Rows as a table (key → heading), or all that is known of them as JSON.

    On a terminal long cells are folded into its width; elsewhere nothing is folded or cut.
    """
    if raw:
        as_json(rows)
        return
    if not rows:
        note(empty)
        return
    cells = [[_cell(row.get(key)) for key in columns] for row in rows]
    if sys.stdout.isatty():
        _folded(list(columns.values()), cells)
        return
    lines = [list(columns.values()), *cells]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _folded(headings: list[str], cells: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        shown.add_column(heading, overflow="fold")
    for line in cells:
        shown.add_row(*map(Text, line))
    Console(highlight=False).print(shown)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return safe(str(value)).replace("\n", " ").replace("\t", " ")


def facts(document: dict[str, Any], *, raw: bool) -> None:
    """One thing as lines of name and value."""
    if raw:
        as_json(document)
        return
    width = max((len(key) for key in document), default=0)
    for key, value in document.items():
        print(f"{key.replace('_', ' '):<{width}}  {_cell(value)}".rstrip())
