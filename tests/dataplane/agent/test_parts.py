"""Units are the same whether they are read whole or part by part, and only what is asked for is read."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from dataplane.agent import parts
from dataplane.desired import joined


def unit(dice: random.Random, number: int) -> dict[str, Any]:
    first = 1000 + 10 * number
    return {
        "endpoints": [{"id": f"r{first}", "text": 'a\n"services":[1],\n "edge":{}'}] * dice.randrange(2),
        **({"edge": {"denied": [["192.0.2.0/24", 0]]}} if number == 0 else {}),
        "boundary": {
            "identities": {
                **{str(first + n): {"cell": number, "policy": [[n, 80]]} for n in range(dice.randrange(3))},
                **({"1": {"cell": 0, "policy": [[first, 80]], "external": []}} if dice.random() < 0.6 else {}),
            },
            "services": [{"address": f"192.0.2.{number}", "text": ",\n"}] * dice.randrange(3),
            "names": {str(first): {"api": ["192.0.2.1", "2001:db8::1"]}} if dice.random() < 0.5 else {},
            "floor": [["10.0.0.0/8", "FLOOR"]] if number == 0 else [],
            "gateway": {"routes": [{"host": f"h{number}"}], "clusters": []},
        },
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_all_parts_together_are_what_the_units_say(seed: int) -> None:
    dice = random.Random(seed)
    units = {str(number): unit(dice, number) for number in dice.sample(range(30), 12)}
    written = {number: parts.encode(one) for number, one in units.items()}
    assert {number: parts.decode(text) for number, text in written.items()} == units
    for text in written.values():
        json.loads(text)
    # Some as another version wrote them.
    mixed = {n: json.dumps(units[n]).encode() if dice.random() < 0.3 else text for n, text in written.items()}
    expected = joined(json.loads(json.dumps(units[number])) for number in sorted(units, key=int))
    for kept in (written, mixed):
        document = parts.Document(3, 7, kept)
        boundary = document["boundary"]
        assert {name: boundary[name] for name in boundary} == expected["boundary"]
        assert dict(boundary["identities"].stream()) == expected["boundary"]["identities"]
        assert document["endpoints"] == expected["endpoints"]
        assert document.get("edge") == expected.get("edge")
        assert {**document}.keys() == {"plane", "generation", "boundary", "endpoints", *expected}


def test_the_platforms_identities_are_put_together_from_all_units() -> None:
    one = {"cell": 0, "policy": [[1, 80]], "external": []}
    other = {"cell": 0, "policy": [[2, 80]], "external": []}
    units = {
        str(n): parts.encode({"boundary": {"identities": {"1": entry, str(300 + n): entry}}, "endpoints": []})
        for n, entry in enumerate((one, other))
    }
    found = parts.Document(1, 1, units)["boundary"]["identities"]
    assert found.platforms() == {"1": {"cell": 0, "policy": [[1, 80], [2, 80]], "external": []}}
    assert parts.identities(units["0"]) == {"300": one}
    assert parts.identities(None) == {}


def test_a_stamp_is_another_one_exactly_where_the_parts_are_others() -> None:
    dice = random.Random(1)
    units = {str(number): unit(dice, number) for number in range(4)}

    def stamp(*names: str) -> bytes | None:
        written = {number: parts.encode(one) for number, one in units.items()}
        return parts.stamp(parts.Document(1, 1, written)["boundary"], *names)

    services, both = stamp("services"), stamp("names", "services")
    units["2"]["boundary"]["names"] = {"7": {}}
    assert stamp("services") == services
    assert stamp("names", "services") != both
    units["2"]["boundary"]["services"].append({"address": "192.0.2.77"})
    assert stamp("services") != services
    assert parts.stamp({"services": []}, "services") is None
