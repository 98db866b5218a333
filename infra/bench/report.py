"""A table for people, and the same as JSON for comparisons over time."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def show(name: str, rows: list[dict[str, Any]], note: str = "") -> None:
    """Print rows with the columns of the first, and keep them in ``results/NAME.json``."""
    columns = list(rows[0])
    texts = [[_text(row[column]) for column in columns] for row in rows]
    widths = [max(len(column), *(len(t[i]) for t in texts)) for i, column in enumerate(columns)]
    print("  ".join(c.ljust(w) for c, w in zip(columns, widths, strict=True)))
    for line in texts:
        print("  ".join(t.ljust(w) for t, w in zip(line, widths, strict=True)))
    if note:
        print(note)
    RESULTS.mkdir(exist_ok=True)
    document = {
        "name": name, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "kernel": platform.release(),
        "cores": os.cpu_count(), "rows": rows,
    }  # fmt: skip
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def _text(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
