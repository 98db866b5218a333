"""What the command line remembers between calls: which platform, and a token for it, readable by its owner only."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

#: The installation that the program belongs to names itself.
DEFAULT_URL = os.environ.get("CYTO_DEFAULT_URL", "http://localhost:8000")


def path() -> Path:
    """The settings file, where the system keeps such files."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "cytoplane" / "cyto.json"


@dataclass
class Settings:
    """``tokens`` is URL → token; the environment (``CYTO_URL``, ``CYTO_TOKEN``) goes before the file."""

    url: str = DEFAULT_URL
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def token(self) -> str:
        return os.environ.get("CYTO_TOKEN") or self.tokens.get(self.url, "")

    def save(self) -> None:
        file = path()
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = file.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            json.dump({"url": self.url, "tokens": self.tokens}, handle)
        fresh.replace(file)


def load(url: str = "") -> Settings:
    """The settings; ``url`` chooses another platform for this call."""
    try:
        document = json.loads(path().read_text())
        tokens = {str(k): str(v) for k, v in document["tokens"].items()}
        known = str(document["url"])
    except (OSError, ValueError, KeyError, AttributeError):
        tokens, known = {}, DEFAULT_URL
    return Settings((url or os.environ.get("CYTO_URL") or known).rstrip("/"), tokens)
