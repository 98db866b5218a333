"""What a folder of source is built as."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

FILES = ("cytoplane.yaml", "Procfile")


def present(file: Path) -> bool:
    """Whether it is a file of the source itself: a link could name any file of the machine."""
    return file.is_file() and not file.is_symlink()


def kind_of(folder: Path) -> str:
    """dockerfile, python, static, or "" for nothing that can be built."""
    if present(folder / "Dockerfile"):
        return "dockerfile"
    if present(folder / "requirements.txt") or present(folder / "pyproject.toml"):
        return "python"
    if present(folder / "index.html"):
        return "static"
    return ""


def declarations(source: Path) -> dict[str, str]:
    """The repository's declarations as text, for the specification's parser."""
    found = {}
    for name in FILES:
        file = source / name
        if present(file) and file.stat().st_size <= 256 * 1024:
            found[name] = file.read_text(errors="replace")
    return found


def folders(text: str) -> Iterable[str]:
    """Folders that cytoplane.yaml mentions; what is wrong with it is the parser's to say."""
    yield "."
    try:
        document = yaml.safe_load(text)
        components = document.get("components", {}) if isinstance(document, dict) else {}
        for component in components.values() if isinstance(components, dict) else ():
            if isinstance(component, dict) and isinstance(component.get("path"), str):
                yield component["path"]
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return


def detect(source: Path, files: dict[str, str]) -> dict[str, str]:
    """Folder → kind, for every folder that a component may name."""
    found = {}
    root = source.resolve()
    for name in folders(files.get("cytoplane.yaml", "")):
        try:
            folder = (source / name).resolve()
            inside = folder == root or root in folder.parents
            kind = kind_of(folder) if inside and folder.is_dir() else ""
        except (OSError, ValueError, RuntimeError):  # what no file can be called, links in a circle
            continue
        if kind:
            found[str(folder.relative_to(root))] = kind
    return found
