"""Tables of a chart's README, to compare with what the chart makes."""

from __future__ import annotations

from pathlib import Path


def read(file: Path, first: str) -> list[list[str]]:
    """Rows of the table whose first column is called so."""
    rows, inside = [], False
    for line in file.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells[0] == first:
            inside = True
        elif inside and not set(line) <= set("|- "):
            rows.append(cells)
    return rows
