"""What a tenant does with its applications, the same on each engine. docs/engines.md is made from this."""

from __future__ import annotations

import json

import pytest

from infra.install import InstallError
from tests.cluster import LONGEST
from tests.e2e.engines import BRANCHES, TENANT, Engine
from tests.e2e.installation import Repository, source
from tests.e2e.outside import PORT, outside

pytestmark = [pytest.mark.live, pytest.mark.root, pytest.mark.timeout(LONGEST)]
#: Two components of a cell that declare nothing of each other; the first one tries what it is asked to.
_PAIR = """
components:
  web:
    kind: web
    path: web
    command: exec python server.py
    endpoints:
      http: {port: 8080, protocol: http, visibility: public, host: pair}
  quiet:
    kind: service
    path: web
    command: exec python server.py
    endpoints:
      raw: {port: 8080, protocol: tcp, visibility: cell}
"""
_TRYING = """
import http.server, json, os, socket, urllib.parse
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        host, _, port = urllib.parse.urlsplit(self.path).query.partition(":")
        said = "here"
        if host:
            try:
                socket.create_connection((host, int(port)), timeout=2).close()
                said = "reached"
            except OSError as error:
                said = str(error)
        self.send_response(200)
        self.send_header("Content-Length", str(len(said.encode())))
        self.end_headers()
        self.wfile.write(said.encode())
    def log_message(self, *arguments):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::", int(os.environ["PORT"])), Handler).serve_forever()
"""
PAIR = {"cytoplane.yaml": _PAIR, "web/requirements.txt": "", "web/server.py": _TRYING}


@pytest.fixture(scope="module")
def samples(engine: Engine) -> Engine:
    """The three sample applications, pushed."""
    for folder in ("storefront", "docs-site", "prober"):
        result = engine.sample(folder)
        assert result.accepted, result.output
    return engine


@pytest.fixture(scope="module")
def shop(engine: Engine) -> Repository:
    """A project whose first release serves."""
    result = engine.push("shop", source("shop", "one"))
    assert result.accepted, result.output
    engine.serves("shop", "one")
    return engine.project("shop")


@pytest.fixture(scope="module")
def pair(engine: Engine) -> Engine:
    result = engine.push("pair", PAIR)
    assert result.accepted, result.output
    return engine


@pytest.fixture(scope="module")
def damaged(samples: Engine) -> Engine:
    """One of the samples, ended behind the platform's back."""
    samples.damage("docs-site")
    return samples


@pytest.mark.capability("join", "kubernetes-private")
def test_a_plane_that_joined_by_the_printed_command_alone_is_its_owners(engine: Engine) -> None:
    if engine.name != "kubernetes-private":
        pytest.skip("this plane didn't join like that")
    assert engine.plane is not None
    seen = engine.installation.api(TENANT).call("GET", f"/planes/{engine.plane.name}")
    assert (seen["owner"], seen["driven"], seen["offline_since"]) == (TENANT, "pulled", None)
    assert {node["kind"] for node in seen["nodes"]} == {"agent", "controller"}
    with pytest.raises(InstallError, match="no such plane"):
        engine.installation.api("acme").call("GET", f"/planes/{engine.plane.name}")


@pytest.mark.capability("push")
def test_a_push_ends_when_its_release_answers_at_its_public_host(engine: Engine, shop: Repository) -> None:
    assert engine.get("shop").text == "one"
    assert engine.deployment("shop")["state"] == "live"
    assert [row["phase"] for row in engine.replicas("shop")] == ["healthy"]


@pytest.mark.capability("samples")
def test_the_samples_answer_at_their_public_hosts_and_nothing_else_does(samples: Engine) -> None:
    for host in ("docs-site", "prober"):
        samples.installation.wait(lambda host=host: samples.get(host).status_code == 200)  # type: ignore[misc]
    samples.installation.wait(lambda: "Brass lantern" in samples.get("storefront").text)
    for host in ("api.storefront", "nobody"):
        assert samples.get(host).status_code == 404


# A damage is found at the next look at the cell, within two minutes: it is done early and looked at last.
@pytest.mark.usefixtures("damaged")
@pytest.mark.capability("allowed call")
def test_a_declared_call_passes_and_its_provider_is_told_who_calls(samples: Engine) -> None:
    answer = samples.get("storefront")
    assert answer.status_code == 200
    assert f"{TENANT}/storefront/web" in answer.text


