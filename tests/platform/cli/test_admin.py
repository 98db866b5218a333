"""The deny list from the command line."""

from __future__ import annotations

import pytest

from cli import errors
from tests.platform.cli.conftest import Platform


def test_platform_admins_deny_networks_and_let_them_come_again(platform: Platform) -> None:
    cyto = platform.cyto
    words = ("admin", "deny", "add", "203.0.113.7/24", "--reason", "floods")
    assert cyto(*words).code == errors.NOT_FOUND
    platform.be("platform")
    made = cyto(*words, "--for", "24h", "--json").json
    assert (made["network"], made["reason"], made["until"] is not None) == ("203.0.113.0/24", "floods", True)
    assert "2001:db8::/32 is denied." in cyto("admin", "deny", "add", "2001:db8::/32", "--reason", "x").err
    shown = cyto("admin", "deny").out
    assert "203.0.113.0/24" in shown and "removed" in shown
    assert cyto("admin", "deny", "add", "0.0.0.0/0", "--reason", "all").error == "deny-doubtful"
    assert cyto("admin", "deny", "add", "127.0.0.1", "--reason", "me", "--force").error == "invalid"
    assert "may come again" in cyto("admin", "deny", "remove", "203.0.113.0/24").err
    assert cyto("admin", "deny", "remove", "203.0.113.0/24").code == errors.NOT_FOUND
    assert [row["network"] for row in cyto("admin", "deny", "list", "--json").json] == ["2001:db8::/32"]


@pytest.mark.parametrize("lasting", ["soon", "0h", "24", "-1h", "1w"])
def test_a_time_is_written_in_one_way(platform: Platform, lasting: str) -> None:
    ran = platform.cyto("admin", "deny", "add", "203.0.113.0/24", "--reason", "x", "--for", lasting)
    assert ran.code == errors.USAGE
