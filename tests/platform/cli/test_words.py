"""How commands are written: topics and verbs, help, and words that can't be understood."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import errors
from cli.main import spelled
from tests.platform.cli.conftest import REPOSITORY, Cyto

#: They print for a shell, for git or for a person alone.
WITHOUT_JSON: set[str] = set()


def every_command(cyto: Cyto) -> list[dict]:
    return cyto("help", "--json").json["commands"]


def test_every_command_says_what_it_does_prints_json_and_is_documented(cyto: Cyto) -> None:
    pages = (REPOSITORY / "docs" / "cli.md").read_text()
    found = every_command(cyto)
    assert len(found) > 40
    for one in found:
        name = one["command"]
        assert one["help"].endswith("."), name
        names = [option["names"] for option in one["options"]]
        assert ["--json"] in names or name in WITHOUT_JSON, name
        assert f"### `cyto {name}" in pages, f"{name} is missing in docs/cli.md"
        section = pages.split(f"### `cyto {name}", 1)[1].split("\n#", 1)[0]
        for option in one["options"]:
            assert option["help"], (name, option["names"])
            common = option["names"][0] in ("--tenant", "--project", "--environment", "--json")
            assert common or option["names"][0] in section, (
                f"{name} {option['names'][0]} isn't in docs/cli.md"
            )


def test_documented_commands_exist(cyto: Cyto) -> None:
    pages = (REPOSITORY / "docs" / "cli.md").read_text()
    known = {one["command"] for one in every_command(cyto)}
    titles = [line for line in pages.splitlines() if line.startswith("### `cyto ")]
    assert len(titles) == len(known)
    for title in titles:
        words = title.removeprefix("### `cyto ").rstrip("`").split()
        assert {" ".join(words[:length]) for length in (1, 2, 3)} & known, title


def test_exit_codes_are_documented_with_the_words_of_the_program(cyto: Cyto) -> None:
    pages = (REPOSITORY / "docs" / "cli.md").read_text()
    for code, text in cyto("help", "--json").json["exit_codes"].items():
        assert f"| {code} | {text} |" in pages


def test_exit_codes_are_told_apart() -> None:
    names = [n for n in vars(errors) if n.isupper() and isinstance(getattr(errors, n), int)]
    assert sorted(getattr(errors, name) for name in names) == sorted(errors.EXIT_CODES)


def test_help_of_every_command_fits_80_columns(cyto: Cyto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for one in every_command(cyto):
        ran = cyto(*one["command"].split(), "--help")
        assert ran.code == 0
        assert "\x1b" not in ran.out
        assert max(map(len, ran.out.splitlines())) <= 80, one["command"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("projects:list --json", "projects list --json"),
        ("deployments:log 3", "deployments log 3"),
        ("help", "--help"),
        ("help config set", "config set --help"),
        ("help config:set", "config set --help"),
        ("--version", "version"),
        ("-V --json", "version --json"),
        ("why web api:9000", "why web api:9000"),
        ("config set A=b:c", "config set A=b:c"),
    ],
)
def test_other_ways_to_write_a_command(written: str, meant: str) -> None:
    assert spelled(written.split()) == meant.split()


def test_a_bare_topic_without_a_list_shows_its_help(cyto: Cyto) -> None:
    for words in ((), ("git",), ("users",)):
        ran = cyto(*words)
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.startswith("Usage: cyto")


@pytest.mark.parametrize(
    "words",
    [
        "nosuch", "tokens nosuch", "tokens --jsn", "why", "why web", "tenants show", "config set",
        "tokens revoke x", "tokens create ci --days 0", "deployments show 0", "deployments show x",
        "logs -n 0", "logs --lines many", "edges --minutes 9999", "releases --limit 1000", "config set novalue",
        "config set =value", "config set A=1 A=2", "config secret KEY=value", "scale web", "scale web=x",
        "scale web=-1", "scale web=1 web=2", "scale web=9999999", "rollback latest", "why web api:0",
        "why web api:70000", "why web :80", "projects strict maybe", "audit maybe", "learn --push",
        "learn --hours 0", "tenants show ..", "completion tcsh",
        "whoami extra",
    ],
)  # fmt: skip
def test_wrong_words_are_explained_and_cost_no_request(
    cyto: Cyto, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """Nothing listens at the address: a request would end with `unreachable`."""
    monkeypatch.setenv("CYTO_TENANT", "acme")
    monkeypatch.setenv("CYTO_PROJECT", "shop")
    ran = cyto(*words.split())
    assert (ran.code, ran.error, ran.out) == (errors.USAGE, "usage", "")
    lines = ran.err.splitlines()
    assert len(lines) == 3
    assert lines[0].endswith((".", "?"))
    raw = cyto(*words.split(), "--json")
    assert raw.code == errors.USAGE
    assert set(raw.json["error"]) == {"id", "message", "next"}


def test_a_typing_error_is_answered_with_what_was_probably_meant(cyto: Cyto) -> None:
    assert "'deployments'" in cyto("deploymnts").err


def test_a_place_that_isnt_known_is_asked_for(cyto: Cyto) -> None:
    ran = cyto("ps")
    assert (ran.code, ran.error) == (errors.USAGE, "place-missing")
    assert "--tenant" in ran.err
    ran = cyto("ps", "-t", "acme")
    assert "--project" in ran.err


def test_a_secret_that_was_pasted_isnt_repeated(cyto: Cyto) -> None:
    ran = cyto("config", "secret", "KEY=swordfish", "-t", "acme", "-p", "shop")
    assert "swordfish" not in ran.err
    ran = cyto("config", "set", "x" * 60 + "swordfish", "-t", "acme", "-p", "shop")
    assert "swordfish" not in ran.err


def test_shells_are_told_what_could_come_next(cyto: Cyto, tmp_path: Path) -> None:
    ran = cyto.process(_CYTO_COMPLETE="complete_bash", COMP_WORDS="cyto deployments ", COMP_CWORD="2")
    assert ran.out.split() == ["list", "show", "log", "cancel", "retry"]
    ran = cyto.process(_CYTO_COMPLETE="complete_bash", COMP_WORDS="cyto dep", COMP_CWORD="1")
    assert ran.out.split() == ["deployments"]
    for shell in ("bash", "zsh", "fish"):
        assert "_CYTO_COMPLETE=complete_" + shell in cyto("completion", shell).out


def test_the_version_is_the_packages(cyto: Cyto) -> None:
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert cyto("version", "--json").json["version"] == project["version"]
    assert cyto("version").out.startswith(f"cyto {project['version']}")


def test_what_nobody_foresaw_is_a_sentence_too(cyto: Cyto, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("cli.api.Api.get", broken)
    ran = cyto("whoami")
    assert (ran.code, ran.error) == (errors.INTERNAL, "cyto-failed")
    assert "CYTO_DEBUG=1" in ran.err
