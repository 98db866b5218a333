"""A browser, people to sign in, and a project on which everything can be seen."""

from __future__ import annotations

import itertools
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, sync_playwright

from infra import demo
from tests.e2e.installation import Installation, Repository, source
from tests.web.browser.visitor import AXE, Visitor

_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
_counter = itertools.count(1)
#: Calls that nothing declares: an external address, every second.
KNOCKING = """
import threading
def knock():
    while True:
        try:
            socket.create_connection(("203.0.113.9", 443), 0.5).close()
        except OSError:
            pass
        time.sleep(1)
threading.Thread(target=knock, daemon=True).start()
print("\\x1b[31mred\\x1b[0m and plain", flush=True)
"""


@pytest.fixture(scope="session")
def installation(live_installation: Installation) -> Installation:
    """With every part at work, whatever tests before did to them."""
    live_installation.wait(live_installation.healthy, 60)
    return live_installation


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's chromium. It ends with this package: while it runs, Django takes the thread for async."""
    chromium = shutil.which("chromium")
    if chromium is None or not AXE.exists():
        pytest.skip("needs chromium and the front-end packages")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=list(_FLAGS))
        yield running
        running.close()


@pytest.fixture
def visit(browser: Browser, installation: Installation) -> Iterator[Callable[[], Visitor]]:
    """Opens windows; at the end none of them may have met a problem."""
    opened: list[Visitor] = []

    def open_one() -> Visitor:
        opened.append(Visitor(browser, installation.config.portal_url))
        return opened[-1]

    yield open_one
    problems = [problem for visitor in opened for problem in visitor.problems]
    for visitor in opened:
        visitor.close()
    assert not problems, "\n".join(problems)


@dataclass
class Person:
    """An account of the installation."""

    installation: Installation
    email: str
    password: str

    @property
    def api(self) -> demo.Api:
        return demo.Api(self.installation.config, self.email, self.password)

    def repository(self, tenant: str, project: str) -> Repository:
        """A clone that pushes as this person."""
        port = self.installation.config.portal_port
        url = f"http://x@localhost:{port}/git/{tenant}/{project}.git"
        folder = self.installation.folder / f"person-{next(_counter)}"
        return Repository(folder, url, self.api.token)


@pytest.fixture(scope="package")
def member(installation: Installation) -> Person:
    """acme's owner."""
    email = demo.TENANTS["acme"][0]
    return Person(installation, email, installation.accounts[email])


@pytest.fixture(scope="package")
def admin(installation: Installation) -> Person:
    return Person(installation, demo.ADMIN, installation.accounts[demo.ADMIN])


@pytest.fixture(scope="package")
def newcomer(installation: Installation) -> Callable[[], Person]:
    """Makes accounts that belong nowhere yet."""

    def make() -> Person:
        person = Person(installation, f"{secrets.token_hex(4)}@people.localhost", secrets.token_urlsafe(12))
        body = {"email": person.email, "password": person.password}
        installation.api("admin").call("POST", "/admin/users", body)
        return person

    return make


@pytest.fixture(scope="package")
def viewer(installation: Installation, newcomer: Callable[[], Person]) -> Person:
    """Somebody who may only look at acme."""
    person = newcomer()
    installation.api("acme").call("PUT", f"/tenants/acme/members/{person.email}", {"role": "viewer"})
    return person


@dataclass
class Stage:
    """A project of acme with two releases, a failed push and calls that are refused."""

    repository: Repository
    url: str
    live: int
    failed: int
    host: str


@pytest.fixture(scope="package")
def stage(installation: Installation) -> Stage:
    repository = installation.project("acme", "stage")
    host = "stage"
    for version in ("one", "two"):
        assert repository.push(source(host, version, before=KNOCKING)).accepted
    assert not repository.push(source(host, "three", before="raise SystemExit(3)")).accepted
    failed, live, *_ = installation.deployments("acme", "stage")
    edges = installation.cell("acme", "stage", "/edges?denied=true")
    installation.wait(lambda: installation.api("acme").call("GET", edges), 30)
    return Stage(repository, "/acme/stage/production", live["id"], failed["id"], f"{host}.acme")
