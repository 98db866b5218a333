"""Somebody at the portal with a real browser, who notices what a person would not put up with.

Console errors, violations of the content security policy and requests to other sites are collected
on every page; accessibility (axe-core) and width are looked at when asked.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, Response

from tests.e2e.installation import REPOSITORY

AXE = REPOSITORY / "web" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PHONE, DESK = {"width": 360, "height": 780}, {"width": 1280, "height": 800}
#: Where pictures of the pages are kept for people to look at; not kept if it isn't set.
SCREENSHOTS = os.environ.get("CYTOPLANE_SCREENSHOTS", "")
_WATCH = """
addEventListener("securitypolicyviolation", (e) =>
  console.error(`policy: ${e.violatedDirective} ${e.blockedURI}`));
"""
_FIND = """
async (only) => {
  const found = await axe.run(document, { runOnly: only, resultTypes: ["violations"] });
  return found.violations.map((v) => `${v.id}: ${v.nodes[0].target.join(" ")} (${v.nodes.length})`);
}
"""


@cache
def _axe() -> str:
    return AXE.read_text()


class Visitor:
    """A browser window of somebody's own. ``problems`` has to stay empty."""

    def __init__(self, browser: Browser, base: str) -> None:
        self.base = base
        self.problems: list[str] = []
        #: Statuses that the test itself asks for: the browser reports them as failed loads.
        self.expected: set[int] = set()
        self._context = browser.new_context(viewport=DESK, color_scheme="light", reduced_motion="reduce")  # type: ignore[arg-type]
        self._context.set_default_timeout(15_000)
        self.page: Page = self._context.new_page()
        self.page.add_init_script(_WATCH)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self._problem(f"exception: {error}"))
        self.page.on("request", lambda request: self._request(request.url))

    def _problem(self, text: str) -> None:
        self.problems.append(f"{self.page.url}: {text}")

    def _console(self, message: Any) -> None:
        found = re.search(r"status of (\d+)", message.text)
        if message.type in ("error", "warning") and not (found and int(found[1]) in self.expected):
            self._problem(f"{message.type}: {message.text}")

    def _request(self, url: str) -> None:
        if not url.startswith((f"{self.base}/", "data:")):
            self._problem(f"request to another site: {url}")

    def close(self) -> None:
        self._context.close()

    def cookies(self) -> list[dict[str, Any]]:
        return list(self._context.cookies())  # type: ignore[arg-type]

    def go(self, path: str) -> Response:
        """Open a page of the portal."""
        response = self.page.goto(f"{self.base}{path}", wait_until="load")
        assert response is not None
        return response

    def sign_in(self, email: str, password: str) -> Visitor:
        self.go("/sign-in")
        self.page.get_by_label("Email").fill(email)
        self.page.get_by_label("Password").fill(password)
        self.press("Sign in")
        self.page.wait_for_url(lambda url: "/sign-in" not in url)
        return self

    def press(self, name: str | re.Pattern[str], within: Locator | None = None) -> None:
        """Click a button by what it says."""
        (within or self.page).get_by_role("button", name=name).click()

    def see(self, text: str | re.Pattern[str], seconds: float = 15) -> Locator:
        """Wait until a text is shown; its first element."""
        found = self.page.get_by_text(text).locator("visible=true").first
        found.wait_for(timeout=seconds * 1000)
        return found

    def sees(self, text: str | re.Pattern[str]) -> bool:
        return self.page.get_by_text(text).locator("visible=true").count() > 0

    def accessibility(self, rules: list[str] | None = None) -> list[str]:
        """What axe-core finds on the page, each with the first element that has it."""
        self.page.evaluate(_axe())
        only = {"type": "rule", "values": rules} if rules else {"type": "tag", "values": RULES}
        found = self.page.evaluate(_FIND, only)
        return [f"{self.page.url}: {line}" for line in found]

    def overflow(self) -> int:
        """Pixels that the page is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - innerWidth")

    def picture(self, name: str) -> None:
        """Keep what the page looks like."""
        if SCREENSHOTS:
            folder = Path(SCREENSHOTS)
            folder.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=folder / f"{name}.png", full_page=True)

    def inspect(self, name: str) -> list[str]:
        """Everything that is wrong with the page as it is: at a desk, in the dark, on a phone."""
        page = self.page
        found = self.accessibility()
        self.picture(f"{name}-light")
        page.emulate_media(color_scheme="dark")
        found += self.accessibility(["color-contrast"])
        self.picture(f"{name}-dark")
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        if (wider := self.overflow()) > 0:
            found.append(f"{page.url}: {wider} px wider than a phone")
        found += self.accessibility(["target-size"])
        self.picture(f"{name}-phone")
        page.set_viewport_size(DESK)  # type: ignore[arg-type]
        return found
