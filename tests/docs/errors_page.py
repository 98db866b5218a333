"""Makes ``docs/errors.md`` from the catalogue: ``python -m tests.docs.errors_page``."""

from __future__ import annotations

from pathlib import Path

from controlplane.errors import CATALOGUE, Entry

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
_HEAD = """# Errors

Everything that can go wrong and that a person is told about has an id. API, command line, git, portal and this page take their words from one catalogue, `platform/controlplane/errors.py`; this page is made from it by `python -m tests.docs.errors_page`. Words in braces are filled in.

The API answers `{"error": {"id", "message", "next", "request_id"}}` with the status; git and the command line print the same words.

| id | status | sentence | next |
|---|---|---|---|
"""


def row(code: str, entry: Entry) -> str:
    """An error's line of the table."""
    cells = [f"`{code}`", str(entry.status), entry.message, entry.next]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def render() -> str:
    """The whole page."""
    return _HEAD + "".join(f"{row(code, entry)}\n" for code, entry in CATALOGUE.items())


if __name__ == "__main__":
    PAGE.write_text(render())
