"""What people come to the portal for, from the first click to the last."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable

import pytest

from tests.e2e.installation import Installation, source
from tests.web.browser.conftest import Person, Stage
from tests.web.browser.visitor import Visitor

pytestmark = pytest.mark.browser
Visit = Callable[[], Visitor]
NewPerson = Callable[[], Person]


def test_a_first_application_from_an_empty_tenant_to_live(
    visit: Visit, installation: Installation, newcomer: NewPerson
) -> None:
    """The page shows four commands and turns to live by itself while the push runs."""
    owner, tenant = newcomer(), f"t{secrets.token_hex(3)}"
    installation.api("admin").call("POST", "/admin/tenants", {"slug": tenant, "owner": owner.email})
    visitor = visit().sign_in(owner.email, owner.password)
    visitor.page.wait_for_url(f"**/{tenant}")
    visitor.see("Nothing here yet")
    assert visitor.inspect("empty-tenant") == []
    visitor.page.get_by_label("Name of the first project").fill("hello")
    visitor.press("Create it and show the commands")
    visitor.page.wait_for_url(f"**/{tenant}/hello/production")
    commands = visitor.page.locator("ol.first code").all_text_contents()
    portal = installation.config.portal_url
    assert len(commands) == 4
    assert commands[0] == f"cyto login --url {portal}"
    assert commands[2] == f"git remote add cytoplane {portal}/git/{tenant}/hello.git"
    assert commands[3] == "git push cytoplane main"
    assert visitor.inspect("empty-project") == []
    visitor.page.locator("[data-live][data-state=live]").wait_for()

    repository = owner.repository(tenant, "hello")
    repository.commit(source(f"hello-{tenant}", "one"))
    push = repository.start_push()
    visitor.page.get_by_role("link", name=re.compile("Follow deployment")).click()
    # The log is written while it is looked at, and is whole again after a reload.
    visitor.page.locator(".log .line").nth(3).wait_for(timeout=30_000)
    visitor.page.reload()
    assert visitor.page.locator("#L1").count() == 1
    visitor.go(f"/{tenant}/hello/production")
    visitor.page.locator(".chip.tone-ok", has_text="Serving").wait_for(timeout=60_000)
    output, _ = push.communicate(timeout=60)
    assert push.returncode == 0, output
    node = visitor.page.locator("svg.wide a.node")
    node.filter(has_text="1 of 1 serving").wait_for(timeout=15_000)
    assert installation.get(f"hello-{tenant}.{tenant}").text == "one"


def test_a_failed_push_says_what_failed_and_what_still_serves(
    visit: Visit, member: Person, stage: Stage
) -> None:
    visitor = visit().sign_in(member.email, member.password)
    attention = visitor.page.get_by_role("region", name="Needs a look")
    attention.get_by_role("link", name="The last deployment of stage to production failed.").click()
    visitor.page.wait_for_url(f"**{stage.url}/deployments/{stage.failed}")
    visitor.see(re.compile(r"The process of web ended with code "))
    visitor.see(re.compile(r"v2 still serves"))
    assert visitor.sees(re.compile("process-exited"))
    assert visitor.page.get_by_role("button", name="Try again").is_visible()
    visitor.go(stage.url)
    visitor.see(re.compile("The last deployment failed"))
    visitor.see(re.compile("v2 still serves"))


def test_a_log_shows_its_colours_and_links_to_lines(visit: Visit, member: Person, stage: Stage) -> None:
    visitor = visit().sign_in(member.email, member.password)
    visitor.go(f"{stage.url}/logs?q=plain")
    red = visitor.page.locator(".log .text span", has_text="red").first
    red.wait_for()
    assert "ansi" in (red.get_attribute("class") or "")
    assert "\x1b" not in visitor.page.locator(".log").inner_text()
    visitor.go(f"{stage.url}/deployments/{stage.live}")
    visitor.page.locator("#L2 a.n").click()
    assert visitor.page.url.endswith("#L2")
    visitor.page.reload()
    assert visitor.page.evaluate("document.querySelector('#L2:target') !== null")


def test_a_lost_stream_is_said_and_found_again(visit: Visit, member: Person, stage: Stage) -> None:
    visitor = visit().sign_in(member.email, member.password)
    visitor.page.route("**/events*", lambda route: route.abort())
    visitor.go(stage.url)
    visitor.see("Not live, reconnecting…")
    visitor.problems.clear()  # the browser's own words about the stream that was refused it
    visitor.page.unroute("**/events*")
    visitor.page.locator("[data-live][data-state=live]").wait_for(timeout=20_000)
    visitor.problems.clear()


def test_a_denied_call_is_seen_with_its_reason_and_what_would_open_it(
    visit: Visit, member: Person, stage: Stage
) -> None:
    visitor = visit().sign_in(member.email, member.password)
    visitor.go(stage.url)
    edge = visitor.page.locator("svg.wide g.edge.denied", has=visitor.page.locator(".pill")).first
    title = visitor.page.locator("svg.wide g.edge.denied title").first.text_content() or ""
    assert "203.0.113.9" in title
    assert "No declaration allows this external destination." in title
    edge.locator(".pill").click()
    sheet = visitor.page.get_by_role("region", name="About this edge")
    sheet.locator(".fix pre").wait_for()
    fix = sheet.locator(".fix pre").inner_text()
    assert "cidr: 203.0.113.9/32, port: 443, protocol: tcp" in fix
    assert visitor.accessibility() == []
    visitor.picture("denied-edge")
    row = visitor.page.locator("#edges tr.denied", has_text="203.0.113.9")
    row.get_by_role("link", name="What would open it").click()
    visitor.see(re.compile("egress is closed"))
    assert visitor.page.locator(".fix pre").inner_text() == fix


def test_a_project_in_audit_says_so_lets_pass_and_tells_what_it_would_have_to_declare(
    visit: Visit, member: Person, stage: Stage
) -> None:
    visitor = visit().sign_in(member.email, member.password)
    visitor.go(f"{stage.url}/settings")
    visitor.press("Let pass and report")
    try:
        visitor.see("stage is in audit.")
        visitor.go(stage.url)
        edge = visitor.page.locator("svg.wide g.edge.audited title", has_text="203.0.113.9").first
        edge.wait_for(state="attached", timeout=60_000)
        assert visitor.accessibility() == []
        visitor.picture("audited-edge")
        visitor.go(f"{stage.url}/learning")
        row = visitor.page.locator("tr", has_text="203.0.113.9/32 port 443/tcp")
        row.get_by_text("Would be denied").wait_for()
        assert "cidr: 203.0.113.9/32, port: 443" in visitor.page.locator(".fix pre").inner_text()
        assert visitor.inspect("learning-in-audit") == []
    finally:
        visitor.go(f"{stage.url}/settings")
        visitor.press("End audit and deny")
    visitor.see("What isn't declared is denied now.")
    visitor.go(stage.url)
    assert visitor.page.get_by_text("stage is in audit.").count() == 0


def test_a_rollback_brings_the_old_release_back(
    visit: Visit, installation: Installation, member: Person
) -> None:
    assert installation.project("acme", "undo").push(source("undo", "one")).accepted
    config = installation.cell("acme", "undo", "/config")
    installation.api("acme").call("PATCH", config, {"set": {"GREETING": "hello"}})
    installation.wait(lambda: installation.get("undo.acme").text == "one hello")
    visitor = visit().sign_in(member.email, member.password)
    visitor.go("/acme/undo/production/releases")
    visitor.page.get_by_text("Roll back to v1…").click()
    difference = visitor.page.locator("#v1 .diff li")
    assert difference.get_attribute("class") == "minus"
    assert difference.inner_text().endswith("variable GREETING")
    assert visitor.inspect("rollback") == []
    visitor.press("Roll back to v1")
    visitor.page.wait_for_url("**/deployments/*")
    visitor.page.locator(".verdict .word", has_text="Live").wait_for(timeout=30_000)
    visitor.see("v3 serves in production.")
    assert installation.get("undo.acme").text == "one", "code and configuration go back together"
    visitor.go("/acme/undo/production/releases")
    assert visitor.page.locator("#v3").get_by_text("same as v1").is_visible()


def test_members_are_added_look_and_are_removed(visit: Visit, member: Person, newcomer: NewPerson) -> None:
    owner, guest = visit().sign_in(member.email, member.password), newcomer()
    owner.go("/acme/-/members")
    owner.page.get_by_label("Email of the account").fill(guest.email)
    owner.page.get_by_label("Role", exact=True).select_option("viewer")
    owner.press("Add")
    owner.see(f"{guest.email} is viewer now.")

    visitor = visit().sign_in(guest.email, guest.password)
    visitor.page.wait_for_url("**/acme")
    assert not visitor.sees("New project")
    assert not visitor.page.get_by_role("link", name="Audit").is_visible()

    row = owner.page.locator("tr", has_text=guest.email)
    row.get_by_role("button", name="Remove…").click()
    dialog = owner.page.get_by_role("dialog", name=f"Remove {guest.email}?")
    owner.press("Remove", dialog)
    owner.see(f"{guest.email} isn't a member any more.")
    visitor.expected = {404}
    assert visitor.go("/acme").status == 404
    visitor.see("There is no such tenant that you can see.")


def test_an_admin_suspends_a_tenant_and_resumes_it(
    visit: Visit, installation: Installation, admin: Person, newcomer: NewPerson
) -> None:
    owner, tenant = newcomer(), f"t{secrets.token_hex(3)}"
    installation.api("admin").call("POST", "/admin/tenants", {"slug": tenant, "owner": owner.email})
    console = visit().sign_in(admin.email, admin.password)
    console.page.get_by_label("Find a tenant").fill(tenant)
    console.page.keyboard.press("Enter")
    console.page.get_by_role("link", name=tenant).click()
    console.press("Suspend…")
    dialog = console.page.get_by_role("dialog", name=f"Suspend {tenant}?")
    assert dialog.get_by_role("button", name="Suspend").is_disabled()
    dialog.get_by_label(f"Type {tenant} to confirm").fill(tenant)
    console.press("Suspend", dialog)
    console.see(f"{tenant} is suspended now.")

    visitor = visit().sign_in(owner.email, owner.password)
    visitor.see(f"{tenant} is suspended.")
    visitor.see("Nothing here yet")
    assert visitor.page.get_by_label("Name of the first project").count() == 0

    console.press("Resume…")
    dialog = console.page.get_by_role("dialog", name=f"Resume {tenant}?")
    dialog.get_by_label(f"Type {tenant} to confirm").fill(tenant)
    console.press("Resume", dialog)
    console.see(f"{tenant} is active now.")


def test_configuration_is_staged_as_a_difference_and_applied_together(
    visit: Visit, installation: Installation, member: Person
) -> None:
    assert installation.project("acme", "conf").push(source("conf", "one")).accepted
    visitor = visit().sign_in(member.email, member.password)
    page, value = visitor.page, f"secret-{secrets.token_hex(8)}"
    visitor.go("/acme/conf/production/configuration")
    page.get_by_label("Name").fill("GREETING")
    page.get_by_label("Value").fill("hello")
    visitor.press("Stage")
    page.get_by_label("Name").fill("API_KEY")
    page.get_by_label("Value").fill(value)
    page.get_by_label("Secret").check()
    visitor.press("Stage")
    visitor.see("2 changes staged")
    assert page.locator("#staged .diff .plus").all_text_contents() == ["GREETING=hello", "API_KEY=••••••••"]
    assert installation.get("conf.acme").text == "one", "nothing is applied yet"
    assert visitor.inspect("staged") == []
    visitor.press("Apply as one release")
    page.wait_for_url("**/deployments/*")
    page.locator(".verdict .word", has_text="Live").wait_for(timeout=30_000)
    assert installation.get("conf.acme").text == "one hello"
    visitor.see("variable API_KEY")

    visitor.go("/acme/conf/production/configuration")
    assert page.locator("tr[data-name=API_KEY]").get_by_text("secret").is_visible()
    assert value not in page.content()
    page.get_by_role("button", name="Change API_KEY").click()
    assert page.get_by_label("Value").input_value() == ""
    # What was staged can be taken back, and leaving doesn't lose it silently.
    page.get_by_role("button", name="Remove GREETING").click()
    assert page.locator("#staged .diff .minus").all_text_contents() == ["GREETING=hello"]
    visitor.press("Discard")
    assert page.locator("#staged").is_hidden()


def test_a_token_is_shown_once_and_works(visit: Visit, installation: Installation, member: Person) -> None:
    visitor = visit().sign_in(member.email, member.password)
    visitor.go("/-/tokens")
    visitor.page.get_by_label("Name").fill("pipeline")
    visitor.press("Make token")
    secret = visitor.page.locator("#secret").inner_text()
    assert secret.startswith("cy_")
    assert visitor.inspect("token-made") == []
    visitor.go("/-/tokens")
    assert secret not in visitor.page.content()
    visitor.press("Revoke pipeline")
    visitor.see("The token is revoked.")
    assert visitor.page.get_by_role("cell", name="pipeline").count() == 0


def test_the_portals_cookies_are_the_hosts_own_and_no_script_reads_them(visit: Visit, member: Person) -> None:
    visitor = visit().sign_in(member.email, member.password)
    cookies = visitor.cookies()
    assert [cookie["name"] for cookie in cookies] == ["cytoplane-session"], json.dumps(cookies)
    assert cookies[0]["httpOnly"]
    assert cookies[0]["sameSite"] == "Lax"
    assert not cookies[0]["domain"].startswith(".")
