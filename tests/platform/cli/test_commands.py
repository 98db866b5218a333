"""Every command against the real API, for people and for programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import pytest

from autoscaling import actions as autoscaling
from autoscaling import load
from cli import errors, progress
from delivery.models import Deployment, LogChunk, Replica
from projects.models import Project
from telemetry.models import Edge, LogLine
from tenants.models import Tenant
from tests import factories
from tests.platform.cli.conftest import Platform

SHOP = """
components:
  web:
    kind: web
    command: serve
    endpoints: {http: {port: 8080, visibility: public, host: shop}}
    connections: [{to: api}, {external: {cidr: 192.0.2.0/24, port: 443, protocol: tcp}}]
  api:
    kind: service
    command: serve
    endpoints: {http: {port: 9000}}
"""


@pytest.fixture
def shop(platform: Platform) -> Platform:
    """acme's project with two releases, a failed deployment, a line of a log, a denied call."""
    world = platform.world
    cell = world.cell(world.project("shop"))
    for _ in range(2):
        world.deploy(cell, SHOP)
    failed = world.push(cell, summary="Broken \x1b[2Jchange")
    error = {"id": "build-failed", "message": "The build of web failed.", "next": "Mend it."}
    Deployment.objects.filter(pk=failed.pk).update(
        state="failed",
        error=error,
        error_code="build-failed",
        ended_at="2030-01-01T00:00:00Z",
        still_serving="v2",
    )
    LogChunk.objects.create(deployment=failed, text="-----> \x1b[31mfirst\x1b[0m\nlast\n")
    LogLine.objects.create(
        cell=cell,
        component="web",
        replica=1,
        stream="stdout",
        at="2030-01-01T00:00:00Z",
        text="hello \x1b[2J\x07you",
    )
    web = cell.workloads.get(component__name="web").identity
    api = cell.workloads.get(component__name="api").identity
    from django.utils import timezone

    common = {"cell": cell, "protocol": 6, "last_at": timezone.now(), "packets": 3, "bytes": 180}
    names = {field.name for field in Edge._meta.get_fields()}
    values = {
        **common, "source": web, "destination": api, "port": 5432, "direction": 0, "verdict": 2,
        "reason": "NO_RULE", "rule": 0, "remote": "", "minute": timezone.now(),
    }  # fmt: skip
    Edge.objects.create(**{key: value for key, value in values.items() if key in names})
    platform.stand_in()
    platform.failed = failed.pk
    platform.cell = cell
    return platform


#: Words, and what a person sees of it.
READING = [
    ("whoami", "owner@acme.example.org"),
    ("tokens", "deploy, manage, read"),
    ("tenants", "acme"),
    ("tenants show acme", "memory mib"),
    ("tenants audit", "project.create"),
    ("members", "viewer@acme.example.org"),
    ("projects", "shop"),
    ("projects show", "v2"),
    ("environments", "staging"),
    ("components", "http://shop.acme.localhost"),
    ("open", "http://shop.acme.localhost"),
    ("open web", "http://shop.acme.localhost"),
    ("open --portal", "/acme/shop/production"),
    ("config", ""),
    ("config diff staging production", ""),
    ("releases", "v2"),
    ("deployments", "build-failed"),
    ("deployments show {failed}", "The build of web failed. (build-failed)"),
    ("deployments log {failed}", "-----> first\nlast\n"),
    ("ps", "web.1"),
    ("logs", "web[r1] hello"),
    ("logs api", ""),
    ("edges", "api:5432/tcp"),
    ("edges --denied", "NO_RULE"),
    ("denied", "NO_RULE"),
    ("connections", "192.0.2.0/24"),
    ("why web api:9000", "allowed"),
    ("why web api", "allowed"),
    ("why internet web", "allowed"),
    ("why api web:80", "declares no endpoint on port 80/tcp"),
    ("why web resolver:53/udp", "allowed"),
    ("why api internet:443", "What would open it:"),
    ("audit", "isn't in audit"),
    ("audit show", "isn't in audit"),
    ("learn", ""),
    ("why web 192.0.2.9:443", "allowed"),
    ("why api 192.0.2.9:443/tcp", "What would open it:"),
    ("version", "cyto "),
    ("completion zsh", "compdef"),
    ("git setup", ""),
]