def _attempts(engine: Engine) -> dict[str, str]:
    """What came of the prober's attempts at the storefront's API: by name and by address."""
    targets = ["api.storefront:9000"]
    targets += [f"{address}:9000" for address in engine.addresses("storefront", "api")]
    assert len(targets) > 1
    query = "&".join(f"to={target}" for target in targets)
    rows = engine.get("prober", f"/try?{query}").json()["attempts"]
    return {row["host"]: row["outcome"] for row in rows}


@pytest.mark.capability("denied call")
def test_what_nobody_declared_is_refused(samples: Engine) -> None:
    outcomes = _attempts(samples)
    assert "reached" not in outcomes.values(), outcomes


@pytest.mark.capability("flows")
def test_allowed_and_refused_calls_are_seen_with_a_sentence(samples: Engine) -> None:
    assert samples.get("storefront").status_code == 200
    _attempts(samples)
    wait = samples.installation.wait
    denied = wait(lambda: samples.call("GET", "prober", "/edges?denied=true"), 30)
    assert all(row["sentence"] and row["verdict"] == "denied" for row in denied), denied

    def allowed() -> bool:
        """By way of the gateway, which knows both."""
        rows = samples.call("GET", "storefront", "/edges?denied=false")
        return {("web", "gateway"), ("gateway", "api")} <= {
            (row["source"], row["destination"]) for row in rows
        }

    wait(allowed, 30)


@pytest.mark.capability("why")
def test_a_person_is_told_why(samples: Engine) -> None:
    own = samples.call("GET", "storefront", "/why?source=web&destination=api")
    assert own["allowed"] is True
    assert own["via_gateway"] is True
    other = samples.call("GET", "prober", "/why?source=web&destination=api.storefront")
    assert other["allowed"] is False
    assert other["sentence"]


@pytest.mark.capability("logs")
def test_lines_of_a_process_are_shown(engine: Engine, shop: Repository) -> None:
    def lines() -> list[str]:
        return [row["text"] for row in engine.call("GET", "shop", "/logs?component=web")]

    engine.installation.wait(lambda: "starting one" in lines(), 30)


@pytest.mark.capability("exec")
def test_a_command_runs_in_a_replica_with_input_output_and_its_exit_code(
    engine: Engine, shop: Repository
) -> None:
    program = "import os, sys; print(os.environ['CYTOPLANE_COMPONENT'], len(sys.stdin.read())); sys.exit(7)"
    done = engine.cyto("shop", "exec", "web", "--", "python", "-c", program, input="x" * 5000)
    assert (done.returncode, done.stdout) == (7, "web 5000\n"), done.stderr
    nowhere = engine.cyto("shop", "exec", "web", "--", "/nowhere")
    assert (nowhere.returncode, "There is no such program" in nowhere.stderr) == (10, True), nowhere


@pytest.mark.capability("external names")
def test_a_declared_name_of_the_outside_world_is_reached_and_no_other(engine: Engine) -> None:
    declared = ", ".join(
        f"{{external: {{host: {host}, port: {PORT}}}, as: {name}}}"
        for host, name in (("api.example.test", "PARTNER"), ("rebinding.example.test", "TRAP"))
    )
    components = f"""
components:
  web: {{kind: worker, command: exec sleep 100000, connections: [{declared}]}}
  quiet: {{kind: worker, command: exec sleep 100000}}
"""
    result = engine.push("names", {"cytoplane.yaml": components, "requirements.txt": ""})
    assert result.accepted, result.output
    with outside(engine.installation.config.net) as world, engine.reaching(world.internet):

        def found(component: str) -> dict[str, str]:
            done = engine.cyto("names", "exec", component, "--", "python", "-c", world.call)
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        world.check(found("web"))
        refused = found("quiet")
        assert refused["name"] == "gaierror"
        assert refused["address"] != world.first
        assert "other.test" not in world.server.names(), "nobody declared it, so nobody is asked"


@pytest.mark.capability("scale")
def test_more_and_fewer_replicas_serve(engine: Engine, shop: Repository) -> None:
    for number in (2, 1):
        engine.call("POST", "shop", "/scale", {"numbers": {"web": number}})
        assert engine.ended("shop")["state"] == "live"
        assert [row["phase"] for row in engine.replicas("shop")] == ["healthy"] * number
        assert engine.get("shop").text == "one"


