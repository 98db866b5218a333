"""Names are checked once and become host names, paths and labels."""

from __future__ import annotations

import pytest

from controlplane.errors import CytoplaneError
from tenants import names


@pytest.mark.parametrize("name", ["a", "shop", "a1", "my-shop", "a" * 40])
def test_good_names_pass(name: str) -> None:
    assert names.validate(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        "1a",
        "-a",
        "a-",
        "a--b",
        "a_b",
        "a.b",
        "a b",
        "a\n",
        "a\0",
        "ä",
        "a" * 41,
        "../x",
        "a/b",
        None,
    ],
)
def test_names_that_could_mean_more_are_refused(name: str) -> None:
    with pytest.raises(CytoplaneError) as caught:
        names.validate(name)
    assert caught.value.code == "invalid-name"


@pytest.mark.parametrize("name", ["admin", "api", "git", "static", "new"])
def test_a_tenant_cant_take_a_path_of_the_portal(name: str) -> None:
    with pytest.raises(CytoplaneError) as caught:
        names.validate_tenant(name)
    assert caught.value.code == "name-taken"
