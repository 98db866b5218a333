"""What a browser has to fetch: measured on what the build wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.factories import World
from tests.web.routes import browser
from web.templatetags.portal import BUILD

#: Compressed bytes of script that the first page may cost.
BUDGET = 150_000
ISLANDS = {"cell.js": {"cell.html"}, "log.js": {"deployment.html", "logs.html"},
           "configuration.js": {"configuration.html"}}  # fmt: skip
_TEMPLATES = Path(BUILD).parents[1] / "templates" / "web"


def names() -> dict[str, str]:
    return json.loads((BUILD / "manifest.json").read_text())


def closure(file: str) -> set[str]:
    """A script and everything that it imports at once."""
    found, ahead = set(), {file}
    while ahead:
        found |= ahead
        texts = [(BUILD / name).read_text() for name in ahead]
        ahead = {n for text in texts for n in re.findall(r'(?:from|import)\s*"\./([\w.-]+)"', text)} - found
    return found


def weight(files: set[str]) -> int:
    return sum((BUILD / f"{name}.gz").stat().st_size for name in files)


def test_the_first_pages_script_is_within_its_budget() -> None:
    assert 0 < weight(closure(names()["app.js"])) < BUDGET


def test_every_page_with_its_island_is_within_the_budget() -> None:
    for island in ISLANDS:
        assert weight(closure(names()["app.js"]) | closure(names()[island])) < BUDGET, island


def test_the_first_page_doesnt_bring_islands() -> None:
    assert not closure(names()["app.js"]) & {names()[island] for island in ISLANDS}


def test_an_island_is_loaded_only_on_its_pages() -> None:
    assert set(names()) == {"app.js", "app.css", *ISLANDS}
    for island, pages in ISLANDS.items():
        users = {path.name for path in _TEMPLATES.rglob("*.html") if f"'{island}'" in path.read_text()}
        assert users == pages


def test_a_page_asks_only_for_its_own_files(world: World) -> None:
    client = browser(world, "owner")
    world.project("shop")
    text = client.get("/acme").content.decode()
    assert re.findall(r'<script type="module" src="([^"]+)"', text) == [f"/static/build/{names()['app.js']}"]
    assert not re.search(r'(?:src|href)="(?:https?:)?//', text)
