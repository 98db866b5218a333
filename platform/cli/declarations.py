"""Adding connections to a repository's cytoplane.yaml. Every character that was there stays.

A library that reads YAML and writes it again moves comments and changes indents somewhere, so lines are
put in where the parser says that the neighbours are. What comes out must say what was there and the new
connections, and nothing else; that is checked before anybody gets it.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from cells.specification import Specification, SpecificationError, parse
from cells.specification.additions import Item, name_of, named, snippet, written

FILE = "cytoplane.yaml"


@dataclass
class Change:
    """The new text. ``added`` and ``skipped`` say what was done, ``diff`` is "" if nothing was."""

    text: str
    diff: str
    added: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


class _Anything(dict[str, str]):
    """Every folder can be built: what is judged here is the declarations."""

    def get(self, key: str, default: Any = None) -> Any:
        return "dockerfile"


def add(files: dict[str, str], rows: list[dict[str, Any]], *, project: str, domain: str) -> Change:
    """Add the connections of ``rows`` as the API lists them.

    ``files`` may hold cytoplane.yaml and Procfile. What the file declares already is skipped, and so is
    what it has no component for. Raises ``SpecificationError`` if the file is wrong, or can't be added to.
    """
    before = _read(files, project, domain)
    text = files.get(FILE, "")
    change = Change(_explicit(text, before), "")
    for row in rows:
        component, item = row["component"], {k: v for k, v in row["connection"].items() if k != "as"}
        known = before.components.get(component)
        if known is None:
            change.skipped.append(f"{component} → {row['target']}: {FILE} declares no component {component}.")
        elif _key(item, project) in {_full(c.key, before, project) for c in known.connections}:
            change.skipped.append(f"{component} → {row['target']}: it is declared already.")
        else:
            change.text = _insert(change.text, component, item)
            change.added.append(f"{component} → {row['target']}")
    if not change.added:
        change.text = text
        return change
    after = _read({**files, FILE: change.text}, project, domain)
    if not _only_added(before, after, len(change.added)):
        raise _by_hand(rows)
    lines = (text.splitlines(keepends=True), change.text.splitlines(keepends=True))
    change.diff = "".join(difflib.unified_diff(*lines, f"a/{FILE}", f"b/{FILE}"))
    return change


def _by_hand(rows: list[dict[str, Any]]) -> SpecificationError:
    text = snippet((row["component"], row["connection"]) for row in rows)
    return SpecificationError("it is written in a way that can't be added to.", f"Add it by hand:\n{text}")


def _read(files: dict[str, str], project: str, domain: str) -> Specification:
    return parse(files, project=project, detected=_Anything(), domain=domain)


def _only_added(before: Specification, after: Specification, number: int) -> bool:
    """Whether ``after`` is ``before`` with so many connections more, each behind those that were there."""
    if before.strict != after.strict or list(before.components) != list(after.components):
        return False
    more = 0
    for name, old in before.components.items():
        new = after.components[name]
        kept = len(old.connections)
        if new.connections[:kept] != old.connections:
            return False
        more += len(new.connections) - kept
        if {**vars(old), "connections": ()} != {**vars(new), "connections": ()}:
            return False
    return more == number


def _key(item: Item, project: str) -> str:
    """As ``Connection.key`` has it."""
    if "to" in item:
        return str(item["to"]) if "/" in item["to"] else f"{project}/{item['to']}"
    external = item["external"]
    where = external.get("cidr") or external["host"]
    return f"external:{where}:{external.get('port', 0)}/{external['protocol']}"


def _full(key: str, specification: Specification, project: str) -> str:
    """With the endpoint that is meant where none is named, if there is only one that can be."""
    component = specification.components.get(key.removeprefix(f"{project}/"))
    only = list(component.endpoints) if component else []
    return f"{key}.{only[0]}" if len(only) == 1 else key


# Where in the text: nodes know the place of their beginning and their end.


def _insert(text: str, component: str, item: Item) -> str:
    """The text with one connection more."""
    row = _value(_value(yaml.compose(text), "components"), component)
    if not isinstance(row, MappingNode):
        return _instead(text, row, f"{{connections: [{written(item)}]}}")
    connections = _value(row, "connections")
    if connections is None:
        return _new_list(text, row, item)
    if not isinstance(connections, SequenceNode):
        return _instead(text, connections, f"[{written(_named(item, []))}]")
    wanted = written(_named(item, connections.value))
    if connections.flow_style:
        return _into_flow(text, connections, wanted)
    indent = " " * connections.start_mark.column
    return _after_line(text, connections, f"{indent}- {wanted}")


def _named(item: Item, known: list[Node]) -> Item:
    """With an ``as`` of its own beside the connections that are there."""
    loaded = [yaml.safe_load(yaml.serialize(node)) for node in known]
    return named(item, [name_of(entry) for entry in loaded])


def _new_list(text: str, row: MappingNode, item: Item) -> str:
    """The component's first connection."""
    wanted = written(named(item, []))
    if row.flow_style:
        return _into_flow(text, row, f"connections: [{wanted}]")
    indent = " " * row.start_mark.column
    return _after_line(text, row, f"{indent}connections:\n{indent}  - {wanted}")


def _value(node: Node | None, key: str) -> Node | None:
    for name, value in node.value if isinstance(node, MappingNode) else ():
        if name.value == key:
            found: Node = value
            return found
    return None


def _instead(text: str, node: Node | None, new: str) -> str:
    """``new`` in the place of an empty value."""
    assert node is not None
    start, end = node.start_mark.index, node.end_mark.index
    return f"{text[:start]}{'' if text[start - 1 : start].isspace() else ' '}{new}{text[end:]}"


def _into_flow(text: str, node: MappingNode | SequenceNode, new: str) -> str:
    """``new`` as the last one between brackets or braces."""
    if not node.value:
        place = node.end_mark.index - 1
        return text[:place] + new + text[place:]
    place = _last(node).end_mark.index
    return f"{text[:place]}, {new}{text[place:]}"


def _after_line(text: str, node: Node, new: str) -> str:
    """``new`` on lines of its own behind the last line of a block, before whatever is said of the next one."""
    deepest = _last(node)
    while isinstance(deepest, MappingNode | SequenceNode) and deepest.value and not deepest.flow_style:
        deepest = _last(deepest)
    end = deepest.end_mark.index
    # A block of text ends behind its line's end, everything else before it.
    place = (
        end if isinstance(deepest, ScalarNode) and text[end - 1 : end] == "\n" else text.find("\n", end) + 1
    )
    if place == 0:
        return f"{text}\n{new}\n"
    return f"{text[:place]}{new}\n{text[place:]}"


def _last(node: MappingNode | SequenceNode) -> Node:
    last: Any = node.value[-1]
    found: Node = last[1] if isinstance(node, MappingNode) else last
    return found


def _explicit(text: str, before: Specification) -> str:
    """The text with its components. Those that are only implied, by a Procfile, would be gone with one that is written."""
    document = yaml.compose(text)
    components = _value(document, "components")
    if isinstance(components, MappingNode) and components.value:
        return text
    rows = "".join(f"  {name}:\n    kind: {known.kind}\n" for name, known in before.components.items())
    if components is not None:
        start, end = components.start_mark.index, components.end_mark.index
        return f"{text[:start].rstrip()}\n{rows.rstrip()}{text[end:]}"
    gap = "" if not text or text.endswith("\n") else "\n"
    return f"{text}{gap}components:\n{rows}"
