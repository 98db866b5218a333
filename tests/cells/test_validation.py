"""A specification from a builder is taken only if a cytoplane.yaml could have said it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cells.specification import Specification, SpecificationError, parse, validate

DETECTED = {".": "dockerfile", "api": "python", "docs": "static"}
FULL = """
strict: true
components:
  web:
    command: serve
    replicas: 3
    limits: {memory: 1Gi, cpu: 1.5}
    health: {path: /healthz, interval: 1, grace: 20}
    endpoints:
      http: {port: 8080, visibility: public, host: desk, callers: true}
      admin: {port: 9000, protocol: tcp, visibility: tenant}
      beacon: {port: 9000, protocol: udp}
    connections:
      - to: api
      - {to: billing/ledger.http, as: LEDGER}
      - {external: {cidr: 203.0.113.0/24, port: 443}, as: BANK}
      - {external: {host: Shop.globex.localhost}, as: SHOP}
  api: {kind: service, path: api, command: run, health: {type: none}, endpoints: {http: 8000}}
  docs: {kind: web, path: docs, replicas: {min: 2, max: 4, cpu: 60, requests: 20}}
  task: {kind: worker, command: work}
"""
#: Where a lie is put, and the lie.
LIES: list[tuple[tuple[Any, ...], Any]] = [
    (("strict",), "yes"),
    (("components",), {}),
    (("components",), []),
    (("components", "web", "kind"), "root"),
    (("components", "web", "command"), "a\0b"),
    (("components", "web", "command"), ["serve"]),
    (("components", "web", "path"), "../.."),
    (("components", "web", "path"), "/etc"),
    (("components", "web", "replicas"), 51),
    (("components", "web", "replicas"), -1),
    (("components", "web", "replicas"), 1.5),
    (("components", "web", "replicas"), True),
    (("components", "web", "replicas"), "3"),
    (("components", "docs", "replicas"), 3),
    (("components", "docs", "scaling", "most"), 51),
    (("components", "docs", "scaling", "least"), 0),
    (("components", "docs", "scaling", "cpu"), 99),
    (("components", "docs", "scaling", "requests"), float("inf")),
    (("components", "web", "builder"), "wizard"),
    (("components", "api", "command"), None),
    (("components", "web", "limits", "memory"), 10**6),
    (("components", "web", "limits", "memory"), "256"),
    (("components", "web", "limits", "cpu"), 65),
    (("components", "web", "limits", "cpu"), float("nan")),
    (("components", "web", "limits", "pids"), 1),
    (("components", "web", "health", "grace"), 10**9),
    (("components", "web", "health", "path"), "/ HTTP/1.1\r\nHost: x"),
    (("components", "api", "health", "port"), "x"),
    (("components", "web", "endpoints", "http", "port"), 0),
    (("components", "web", "endpoints", "http", "host"), "desk.globex"),
    (("components", "web", "endpoints", "http", "host"), "desk--staging"),
    (("components", "web", "endpoints", "http", "host"), ""),
    (("components", "web", "endpoints", "admin", "host"), "desk"),
    (("components", "web", "endpoints", "admin", "visibility"), "public"),
    (("components", "web", "endpoints", "admin", "port"), 8080),
    (("components", "web", "endpoints", "beacon", "callers"), True),
    (("components", "web", "endpoints", "Beacon"), {"port": 1, "protocol": "tcp"}),
    (("components", "docs", "endpoints", "http", "host"), "desk"),
    (("components", "web", "connections", 0, "to"), "shop/nobody"),
    (("components", "web", "connections", 0, "to"), "shop/api."),
    (("components", "web", "connections", 0, "to"), "../api"),
    (("components", "web", "connections", 0, "to"), None),
    (("components", "web", "connections", 0, "name"), "LD PRELOAD"),
    (("components", "web", "connections", 0, "name"), "BANK"),
    (("components", "web", "connections", 2, "external", "cidr"), "203.0.113.1/24"),
    (("components", "web", "connections", 2, "external", "host"), "shop.globex.localhost"),
    (("components", "web", "connections", 2, "external", "protocol"), "icmp"),
    (("components", "web", "connections", 3, "external", "protocol"), "tcp"),
    (("components", "web", "connections", 3, "external", "host"), "a b"),
    (("components", "a--b"), {"kind": "web"}),
]


def built(text: str = FULL) -> dict[str, Any]:
    """What a builder sends."""
    found = parse({"cytoplane.yaml": text}, project="shop", detected=DETECTED)
    return json.loads(json.dumps(found.as_dict()))


@pytest.mark.parametrize("text", [FULL, "", "components: {task: {command: x}}"], ids=["full", "none", "task"])
def test_what_the_parser_made_is_taken_as_it_is(text: str) -> None:
    document = built(text)
    assert validate(document, project="shop") == Specification.from_dict(document)
    assert validate(document, project="shop").as_dict() == Specification.from_dict(document).as_dict()


@pytest.mark.parametrize(("where", "lie"), LIES, ids=lambda value: str(value)[:60])
def test_what_no_declaration_can_say_is_refused(where: tuple[Any, ...], lie: Any) -> None:
    document = built()
    part: Any = document
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = lie
    with pytest.raises(SpecificationError):
        validate(document, project="shop")


@pytest.mark.parametrize("what", ["components", "endpoints", "connections"])
def test_numbers_of_things_are_bounded(what: str) -> None:
    document = built()
    web = document["components"]["web"]
    if what == "components":
        document["components"] |= {f"c{n}": document["components"]["task"] for n in range(50)}
    elif what == "endpoints":
        web["endpoints"] |= {f"e{n}": web["endpoints"]["admin"] | {"port": 10000 + n} for n in range(20)}
    else:
        web["connections"] = [web["connections"][1] | {"name": f"C{n}"} for n in range(101)]
    with pytest.raises(SpecificationError):
        validate(document, project="shop")


@pytest.mark.parametrize("document", [None, 5, [], {}, {"components": None, "strict": False}, "text"])
def test_what_isnt_a_specification_is_refused(document: Any) -> None:
    with pytest.raises(SpecificationError):
        validate(document, project="shop")
