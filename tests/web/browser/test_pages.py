"""Every page as a member, a viewer and a platform admin: no console errors, nothing from other sites,
nothing that the content security policy forbids, accessible in both schemes, whole on a phone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.installation import Installation
from tests.web.browser.conftest import Person, Stage
from tests.web.browser.visitor import Visitor

pytestmark = pytest.mark.browser
Visit = Callable[[], Visitor]


def tenant_pages(stage: Stage) -> dict[str, str]:
    cell, why = stage.url, "/acme/-/why?cell=stage/production"
    return {
        "tenant": "/acme",
        "new-project": "/acme/-/new",
        "why": "/acme/-/why",
        "why-denied": f"{why}&source=web&destination=203.0.113.9&port=443&protocol=tcp",
        "why-unknown": f"{why}&source=web&destination=nosuch",
        "why-allowed": f"{why}&source=internet&destination=web",
        "members": "/acme/-/members",
        "usage": "/acme/-/usage",
        "tokens": "/-/tokens",
        "cell": cell,
        "component": f"{cell}/components/web",
        "deployments": f"{cell}/deployments",
        "deployment-live": f"{cell}/deployments/{stage.live}",
        "deployment-failed": f"{cell}/deployments/{stage.failed}",
        "releases": f"{cell}/releases",
        "configuration": f"{cell}/configuration",
        "logs": f"{cell}/logs",
        "learning": f"{cell}/learning",
        "settings": f"{cell}/settings",
        "first-run": "/acme/stage/staging",
    }


ADMIN_PAGES = {
    "admin-tenants": "/admin",
    "admin-tenant": "/admin/tenants/acme",
    "admin-planes": "/admin/planes",
    "admin-edge": "/admin/edge",
    "admin-audit": "/admin/audit",
}


def walk(visitor: Visitor, pages: dict[str, str], who: str) -> None:
    found = []
    for name, path in pages.items():
        response = visitor.go(path)
        if response.status != 200:
            found.append(f"{path}: {response.status}")
            continue
        found += visitor.inspect(f"{who}-{name}")
    assert not found, "\n".join(found)


def test_the_door_is_in_order(visit: Visit) -> None:
    visitor = visit()
    visitor.go("/sign-in")
    assert visitor.inspect("sign-in") == []
    visitor.expected = {401}
    visitor.page.get_by_label("Email").fill("nobody@people.localhost")
    visitor.page.get_by_label("Password").fill("not the password")
    visitor.press("Sign in")
    visitor.see("Email and password don't match an account.")
    assert visitor.inspect("sign-in-failed") == []


def test_somebody_of_no_tenant_is_told_and_of_several_chooses(
    visit: Visit, installation: Installation, newcomer: Callable[[], Person]
) -> None:
    person = newcomer()
    visitor = visit().sign_in(person.email, person.password)
    visitor.see("You don't belong to a tenant yet")
    assert visitor.inspect("no-tenant") == []
    for tenant in ("acme", "globex"):
        path = f"/tenants/{tenant}/members/{person.email}"
        installation.api(tenant).call("PUT", path, {"role": "viewer"})
    visitor.go("/")
    visitor.see("Your tenants")
    assert visitor.inspect("tenants") == []
    visitor.page.get_by_role("link", name="globex").click()
    visitor.page.wait_for_url("**/globex")


def test_a_members_pages_are_in_order(visit: Visit, member: Person, stage: Stage) -> None:
    pages = tenant_pages(stage) | {"audit": "/acme/-/audit"}
    walk(visit().sign_in(member.email, member.password), pages, "member")


def test_a_viewers_pages_are_in_order_and_offer_no_changes(
    visit: Visit, viewer: Person, stage: Stage
) -> None:
    visitor = visit().sign_in(viewer.email, viewer.password)
    offered = []
    for name, path in tenant_pages(stage).items():
        assert visitor.go(path).status == 200, name
        if path == "/-/tokens":  # a viewer's own
            continue
        forms = visitor.page.locator("main form[method=post]")
        offered += [f"{path}: {form.get_attribute('action')}" for form in forms.all()]
    assert offered == []
    visitor.go(stage.url)
    assert visitor.inspect("viewer-cell") == []


def test_an_admins_pages_are_in_order(visit: Visit, admin: Person, stage: Stage) -> None:
    walk(visit().sign_in(admin.email, admin.password), ADMIN_PAGES, "admin")


def test_an_error_page_has_an_id_a_sentence_and_a_next_step(visit: Visit, member: Person) -> None:
    visitor = visit().sign_in(member.email, member.password)
    visitor.expected = {404}
    response = visitor.go("/acme/nothing-of-that-name")
    assert response.status == 404
    visitor.see("There is no such project that you can see.")
    visitor.see("Check the name, or ask its owner for access.")
    assert visitor.sees(response.headers["x-request-id"])
    assert visitor.inspect("error") == []
    visitor.page.get_by_role("link", name="Back to the start").click()
    visitor.page.wait_for_url("**/acme")