@pytest.mark.capability("configuration")
@pytest.mark.capability("rollback")
def test_a_setting_makes_a_release_and_going_back_undoes_it_with_the_code(
    engine: Engine, shop: Repository
) -> None:
    good = engine.serving("shop")["number"]
    engine.call("PATCH", "shop", "/config", {"set": {"GREETING": "hello"}})
    engine.serves("shop", "one hello")
    result = engine.push("shop", source("shop", "two"))
    assert result.accepted, result.output
    engine.serves("shop", "two hello")
    engine.call("POST", "shop", f"/releases/{good}/rollback")
    engine.serves("shop", "one")
    assert engine.ended("shop")["state"] == "live"


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        pytest.param(
            {"before": "raise SystemExit('no database here')"}, "process-exited", "no database here",
            marks=pytest.mark.capability("failed start"), id="start",
        ),
        pytest.param(
            {"unhealthy": True, "grace": 2}, "probe-failed", "GET /healthz on port 8080",
            marks=pytest.mark.capability("failed check"), id="check",
        ),
    ],
)  # fmt: skip
def test_a_push_that_fails_says_why_and_the_old_release_serves(
    engine: Engine, shop: Repository, more: dict, error: str, said: str
) -> None:
    before = engine.get("shop").text
    result = engine.push("shop", source("shop", "bad", **more))
    assert not result.accepted
    assert f"error id: {error}" in result.output, result.output
    assert said in result.output, result.output
    assert "still serves" in result.output
    assert engine.get("shop").text == before
    assert engine.deployment("shop")["error"]["id"] == error


@pytest.mark.capability("promotion")
def test_a_release_goes_to_the_other_environment_and_back_without_being_rebuilt(engine: Engine) -> None:
    """From the other environment, which is on the machine, and what was pushed here to there."""
    for origin, target, version in ((engine.other, engine.environment, "there"), (engine.environment, engine.other, "back")):  # fmt: skip
        result = engine.push("moved", source("moved", version), origin)
        assert result.accepted, result.output
        release = engine.serving("moved", origin)
        engine.call("POST", "moved", f"/releases/{release['number']}/promote", {"to": target}, origin)
        engine.serves("moved", version, environment=target)
        promoted = engine.serving("moved", target)
        assert promoted["promoted_from"] == {"environment": origin, "number": release["number"]}
        assert engine.images("moved", promoted["number"], target) == engine.images(
            "moved", release["number"], origin
        )
        row = engine.deployment("moved", target)
        whole = engine.call("GET", "moved", f"/deployments/{row['id']}", environment=target)
        assert "build" not in {step["name"] for step in whole["steps"]}


@pytest.mark.capability("strict")
@pytest.mark.capability("audit")
def test_strict_closes_what_a_cell_didnt_declare_and_audit_lets_it_pass_and_proposes_it(pair: Engine) -> None:
    def said(text: str) -> None:
        pair.installation.wait(
            lambda: (pair.get("pair", "/?quiet:8080").text == "reached") is (text == "reached"), 30
        )

    def change(**what: bool) -> None:
        pair.installation.api(TENANT).call("PATCH", f"/tenants/{TENANT}/projects/pair", what)

    said("reached")
    change(strict=True)
    said("refused")
    change(audit=True)
    said("reached")
    pair.installation.wait(lambda: "quiet" in json.dumps(pair.call("GET", "pair", "/learn")), 30)
    change(audit=False)
    said("refused")


@pytest.mark.capability("offline", "machine", "kubernetes-private")
def test_a_push_to_a_plane_that_is_away_fails_and_says_so_or_waits(engine: Engine, shop: Repository) -> None:
    if engine.name == "kubernetes-shared":
        pytest.skip("workers drive it: there is nothing that could be away")
    before = engine.get("shop").text
    engine.offline()
    try:
        result = engine.push("shop", source("shop", "late"))
        assert not result.accepted
        assert "error id: plane-offline" in result.output, result.output
        # What runs there goes on.
        assert engine.get("shop").text == before
        shop.commit(source("shop", "waited"))
        push = shop.start_push(f"+main:{BRANCHES[engine.environment]}", "-o", "wait")
        log = engine.installation.wait(lambda: "this deployment waits for it" in engine.log("shop"), 60)
        assert log
    finally:
        engine.online()
    said, _ = push.communicate(timeout=150)
    assert push.returncode == 0, said
    # Behind it may stand what another test has set.
    engine.installation.wait(lambda: engine.get("shop").text.startswith("waited"), 60)


@pytest.mark.capability("drift")
def test_what_somebody_ended_is_put_back(damaged: Engine) -> None:
    def whole() -> bool:
        rows = damaged.replicas("docs-site")
        return rows[0]["phase"] == "healthy" and damaged.get("docs-site").status_code == 200

    damaged.installation.wait(whole, 150)