def test_what_can_be_read_is_readable_for_people_and_for_programs(shop: Platform) -> None:
    for words, expected in READING:
        written = words.format(failed=shop.failed).split()
        ran = shop.cyto(*written)
        assert ran.code == 0, (words, ran.err)
        assert expected in ran.out, (words, ran.out)
        assert "\x1b" not in ran.out, words
        assert "\x07" not in ran.out, words
        raw = shop.cyto(*written, "--json")
        assert raw.code == 0
        assert isinstance(raw.json, dict | list), words
        assert "error id" not in raw.err


def test_topics_and_verbs_are_spelled_either_way(shop: Platform) -> None:
    one, two, three = (shop.cyto(*words.split()).json for words in
                       ("releases --json", "releases list --json", "releases:list --json"))  # fmt: skip
    assert one == two == three
    assert [row["number"] for row in one] == [2, 1]


def test_nothing_is_cut_where_no_person_looks(shop: Platform) -> None:
    long = "x" * 600
    shop.cyto("config", "set", f"LONG={long}", "--no-wait")
    assert long in shop.cyto("config").out


def test_on_a_terminal_tables_keep_to_its_width(shop: Platform) -> None:
    shop.cyto("config", "set", "LONG=" + "x" * 200, "--no-wait")
    for words in ("config", "deployments", "edges", "tenants audit", "components"):
        ran = shop.cyto.terminal(*words.split())
        assert ran.code == 0
        import re

        lines = re.sub(r"\x1b\[[0-9;]*m", "", ran.out).splitlines()
        assert max(len(line) for line in lines) <= 80 or words == "edges", words


