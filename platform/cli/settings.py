"""What the command line remembers between calls: which platform, and a token for it, readable by its owner only."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from cli.errors import INTERNAL, CliError, usage

#: The installation that the program belongs to names itself.
DEFAULT_URL = os.environ.get("CYTO_DEFAULT_URL", "http://localhost:8000")


def path() -> Path:
    """The settings file, where the system keeps such files."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path("~/.config").expanduser())
    return Path(base) / "cytoplane" / "cyto.json"


@dataclass
class Settings:
    """``tokens`` is URL → token; the environment (``CYTO_URL``, ``CYTO_TOKEN``) goes before the file."""

    url: str = DEFAULT_URL
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def token(self) -> str:
        return os.environ.get("CYTO_TOKEN", "").strip() or self.tokens.get(self.url, "")

    def save(self) -> None:
        """Replace the file in one step; it is never readable by others, not for a moment."""
        file = path()
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = file.with_suffix(f".{os.getpid()}")
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as handle:
                json.dump({"url": self.url, "tokens": self.tokens}, handle)
            fresh.replace(file)
        except OSError as error:
            raise CliError(
                f"{file} can't be written: {error.strerror}.",
                "Mend it, or set XDG_CONFIG_HOME to a folder of yours.",
                "settings-unwritable",
                INTERNAL,
            ) from None


def checked(url: str) -> str:
    """The address of a platform in its one form, ``scheme://host[:port]``."""
    url = url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if fine and parts.username is not None:
        raise usage(
            "An address holds no names or passwords.",
            "Write it like https://cytoplane.example.org, then sign in.",
        )
    if not fine or parts.path or parts.query or parts.fragment or any(c.isspace() for c in url):
        raise usage(
            f"`{url}` isn't the address of a platform.", "Write it like https://cytoplane.example.org."
        )
    return f"{parts.scheme}://{parts.netloc.lower()}"


def load(url: str = "") -> Settings:
    """The settings; ``url`` chooses another platform for this call. A file that can't be read counts as none."""
    try:
        document = json.loads(path().read_text())
        tokens = {str(k): str(v) for k, v in document["tokens"].items()}
        known = str(document["url"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        tokens, known = {}, DEFAULT_URL
    return Settings(checked(url or os.environ.get("CYTO_URL") or known), tokens)
