"""From files to a specification: what is understood, and errors that say where and what instead."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cells.specification import (
    Component,
    Connection,
    Endpoint,
    External,
    Health,
    Limits,
    Scaling,
    Specification,
    SpecificationError,
    parse,
)

DETECTED = {".": "dockerfile", "api": "python", "docs": "static"}


def read(
    text: str = "", procfile: str = "", project: str = "shop", detected: dict | None = None
) -> Specification:
    files = {"cytoplane.yaml": text, "Procfile": procfile}
    return parse(files, project=project, detected=DETECTED if detected is None else detected)


def component(declared: str) -> Component:
    return read(f"components: {{web: {declared}}}").components["web"]


# What needs no declaration.


def test_source_alone_is_a_web_component_with_a_public_host() -> None:
    found = read().components
    assert list(found) == ["web"]
    assert found["web"].endpoints == {"http": Endpoint(8080, "http", "public", "shop")}
    assert found["web"].health == Health(type="tcp", port=8080)
    assert found["web"].limits == Limits(256, 0.5)


def test_nothing_to_build_is_no_component() -> None:
    assert read(detected={}).components == {}


def test_a_procfile_names_processes_and_release_isnt_one() -> None:
    found = read(
        procfile="# comment\nweb: gunicorn app:app\n\nback_ground:  python -m work \nrelease: migrate\n"
    )
    assert {name: (c.kind, c.command) for name, c in found.components.items()} == {
        "web": ("web", "gunicorn app:app"),
        "back-ground": ("worker", "python -m work"),
    }


def test_the_procfile_gives_commands_to_declared_components() -> None:
    found = read("components: {api: {kind: service, path: api}}", "api: run api\nother: x").components
    assert {n: c.command for n, c in found.items()} == {"api": "run api"}
    assert found["api"].builder == "python"


# What is declared.


def test_every_key_arrives() -> None:
    found = component(
        "{kind: service, command: serve, path: api/, replicas: 3, limits: {memory: 1Gi, cpu: 2},"
        " health: {path: /ready, interval: 1, timeout: 0.5, grace: 90},"
        " endpoints: {http: {port: 9000, visibility: public, host: desk, callers: true}, feed: {port: 9000, protocol: udp}},"
        " connections: [{to: billing/api.rpc, as: PAY}, {external: {cidr: 203.0.113.9/24, port: 5432}, as: DB},"
        " {external: {host: Shop.Globex.Localhost}}]}"
    )
    assert found == Component(
        kind="service",
        command="serve",
        path="api",
        replicas=3,
        limits=Limits(1024, 2.0),
        health=Health("http", 9000, "/ready", 1.0, 0.5, 90.0),
        endpoints={
            "http": Endpoint(9000, "http", "public", "desk", True),
            "feed": Endpoint(9000, "udp", "cell"),
        },
        connections=(
            Connection("PAY", "billing/api.rpc"),
            Connection("DB", external=External(5432, "tcp", cidr="203.0.113.0/24")),
            Connection("EXTERNAL", external=External(80, "http", host="shop.globex.localhost")),
        ),
        builder="python",
    )


def test_replicas_may_be_a_range_that_load_decides_in() -> None:
    found = component("{kind: web, replicas: {min: 2, max: 6, cpu: 70, requests: 12.5}}")
    assert (found.replicas, found.scaling) == (2, Scaling(2, 6, 70, 12.5))
    assert [found.number(scaled) for scaled in (None, 1, 4, 9)] == [2, 2, 4, 6]
    alone = component("{kind: web, replicas: {max: 3, cpu: 50}}")
    assert (alone.replicas, alone.scaling) == (1, Scaling(1, 3, cpu=50))


def test_short_forms() -> None:
    found = read(
        "components: {web: {connections: [my-api]}, my-api: {endpoints: {http: 9000}}, task: {}}",
    ).components
    assert (found["web"].kind, found["my-api"].kind, found["task"].kind) == ("web", "service", "worker")
    assert found["web"].connections == (Connection("MY_API", "shop/my-api"),)
    assert found["my-api"].endpoints == {"http": Endpoint(9000)}
    assert (found["task"].endpoints, found["task"].health) == ({}, Health())


def test_a_specification_survives_json() -> None:
    found = read(
        "strict: true\ncomponents: {web: {connections: [{to: web}, {external: {cidr: '2001:db8::/32'}, as: X}]}}"
    )
    assert Specification.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_keys_of_connections_are_what_they_lead_to() -> None:
    found = component(
        "{connections: [{to: a/b.c, as: A}, {external: {cidr: 10.1.2.3/8, port: 53, protocol: udp}, as: B},"
        " {external: {host: x.acme.localhost}, as: C}, {external: {host: x.example.org, port: 443}, as: D}]}"
    )
    assert [c.key for c in found.connections] == [
        "a/b.c",
        "external:10.0.0.0/8:53/udp",
        "external:x.acme.localhost:80/http",
        "external:x.example.org:443/tcp",
    ]


# What is wrong: declaration → where and a word of the message.

WRONG = {
    "[]": ("cytoplane.yaml", "mapping"),
    "components: {web: {}": ("line 1", "expected"),
    "a: &x 1\nb: *x": ("cytoplane.yaml", "aliases"),
    "components: !!python/object:os.system {}": ("line 1", "could not determine"),
    "components: 2020-13-45": ("cytoplane.yaml", "month"),
    "strict: " + "9" * 5000: ("cytoplane.yaml", "digits"),
    "[" * 3000: ("cytoplane.yaml", "nested"),
    "# " + "x" * 70000: ("cytoplane.yaml", "64 KiB"),
    "strict: perhaps": ("strict", "true or false"),
    "service: {}": ("cytoplane.yaml", "`service` isn't known"),
    "components: []\nstrict: 1": ("strict", "true or false"),
    "components: [web]": ("cytoplane.yaml", "mapping of names"),
    "components: {Web: {}}": ("cytoplane.yaml", "component's name"),
    "components: {a--b: {}}": ("cytoplane.yaml", "component's name"),
    'components: {"web\\n": {}}': ("cytoplane.yaml", "component's name"),
    "components: {1: {}}": ("cytoplane.yaml", "component's name"),
    "components: {" + ", ".join(f"c{n}: {{}}" for n in range(51)) + "}": ("cytoplane.yaml", "too many"),
    "components: {web: [1]}": ("components.web", "mapping"),
    "components: {web: {port: 80}}": ("components.web", "`port` isn't known"),
    "components: {web: {kind: cronjob}}": ("components.web.kind", "cronjob"),
    "components: {web: {kind: [web]}}": ("components.web.kind", "isn't known"),
    "components: {web: {path: ../other}}": ("components.web.path", "inside the repository"),
    "components: {web: {path: api/../../x}}": ("components.web.path", "inside the repository"),
    "components: {web: {path: /etc}}": ("components.web.path", "inside the repository"),
    "components: {web: {path: 7}}": ("components.web.path", "text"),
    "components: {web: {path: nothing}}": ("components.web.path", "nothing to build"),
    "components: {web: {path: api}}": ("components.web", "how to start"),
    "components: {web: {command: ' '}}": ("components.web.command", "line of text"),
    "components: {web: {command: [a]}}": ("components.web.command", "line of text"),
    'components: {web: {command: "a\\0b"}}': ("components.web.command", "line of text"),
    'components: {web: {command: "a\\ud800"}}': ("components.web.command", "line of text"),
    "components: {web: {replicas: -1}}": ("components.web.replicas", "-1"),
    "components: {web: {replicas: 51}}": ("components.web.replicas", "51"),
    "components: {web: {replicas: true}}": ("components.web.replicas", "True"),
    "components: {web: {replicas: 1.5}}": ("components.web.replicas", "whole"),
    "components: {web: {replicas: .nan}}": ("components.web.replicas", "nan"),
    "components: {web: {replicas: {max: 3}}}": ("components.web.replicas", "by what"),
    "components: {web: {replicas: {cpu: 70}}}": ("components.web.replicas", "`max` is missing"),
    "components: {web: {replicas: {min: 0, max: 3, cpu: 70}}}": ("components.web.replicas.min", "0"),
    "components: {web: {replicas: {min: 4, max: 3, cpu: 70}}}": ("components.web.replicas.max", "4 to 50"),
    "components: {web: {replicas: {max: 51, cpu: 70}}}": ("components.web.replicas.max", "51"),
    "components: {web: {replicas: {max: 3, cpu: 91}}}": ("components.web.replicas.cpu", "5 to 90"),
    "components: {web: {replicas: {max: 3, cpu: .nan}}}": ("components.web.replicas.cpu", "nan"),
    "components: {web: {replicas: {max: 3, requests: 0}}}": ("components.web.replicas.requests", "0.1 to"),
    "components: {web: {replicas: {max: 3, cpu: 50, memory: 1}}}": ("components.web.replicas", "`memory`"),
    "components: {job: {path: api, command: x, replicas: {max: 3, requests: 5}}}": (
        "components.job.replicas.requests",
        "gateway",
    ),
    "components: {web: {limits: {memory: lots}}}": ("components.web.limits.memory", "lots"),
    "components: {web: {limits: {memory: 1}}}": ("components.web.limits.memory", "1"),
    "components: {web: {limits: {memory: " + "9" * 5000 + "Mi}}}": ("components.web.limits.memory", "999"),
    "components: {web: {limits: {cpu: .inf}}}": ("components.web.limits.cpu", "inf"),
    "components: {web: {limits: {disk: 1}}}": ("components.web.limits", "`disk`"),
    "components: {web: {limits: [1]}}": ("components.web.limits", "mapping"),
    "components: {web: {health: /x}}": ("components.web.health", "mapping"),
    "components: {web: {health: {path: x}}}": ("components.web.health.path", "begins with"),
    'components: {web: {health: {path: "/a\\r\\nHost: b"}}}': ("components.web.health.path", "begins with"),
    "components: {web: {health: {type: exec}}}": ("components.web.health.type", "exec"),
    "components: {task: {health: {type: tcp}}}": ("components.task.health.port", "number"),
    "components: {web: {health: {grace: 601}}}": ("components.web.health.grace", "601"),
    "components: {web: {endpoints: [80]}}": ("components.web.endpoints", "mapping"),
    "components: {web: {endpoints: {A: 80}}}": ("components.web.endpoints", "endpoint's name"),
    "components: {web: {endpoints: {a: x}}}": ("components.web.endpoints.a", "mapping"),
    "components: {web: {endpoints: {a: 0}}}": ("components.web.endpoints.a.port", "0"),
    "components: {web: {endpoints: {a: 65536}}}": ("components.web.endpoints.a.port", "65536"),
    "components: {web: {endpoints: {a: {protocol: sctp}}}}": ("components.web.endpoints.a.protocol", "sctp"),
    "components: {web: {endpoints: {a: {visibility: world}}}}": (
        "components.web.endpoints.a.visibility",
        "world",
    ),
    "components: {web: {endpoints: {a: {protocol: tcp, visibility: public}}}}": (
        "components.web.endpoints.a.visibility",
        "http or grpc",
    ),
    "components: {web: {endpoints: {a: {host: x}}}}": ("components.web.endpoints.a.host", "public"),
    "components: {web: {endpoints: {a: {visibility: public, host: a.b}}}}": (
        "components.web.endpoints.a.host",
        "a.b",
    ),
    "components: {web: {endpoints: {a: {visibility: public, host: a--staging}}}}": (
        "components.web.endpoints.a.host",
        "a--staging",
    ),
    'components: {web: {endpoints: {a: {visibility: public, host: "a\\n"}}}}': (
        "components.web.endpoints.a.host",
        "host name",
    ),
    "components: {web: {endpoints: {a: {protocol: tcp, callers: true}}}}": (
        "components.web.endpoints.a.callers",
        "http and grpc",
    ),
    "components: {web: {endpoints: {a: 80, b: 80}}}": ("components.web.endpoints.b", "share port 80"),
    "components: {web: {endpoints: {a: {visibility: public, host: x}, b: {port: 1, visibility: public, host: x}}}}": (
        "cytoplane.yaml",
        "claim the host `x`",
    ),
    "components: {" + "w" * 30 + ": {kind: web}}": ("components." + "w" * 30, "longer than"),
    "components: {web: {connections: {to: api}}}": ("components.web.connections", "list"),
    "components: {web: {connections: [{}]}}": ("components.web.connections[0]", "either"),
    "components: {web: {connections: [{to: a/b, external: {}}]}}": (
        "components.web.connections[0]",
        "either",
    ),
    "components: {web: {connections: [{to: a/b, via: c}]}}": ("components.web.connections[0]", "`via`"),
    "components: {web: {connections: [{to: 'a b'}]}}": ("components.web.connections[0].to", "a b"),
    "components: {web: {connections: [{to: a/b/c}]}}": ("components.web.connections[0].to", "a/b/c"),
    "components: {web: {connections: [{to: " + "a" * 400 + "/api}]}}": (
        "components.web.connections[0].to",
        "names no endpoint",
    ),
    "components: {web: {connections: [api]}}": ("components.web.connections", "no component `api`"),
    "components: {web: {connections: [{to: web.admin}]}}": (
        "components.web.connections",
        "no endpoint admin",
    ),
    "components: {web: {connections: [task]}, task: {}}": ("components.web.connections", "at all"),
    "components: {web: {connections: [{to: a/b, as: x}]}}": ("components.web.connections[0].as", "x"),
    'components: {web: {connections: [{to: a/b, as: "X\\n"}]}}': ("components.web.connections[0].as", "X"),
    "components: {web: {connections: [a/api, b/api]}}": ("components.web.connections", "called API"),
    "components: {web: {connections: [{external: {}}]}}": (
        "connections[0].external",
        "either `cidr` or `host`",
    ),
    "components: {web: {connections: [{external: {cidr: 300.1.1.1}}]}}": (
        "connections[0].external.cidr",
        "300.1.1.1",
    ),
    "components: {web: {connections: [{external: {cidr: 10.0.0.0/8, protocol: http}}]}}": (
        "connections[0].external.protocol",
        "http",
    ),
    "components: {web: {connections: [{external: {host: 'a b'}}]}}": ("connections[0].external.host", "a b"),
    'components: {web: {connections: [{external: {host: "a.b\\n"}}]}}': ("external.host", "host name"),
    "components: {web: {connections: [{external: {host: api.example.com}}]}}": (
        "external.port",
        "without a port",
    ),
    "components: {web: {connections: [{external: {host: api.example.com, port: 1, protocol: http}}]}}": (
        "external.protocol",
        "http",
    ),
    "components: {web: {connections: [{external: {host: a.acme.localhost, protocol: tcp}}]}}": (
        "external.protocol",
        "tcp",
    ),
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:60])
def test_an_error_has_a_place_a_sentence_and_a_hint(text: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        read(text, project="shop" * 6)
    where, word = WRONG[text]
    error = caught.value
    assert where in error.where
    assert word in error.message
    assert error.message.endswith(".")
    assert error.hint
    assert str(error) == f"{error.where}: {error.message}"


def test_a_wrong_procfile_line_has_its_number() -> None:
    with pytest.raises(SpecificationError) as caught:
        read(procfile="web: a\n\nno colon here\n")
    assert caught.value.where == "Procfile, line 3"


def test_a_process_named_like_nothing_allowed_is_an_error_too() -> None:
    with pytest.raises(SpecificationError) as caught:
        read(procfile=f"{'x' * 50}: run\n")
    assert "component's name" in caught.value.message


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
_keys = st.sampled_from(
    [
        "components",
        "strict",
        "web",
        "kind",
        "command",
        "path",
        "replicas",
        "limits",
        "memory",
        "cpu",
        "max",
        "requests",
        "health",
    ]
    + ["type", "port", "endpoints", "http", "protocol", "visibility", "host", "callers", "connections", "to"]
    + ["external", "cidr", "as", "interval", "grace", "timeout"]
)
_documents = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=5),
    max_leaves=25,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["components", "strict"]), st.dictionaries(_keys, _documents, max_size=4))
)
def test_no_document_gets_past_as_another_exception(document: dict) -> None:
    """JSON is YAML: whatever is in the file, the answer is a specification or an error with a place."""
    try:
        found = read(json.dumps(document))
    except SpecificationError as error:
        assert error.where
        assert error.hint
    else:
        assert Specification.from_dict(found.as_dict()) == found


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_no_text_gets_past_as_another_exception(text: str) -> None:
    try:
        read(text, procfile=text)
    except SpecificationError as error:
        assert error.where


@pytest.mark.parametrize(
    ("part", "many"),
    [
        ("connections", [{"to": f"api{n}"} for n in range(101)]),
        ("endpoints", {f"e{n}": 8000 + n for n in range(21)}),
    ],
)
def test_a_component_that_declares_too_much_is_told_the_bound(part: str, many: object) -> None:
    text = yaml.safe_dump({"components": {"web": {"command": "exec serve", part: many}}})
    with pytest.raises(SpecificationError) as caught:
        parse({"cytoplane.yaml": text}, project="shop", detected={".": "python"})
    assert "too many" in caught.value.message


def test_the_first_endpoint_stays_the_first_in_a_form_that_keeps_no_order() -> None:
    text = """
components:
  api:
    kind: service
    endpoints:
      metrics-and-more: {port: 9090, protocol: http}
      web: {port: 8080, protocol: http}
"""
    document = read(text).as_dict()
    raw = document["components"]["api"]["endpoints"]
    document["components"]["api"]["endpoints"] = dict(sorted(raw.items(), key=lambda item: len(item[0])))
    assert list(Specification.from_dict(document).components["api"].endpoints) == ["metrics-and-more", "web"]