def test_a_pipe_that_closes_early_is_no_failure(shop: Platform) -> None:
    command = [*shop.cyto.command, "help", "--json"]
    process = subprocess.Popen(
        command, env=shop.cyto.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(60) == 0


def test_foreign_and_missing_things_are_told_the_same(shop: Platform) -> None:
    for words in ("ps", "config", "releases", "logs", "edges", "why web api", "projects show", "open",
                  "learn", "audit", "audit on"):  # fmt: skip
        seen = [shop.cyto(*words.split(), "-t", tenant) for tenant in ("globex", "nowhere")]
        assert [ran.code for ran in seen] == [errors.NOT_FOUND] * 2, words
        assert seen[0].err.split(", request")[0] == seen[1].err.split(", request")[0]


def test_a_project_from_its_creation_to_its_end(platform: Platform) -> None:
    cyto = platform.cyto
    ran = cyto("projects", "create", "shop", "-t", "acme", "--description", "Things to buy")
    assert f"git remote add cytoplane {platform.url}/git/acme/shop.git" in ran.err
    again = cyto("projects", "create", "shop", "-t", "acme")
    assert (again.code, again.error) == (errors.CONFLICT, "name-taken")
    assert cyto("projects", "create", "No Name", "-t", "acme").error == "invalid-name"
    for mode in (("projects", "strict"), ("audit",)):
        for word in ("on", "off"):
            answer = cyto(*mode, word, "-t", "acme", "-p", "shop", "--json").json
            assert answer[mode[-1]] is (word == "on")
            assert getattr(Project.objects.get(slug="shop"), mode[-1]) is (word == "on")
    platform.be("viewer")
    for mode in (("projects", "strict"), ("audit",)):
        assert cyto(*mode, "on", "-t", "acme", "-p", "shop").code == errors.FORBIDDEN
    platform.be("owner")
    for wrong in ((), ("--confirm", "shops")):
        ran = cyto("projects", "destroy", "shop", "-t", "acme", *wrong)
        assert (ran.code, ran.error) == (errors.USAGE, "confirmation-missing")
    assert Project.objects.filter(slug="shop").exists()
    assert cyto("projects", "destroy", "shop", "-t", "acme", "--confirm", "shop", "--json").json == {}
    assert not Project.objects.filter(slug="shop").exists()


def test_a_confirmation_is_asked_for_on_a_terminal(platform: Platform) -> None:
    platform.world.project("shop")
    words = ("projects", "destroy", "shop", "-t", "acme")
    ran = platform.cyto.terminal(*words, answers={"to confirm: ": "no\n"})
    assert ran.code == errors.USAGE
    ran = platform.cyto.terminal(*words, answers={"to confirm: ": "shop\n"})
    assert ran.code == 0
    assert not Project.objects.filter(slug="shop").exists()


def test_members_come_change_and_go(platform: Platform) -> None:
    cyto, email = platform.cyto, factories.user("new@example.org").email
    assert cyto("members", "add", email, "-t", "acme", "--json").json["role"] == "developer"
    assert "is viewer of acme" in cyto("members", "add", email, "-t", "acme", "--role", "viewer").err
    assert cyto("members", "add", email, "-t", "acme", "--role", "king").code == errors.USAGE
    assert cyto("members", "add", "nobody@example.org", "-t", "acme").code == errors.NOT_FOUND
    assert cyto("members", "remove", email, "-t", "acme").error == "confirmation-missing"
    assert cyto("members", "remove", email, "-t", "acme", "--confirm", email).code == 0
    assert cyto("members", "remove", email, "-t", "acme", "--confirm", email).code == errors.NOT_FOUND
    owner = "owner@acme.example.org"
    ran = cyto("members", "remove", owner, "-t", "acme", "--confirm", owner)
    assert (ran.code, ran.error) == (errors.CONFLICT, "last-owner")


def test_roles_and_scopes_have_an_exit_code(platform: Platform) -> None:
    platform.be("viewer")
    ran = platform.cyto("projects", "create", "shop", "-t", "acme")
    assert (ran.code, ran.error) == (errors.FORBIDDEN, "forbidden")
    platform.be("owner", scopes=("read",))
    ran = platform.cyto("projects", "create", "shop", "-t", "acme", "--json")
    assert (ran.code, ran.json["error"]["id"]) == (errors.FORBIDDEN, "token-scope")
    assert ran.json["error"]["request_id"]


def test_tokens_are_printed_once(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    cyto = platform.cyto
    ran = cyto("tokens", "create", "ci", "--scope", "read", "--scope", "deploy", "--only-tenant", "acme")
    secret = ran.out.strip()
    assert secret.startswith("cy_")
    row = next(row for row in cyto("tokens", "--json").json if row["name"] == "ci")
    assert (row["scopes"], row["tenant"]) == (["deploy", "read"], "acme")
    assert secret not in cyto("tokens", "--json").out
    assert "is revoked" in cyto("tokens", "revoke", str(row["id"])).err
    assert cyto("tokens", "revoke", str(row["id"])).code == errors.NOT_FOUND
    monkeypatch.setenv("CYTO_TOKEN", secret)
    assert cyto("whoami").code == errors.NOT_SIGNED_IN


def test_platform_admins_make_accounts_and_tenants(platform: Platform) -> None:
    cyto = platform.cyto
    ran = cyto("tenants", "create", "initech")
    assert (ran.code, ran.error) == (errors.NOT_FOUND, "not-found")
    platform.be("platform")
    words = ("users", "create", "boss@initech.example.org", "--password-stdin")
    assert cyto(*words, data=f"{factories.PASSWORD}\n").code == 0
    assert cyto(*words, data=f"{factories.PASSWORD}\n").error == "name-taken"
    assert cyto("users", "create", "x", "--password-stdin", data="short\n").code == errors.USAGE
    made = cyto("tenants", "create", "initech", "--owner", "boss@initech.example.org", "--json")
    assert made.json["slug"] == "initech"
    assert cyto("tenants", "suspend", "initech").error == "confirmation-missing"
    assert cyto("tenants", "suspend", "initech", "--confirm", "initech").code == 0
    assert Tenant.objects.get(slug="initech").state == "suspended"
    assert cyto("tenants", "resume", "initech", "--json").json["state"] == "active"
    assert cyto("planes", "--json").json[0]["name"] == "shared"
    assert cyto("planes", "token", "shared", "--json").json["token"]
    assert cyto("planes", "token", "nowhere").code == errors.NOT_FOUND
    assert cyto("planes", "revoke", "99999").code == errors.NOT_FOUND


def test_configuration_shows_what_changes_and_never_a_secret(platform: Platform) -> None:
    platform.world.project("shop")
    platform.stand_in()
    cyto = platform.cyto
    ran = cyto("config", "set", "LEVEL=info", "MODE=a=b")
    assert "+ LEVEL=info" in ran.err
    assert "+ MODE=a=b" in ran.err
    ran = cyto("config", "set", "LEVEL=debug", "MODE=a=b")
    assert "~ LEVEL=debug   (was info)" in ran.err
    assert "MODE" not in ran.err
    assert "Nothing is different" in cyto("config", "set", "LEVEL=debug").err
    ran = cyto("config", "secret", "KEY", data="swordfish\n")
    assert "+ KEY=(secret)" in ran.err
    assert cyto("config", "secret", "KEY", data="").code == errors.USAGE
    for words in (("config",), ("config", "--json"), ("config", "diff", "staging", "production")):
        shown = cyto(*words)
        assert "swordfish" not in shown.out + shown.err
    rows = cyto("config", "diff", "staging", "production", "--json").json
    assert [(row["name"], row["staging"], row["production"]) for row in rows] == [
        ("KEY", None, "(secret)"), ("LEVEL", None, "debug"), ("MODE", None, "a=b"),
    ]  # fmt: skip
    assert "- KEY" in cyto("config", "unset", "KEY", "MODE").err
    assert cyto("config", "set", "PORT=1").code == errors.USAGE
    assert cyto("config", "set", "A=1", "--component", "nothing").code == errors.NOT_FOUND
    assert cyto("config", "-e", "nowhere").code == errors.NOT_FOUND


def test_a_secret_is_asked_for_without_showing_it(platform: Platform) -> None:
    platform.world.project("shop")
    platform.stand_in()
    ran = platform.cyto.terminal("config", "secret", "KEY", answers={"Value of KEY: ": "swordfish\n"})
    assert ran.code == 0
    assert "swordfish" not in ran.out


def test_what_makes_a_deployment_tells_its_number(shop: Platform) -> None:
    cyto = shop.cyto
    # The rollback that waits takes the scale along.
    for words, kind in (
        ("rollback v1", "rollback"), ("rollback", "rollback"), ("scale web=2 api=1", "rollback"),
        ("deployments retry {failed}", "push"),
    ):  # fmt: skip
        written = words.format(failed=shop.failed).split()
        ran = cyto(*written, "--no-wait", "--json")
        assert ran.code == 0, ran.err
        assert ran.json["kind"] == kind
        waiting = ran.json["id"]
    ran = cyto("promote", "staging", "--environment", "production", "--no-wait", "--json")
    assert (ran.code, ran.json["kind"]) == (0, "promotion"), ran.err
    assert cyto("config", "set", "A=1", "--no-wait", "--json").json["changed"] is True
    assert "being cancelled" in cyto("deployments", "cancel", str(waiting)).err
    ran = cyto("deployments", "cancel", str(shop.failed))
    assert (ran.code, ran.error) == (errors.CONFLICT, "conflict")
    for words in ("rollback v99", "deployments show 99999", "deployments log 99999", "deployments retry 99999",
                  "scale nothing=1"):  # fmt: skip
        assert cyto(*words.split()).code == errors.NOT_FOUND, words
    assert cyto("scale", "web=51").code == errors.USAGE


def test_scale_shows_numbers_and_what_load_decides(platform: Platform) -> None:
    world, cyto = platform.world, platform.cyto
    cell = world.cell(world.project("shop"))
    platform.stand_in()
    assert "Nothing has replicas" in cyto("scale").err
    text = "web: {kind: web, command: serve, replicas: {min: 1, max: 4, cpu: 50}}"
    world.deploy(cell, f"components: {{{text}, task: {{command: work, replicas: 2}}}}")
    lines = cyto("scale").out.splitlines()
    assert [line.split()[:2] for line in lines] == [["COMPONENT", "REPLICAS"], ["task", "2"], ["web", "1"]]
    assert "1 to 4  not measured yet" in lines[2]
    replica = Replica.objects.get(workload__component__name="web")
    load.record(world.plane, [{"id": f"r{replica.pk}", "cpu": 0.5}])
    assert autoscaling.look(cell.pk) is not None
    assert "1 to 2: CPU 100 % of the limit, 50 wanted" in cyto("scale").out
    found = {row["component"]: row["autoscaling"] for row in cyto("scale", "--json").json}
    assert found["task"] is None
    assert (found["web"]["target"], found["web"]["seen"]["cpu"]) == ({"cpu": 50, "requests": None}, 100.0)
    assert cyto("scale", "web=5", "--no-wait").error == "scales-itself"
    ran = cyto("scale", "web=3", "--no-wait")
    assert "Following load: web. The number holds until the next decision." in ran.err


def test_nothing_to_go_back_to_is_a_conflict(platform: Platform) -> None:
    platform.world.project("shop")
    platform.stand_in()
    for words in ("rollback", "scale web=2", "promote production"):
        ran = platform.cyto(*words.split())
        assert (ran.code, ran.error) == (errors.CONFLICT, "nothing-released"), words
    ran = platform.cyto("open")
    assert (ran.code, ran.error) == (errors.NOT_FOUND, "no-address")


def test_a_deployment_is_followed_to_its_end_and_the_exit_code_says_how(shop: Platform) -> None:
    """A process follows while the deployment goes on."""
    world, cell, cyto = shop.world, shop.cell, shop.cyto
    deployment = world.push(cell)
    LogChunk.objects.create(deployment=deployment, text="-----> before\n")
    process = subprocess.Popen(
        [*cyto.command, "deployments", "log", str(deployment.pk), "--follow"],
        env=cyto.environment, cwd=cyto.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "-----> before\n"
    world.carry(deployment, SHOP)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "is live in production" in out
    failed = str(shop.failed)
    ran = cyto("deployments", "log", failed, "--follow")
    assert (ran.code, ran.error) == (errors.FAILED, "build-failed")
    assert "v2 still serves." in ran.err
    raw = cyto("deployments", "log", failed, "--follow", "--json")
    assert (raw.code, raw.json["id"]) == (errors.FAILED, int(failed))


def test_a_log_goes_on_where_it_was_when_the_connection_was_lost(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.time, "sleep", lambda _: None)
    lost = errors.CliError("Away.", "", "unreachable", errors.UNREACHABLE)

    class Away:
        """Three streams: the first breaks in the middle of a line, the second ends too early."""

        streams: list[list[Any]] = [["one\ntw", lost], ["one\ntwo\n"], ["one\n", "two\nthree\n"]]
        states: list[dict] = [{"ended_at": None}, {"ended_at": "now", "state": "live", "id": 1}]

        def stream(self, *_: object, **__: object):  # type: ignore[no-untyped-def]
            for piece in self.streams.pop(0):
                if isinstance(piece, Exception):
                    raise piece
                yield piece

        def get(self, *_: object) -> dict:
            return self.states.pop(0)

    written: list[str] = []
    found = progress.stream_log(Away(), "/x", written.append)  # type: ignore[arg-type]
    assert "".join(written) == "one\ntwo\nthree\n"
    assert found["state"] == "live"


def test_following_logs_prints_lines_as_they_come_and_ends_with_ctrl_c(shop: Platform) -> None:
    cyto = shop.cyto
    process = subprocess.Popen(
        [*cyto.command, "logs", "--follow", "--json"],
        env=cyto.environment, cwd=cyto.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["text"].startswith("hello")
    LogLine.objects.create(
        cell=shop.cell,
        component="web",
        replica=1,
        stream="stdout",
        at="2030-01-01T00:00:01Z",
        text="again",
    )
    assert json.loads(process.stdout.readline())["text"] == "again"
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(30) == errors.INTERRUPTED
    assert process.stderr.read() == "Stopped.\n"


def test_a_suspended_tenant_is_told(platform: Platform) -> None:
    Tenant.objects.filter(slug="acme").update(state="suspended")
    ran = platform.cyto("projects", "create", "shop", "-t", "acme")
    assert (ran.code, ran.error) == (errors.FORBIDDEN, "tenant-suspended")


def test_a_quota_is_a_conflict(platform: Platform) -> None:
    platform.world.plan.projects = 0
    platform.world.plan.save()
    ran = platform.cyto("projects", "create", "shop", "-t", "acme")
    assert (ran.code, ran.error) == (errors.CONFLICT, "quota")


def test_credentials_are_never_arguments_of_a_process(platform: Platform) -> None:
    """Options that would take a secret don't exist."""
    names = {
        name
        for command in platform.cyto("help", "--json").json["commands"]
        for option in command["options"]
        for name in option["names"]
    }
    assert not names & {"--password", "--token", "--secret"}
