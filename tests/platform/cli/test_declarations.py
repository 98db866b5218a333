"""Connections are added to a cytoplane.yaml as people write them, and nothing else in it changes."""

from __future__ import annotations

from typing import Any

import pytest

from cells.specification import SpecificationError, parse
from cells.specification.additions import named, snippet
from cli.declarations import add

API: dict[str, Any] = {"to": "api.http"}
RAW: dict[str, Any] = {"to": "api.raw"}
OUT: dict[str, Any] = {"external": {"cidr": "198.51.100.7/32", "port": 443, "protocol": "tcp"}}
V6: dict[str, Any] = {"external": {"cidr": "2001:db8::7/128", "port": 53, "protocol": "udp"}}
NAME: dict[str, Any] = {"external": {"host": "*.example.com", "port": 443, "protocol": "tcp"}}

ENDPOINTS = "endpoints: {http: {port: 9000}, raw: {port: 9001, protocol: tcp}}"
BLOCK = f"""\
# The shop.
strict: true   # only what is said

components:
  web:
    kind: web
    connections:
      # The one that matters.
      - to: api/x   # not that one
      - external: {{cidr: 203.0.113.0/24}}   # the bank

  # What the shop stands on.
  api:
    kind: service
    {ENDPOINTS}
""".replace("      - to: api/x   # not that one\n", "")
FORMS = {
    "a list of lines": BLOCK,
    "a list at its key's column": f"components:\n  web:\n    connections:\n    - to: api.raw # here\n\n  api:\n    {ENDPOINTS}\n",
    "a list in brackets": f"components:\n  web: {{kind: web, connections: [ api.raw ]}} # so\n  api: {{{ENDPOINTS}}}\n",
    "an empty list": f"components:\n  web:\n    connections: []\n  api:\n    {ENDPOINTS}\n",
    "an empty key": f"components:\n  web:\n    connections:\n    # none yet\n    kind: web\n  api:\n    {ENDPOINTS}\n",
    "no list": f"components:\n  web:\n    kind: web\n    # behind\n\n  api:\n    {ENDPOINTS}",
    "a block of text at the end": f"components:\n  api:\n    {ENDPOINTS}\n  web:\n    command: |\n      serve\n      all\n",
    "no list in braces": f"components: {{web: {{kind: web}}, api: {{{ENDPOINTS}}}}}\n",
    "an empty component": f"components:\n  web:\n  api:\n    {ENDPOINTS}\n",
    "empty braces": f"components:\n  web: {{}}\n  api:\n    {ENDPOINTS}\n",
    "four columns": f"components:\n    web:\n        kind: web\n        connections:\n            - api.raw\n    api:\n        {ENDPOINTS}\n",
}


def row(item: dict[str, Any], component: str = "web") -> dict[str, Any]:
    return {"component": component, "connection": item, "target": str(item)}


def read(text: str, procfile: str = "") -> dict[str, list[str]]:
    files = {"cytoplane.yaml": text} | ({"Procfile": procfile} if procfile else {})
    found = parse(files, project="shop", detected={".": "dockerfile"}, domain="localhost")
    return {name: [c.key for c in component.connections] for name, component in found.components.items()}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS.keys())
def test_every_way_to_write_it_down_can_be_added_to_and_stays_as_it_is(text: str) -> None:
    change = add({"cytoplane.yaml": text}, [row(API), row(OUT), row(V6), row(NAME)], project="shop", domain="localhost")  # fmt: skip
    before, after = read(text), read(change.text)
    assert after["api"] == before["api"]
    assert after["web"] == [
        *before["web"], "shop/api.http", "external:198.51.100.7/32:443/tcp", "external:2001:db8::7/128:53/udp",
        "external:*.example.com:443/tcp",
    ]  # fmt: skip
    # Whatever was there is there still, in its order: the text is the old one with pieces put in.
    rest = iter(change.text)
    assert all(character in rest for character in text.rstrip("\n"))
    for line in text.splitlines():
        if line.strip().startswith("#"):
            assert line in change.text.splitlines()
    assert len(change.added) == 4
    assert change.diff.startswith("--- a/cytoplane.yaml\n+++ b/cytoplane.yaml\n")


def test_a_comment_stays_with_what_it_is_about() -> None:
    text = add({"cytoplane.yaml": BLOCK}, [row(API)], project="shop", domain="localhost").text
    lines = text.splitlines()
    place = next(number for number, line in enumerate(lines) if "to: api.http" in line)
    assert "# the bank" in lines[place - 1]
    assert lines[place + 1 : place + 3] == ["", "  # What the shop stands on."]


def test_components_that_a_procfile_implies_are_written_down_with_the_first_connection() -> None:
    processes = "web: serve\nworker: work\nrelease: migrate\n"
    for text in ("", "# Nothing yet.\n", "strict: true", "components:\nstrict: true\n", "components: {}\n"):
        files = {"cytoplane.yaml": text, "Procfile": processes}
        change = add(files, [row(OUT)], project="shop", domain="localhost")
        assert read(change.text, processes) == {"web": ["external:198.51.100.7/32:443/tcp"], "worker": []}


def test_what_is_there_already_or_belongs_nowhere_is_left_out_and_said() -> None:
    text = "components:\n  web:\n    connections: [api]\n  api:\n    endpoints: {http: {port: 9000}}\n"
    change = add({"cytoplane.yaml": text}, [row(API), row(OUT, "gone")], project="shop", domain="localhost")
    assert (change.text, change.diff, change.added) == (text, "", [])
    assert ["already" in change.skipped[0], "no component gone" in change.skipped[1]] == [True, True]


def test_two_connections_of_a_component_never_share_a_name() -> None:
    text = f"components:\n  web:\n    connections: [api, {{external: {{cidr: 203.0.113.0/24}}}}]\n  api:\n    {ENDPOINTS}\n"
    change = add({"cytoplane.yaml": text}, [row(RAW), row(OUT), row({"external": {**OUT["external"], "port": 80}})],
                 project="shop", domain="localhost")  # fmt: skip
    assert len(read(change.text)["web"]) == 5
    assert named(API, ["API", "API_HTTP"])["as"] == "API_HTTP_2"
    assert len(named({"external": {"host": f"{'a' * 70}.example.com"}}, [])["as"]) <= 61


def test_a_file_that_is_wrong_is_refused_with_where_it_is_wrong() -> None:
    for text in ("components: [", "components: {web: {kind: odd}}", "a: &x {}\nb: *x\n"):
        with pytest.raises(SpecificationError):
            add({"cytoplane.yaml": text}, [row(OUT)], project="shop", domain="localhost")


def test_a_snippet_reads_back_as_what_it_lists() -> None:
    text = snippet([("web", named(OUT, [])), ("web", named(V6, [])), ("api", named(NAME, []))])
    assert read(text) == {
        "web": ["external:198.51.100.7/32:443/tcp", "external:2001:db8::7/128:53/udp"],
        "api": ["external:*.example.com:443/tcp"],
    }
