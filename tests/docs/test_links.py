"""What the pages point to exists: links, files of the repository, make targets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
#: First parts by which a path in backticks is taken for one of the repository's.
_FOLDERS = ("bpf", "cells", "dataplane", "docs", "examples", "infra", "platform", "tests", "web", ".ci")
#: Pages that are still to come with their subsystems.
_COMING: tuple[str, ...] = ()
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"(?:\.?[A-Za-z0-9_-]+)(?:/[A-Za-z0-9_.-]+)+/?")
_FENCE = re.compile(r"^```.*?^```", re.M | re.S)
_TARGET = re.compile(r"\bmake ([a-z][a-z-]*)\b")


def _text(page: Path) -> str:
    return page.read_text()


def _prose(page: Path) -> str:
    return _FENCE.sub("", _text(page))


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))


def _named_targets(page: Path) -> Iterator[str]:
    """Targets in code: in prose the word is an ordinary one."""
    for code in _CODE.findall(_prose(page)):
        yield from _TARGET.findall(code)
    for fence in _FENCE.findall(_text(page)):
        yield from re.findall(r"^\s*make ([a-z][a-z-]*)\b", fence, re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    missing = []
    for link in _LINK.findall(_prose(page)):
        if re.match(r"[a-z]+:", link) or link.startswith("#"):
            continue
        target = (page.parent / link.partition("#")[0]).resolve()
        if not target.exists() and not (target.parent == ROOT / "docs" and target.name in _COMING):
            missing.append(link)
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    missing = []
    for code in _CODE.findall(_prose(page)):
        if _PATH.fullmatch(code) and code.split("/")[0] in _FOLDERS and not (ROOT / code).exists():
            missing.append(code)
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_that_are_named_exist(page: Path) -> None:
    assert set(_named_targets(page)) <= _targets()


def test_every_page_is_reached_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        links = (link.partition("#")[0] for link in _LINK.findall(_prose(page)) if ":" not in link)
        ahead += [(page.parent / link).resolve() for link in links if link]
    assert set(PAGES) <= reached
