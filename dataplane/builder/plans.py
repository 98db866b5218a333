"""Build instructions for what has no Dockerfile of its own: dependencies first, so that they cache."""

from __future__ import annotations

from pathlib import Path

from dataplane.builder.detect import present
from infra.base_recipe import BASE


def containerfile(kind: str, folder: Path) -> str:
    """The instructions for a folder of ``kind``. A dockerfile is the repository's own text."""
    if kind == "dockerfile":
        return (folder / "Dockerfile").read_text(errors="replace")
    if kind == "static":
        return f"FROM {BASE}\nUSER 1000\nCMD {_nginx()}\nCOPY . /srv/site\n"
    # What changes with every push comes last: all before it is cached, and it is one layer.
    lines = [f"FROM {BASE}", "WORKDIR /app", "ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1"]
    if present(folder / "requirements.txt"):
        lines += [
            "COPY requirements.txt /app/",
            "RUN pip install --no-cache-dir -r requirements.txt",
            "USER 1000",
            "COPY . /app",
        ]
    else:
        lines += ["COPY . /app", "RUN pip install --no-cache-dir .", "USER 1000"]
    return "\n".join(lines) + "\n"


def _nginx() -> str:
    return '["/usr/sbin/nginx", "-c", "/etc/cytoplane/static.conf"]'
