"""The portal without a mouse."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.web.browser.conftest import Person, Stage
from tests.web.browser.visitor import Visitor

pytestmark = pytest.mark.browser
Visit = Callable[[], Visitor]


def focused(visitor: Visitor, selector: str) -> bool:
    return visitor.page.evaluate("(s) => document.activeElement?.matches(s) ?? false", selector)


def test_the_palette_leads_to_a_component_by_typing(visit: Visit, member: Person, stage: Stage) -> None:
    visitor = visit().sign_in(member.email, member.password)
    keyboard = visitor.page.keyboard
    keyboard.press("Control+k")
    visitor.page.get_by_role("option", name="New project").first.wait_for()
    assert visitor.accessibility() == []
    visitor.picture("palette")
    keyboard.type("stage web")
    option = visitor.page.get_by_role("option", name="web stage · production")
    option.wait_for()
    for _ in range(20):
        if option.get_attribute("aria-selected") == "true":
            break
        keyboard.press("ArrowDown")
    chosen = visitor.page.get_by_role("combobox", name="Search projects").get_attribute(
        "aria-activedescendant"
    )
    assert chosen == option.get_attribute("id")
    keyboard.press("Enter")
    visitor.page.wait_for_url(f"**{stage.url}/components/web")


def test_escape_closes_the_palette_and_gives_the_focus_back(visit: Visit, member: Person) -> None:
    visitor = visit().sign_in(member.email, member.password)
    search = visitor.page.locator("[data-palette]")
    search.focus()
    visitor.page.keyboard.press("Enter")
    visitor.page.get_by_role("option").first.wait_for()
    visitor.page.keyboard.press("Escape")
    visitor.page.locator("#palette").wait_for(state="hidden")
    assert focused(visitor, ".search-open")


def test_a_dialog_keeps_the_focus_waits_for_the_name_and_gives_it_back(
    visit: Visit, member: Person, stage: Stage
) -> None:
    visitor = visit().sign_in(member.email, member.password)
    visitor.go(f"{stage.url}/settings")
    keyboard = visitor.page.keyboard
    visitor.page.get_by_role("button", name="Destroy stage…").focus()
    keyboard.press("Enter")
    dialog = visitor.page.get_by_role("dialog", name="Destroy stage?")
    dialog.wait_for()
    assert focused(visitor, "#confirm")
    destroy = dialog.get_by_role("button", name="Destroy")
    keyboard.type("stag")
    assert destroy.is_disabled()
    keyboard.type("e")
    assert destroy.is_enabled()
    assert visitor.accessibility() == []
    visitor.picture("dialog")
    for _ in range(6):
        keyboard.press("Tab")
        # From its last element the focus passes through the browser's own controls.
        assert focused(visitor, "dialog[open] *, body"), "the focus left the dialog"
    keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert focused(visitor, "[data-dialog=destroy]")


def test_the_first_tab_skips_to_the_page(visit: Visit, member: Person) -> None:
    visitor = visit().sign_in(member.email, member.password)
    visitor.go("/acme/-/usage")
    visitor.page.keyboard.press("Tab")
    assert focused(visitor, ".skip")
    visitor.page.keyboard.press("Enter")
    assert focused(visitor, "#main")


def test_an_edge_of_the_picture_is_asked_about_with_the_keyboard(
    visit: Visit, member: Person, stage: Stage
) -> None:
    visitor = visit().sign_in(member.email, member.password)
    visitor.go(stage.url)
    edge = visitor.page.locator("svg.wide g.edge.denied[role=button]").first
    edge.focus()
    visitor.page.keyboard.press("Enter")
    sheet = visitor.page.get_by_role("region", name="About this edge")
    sheet.wait_for()
    assert focused(visitor, "#edge-sheet .close")
    visitor.page.keyboard.press("Enter")
    sheet.wait_for(state="hidden")
    assert focused(visitor, "g.edge")
