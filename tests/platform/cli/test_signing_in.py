"""Signing in and out: what is asked, what is kept, who may read it, and how git uses it."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest

from cli import errors
from tenants.models import Token, User
from tests import factories
from tests.platform.cli.conftest import Cyto, Platform, Ran

EMAIL = "owner@acme.example.org"


@pytest.fixture
def platform(platform: Platform) -> Platform:
    """Nobody is signed in, and acme's owner has a password."""
    platform.nobody()
    person = User.objects.get(email=EMAIL)
    person.set_password(factories.PASSWORD)
    person.save()
    return platform


def sign_in(cyto: Cyto, *more: str, password: str = factories.PASSWORD) -> Ran:
    return cyto("login", "--email", EMAIL, "--password-stdin", *more, data=f"{password}\n")


def secret(cyto: Cyto, url: str) -> str:
    return json.loads(cyto.settings.read_text())["tokens"][url]


def test_email_and_password_are_asked_for_on_a_terminal_and_the_password_isnt_shown(
    platform: Platform,
) -> None:
    cyto = platform.cyto
    ran = cyto.terminal("login", answers={"Email: ": f"{EMAIL}\n", "Password: ": f"{factories.PASSWORD}\n"})
    assert ran.code == 0, ran.out
    assert f"as {EMAIL}" in ran.out
    assert factories.PASSWORD not in ran.out
    assert cyto("whoami", "--json").json["email"] == EMAIL


def test_the_token_is_readable_by_its_owner_alone(platform: Platform) -> None:
    assert sign_in(platform.cyto).code == 0
    file = platform.cyto.settings
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [one.name for one in file.parent.iterdir()] == [file.name]


def test_signing_in_prints_neither_token_nor_password(platform: Platform) -> None:
    ran = sign_in(platform.cyto, "--json")
    assert ran.json["email"] == EMAIL
    for hidden in (secret(platform.cyto, platform.url), factories.PASSWORD):
        assert hidden not in ran.out + ran.err


def test_signing_in_again_ends_the_token_from_before(platform: Platform) -> None:
    for _ in range(2):
        assert sign_in(platform.cyto).code == 0
    assert Token.objects.filter(user__email=EMAIL, revoked_at=None, name="cyto").count() == 1


def test_signing_out_revokes_and_forgets(platform: Platform) -> None:
    sign_in(platform.cyto)
    assert platform.cyto("logout", "--json").json["revoked"] is True
    assert platform.url not in json.loads(platform.cyto.settings.read_text())["tokens"]
    assert not Token.objects.filter(user__email=EMAIL, revoked_at=None, name="cyto").exists()
    ran = platform.cyto("whoami")
    assert (ran.code, ran.error) == (errors.NOT_SIGNED_IN, "not-signed-in")
    assert "weren't signed in" in platform.cyto("logout").err


def test_signing_out_leaves_a_token_of_the_environment_alone(platform: Platform) -> None:
    sign_in(platform.cyto)
    platform.be("owner")
    assert platform.cyto("logout").code == 0
    assert platform.cyto("whoami").code == 0


def test_signing_out_works_while_the_platform_is_away(platform: Platform) -> None:
    sign_in(platform.cyto)
    platform.server.stop()
    ran = platform.cyto("logout")
    assert ran.code == 0
    assert "couldn't be revoked" in ran.err
    assert json.loads(platform.cyto.settings.read_text())["tokens"] == {}


@pytest.mark.parametrize(
    ("words", "data", "code", "error"),
    [
        (("--email", EMAIL, "--password-stdin"), "wrong\n", errors.NOT_SIGNED_IN, "sign-in-failed"),
        (
            ("--email", "nobody@example.org", "--password-stdin"),
            "x\n",
            errors.NOT_SIGNED_IN,
            "sign-in-failed",
        ),
        (("--email", EMAIL, "--password-stdin"), "", errors.USAGE, "usage"),
        (("--email", EMAIL), "", errors.USAGE, "usage"),
        ((), "", errors.USAGE, "usage"),
        (("--url", "ftp://example.org"), "", errors.USAGE, "usage"),
        (("--url", "http://me:secret@127.0.0.1:1"), "", errors.USAGE, "usage"),
        (("--email", EMAIL, "--password-stdin", "--days", "1000"), "x\n", errors.USAGE, "usage"),
    ],
)
def test_what_keeps_somebody_from_signing_in_is_said(
    platform: Platform, words: tuple[str, ...], data: str, code: int, error: str
) -> None:
    ran = platform.cyto("login", *words, data=data)
    assert (ran.code, ran.error) == (code, error)
    assert not platform.cyto.settings.exists()


def test_guessing_is_slowed_down_with_an_exit_code_of_its_own(platform: Platform) -> None:
    codes = [sign_in(platform.cyto, password=f"guess {n}").code for n in range(11)]
    assert codes == [errors.NOT_SIGNED_IN] * 10 + [errors.TOO_MANY]


def test_expired_and_revoked_tokens_say_how_to_go_on(platform: Platform) -> None:
    sign_in(platform.cyto)
    Token.objects.filter(name="cyto").update(expires_at="2020-01-01T00:00:00Z")
    ran = platform.cyto("whoami")
    assert (ran.code, ran.error) == (errors.NOT_SIGNED_IN, "token-invalid")
    assert "cyto login" in ran.err


def test_a_settings_file_that_was_damaged_counts_as_none(platform: Platform) -> None:
    file = platform.cyto.settings
    file.parent.mkdir(parents=True)
    for text in ("", "{", "[]", '{"url": 3}', '{"url": "http://a", "tokens": 5}', "\0"):
        file.write_text(text)
        assert platform.cyto("whoami").error == "not-signed-in", text


def test_a_folder_that_cant_be_written_is_a_sentence(platform: Platform) -> None:
    (platform.cyto.folder / "config").write_text("a file where a folder should be")
    ran = sign_in(platform.cyto)
    assert (ran.code, ran.error) == (errors.INTERNAL, "settings-unwritable")


@pytest.fixture
def clone(platform: Platform) -> Path:
    """A repository of acme's project, in which nobody has typed a token."""
    platform.world.project("shop")
    folder = platform.cyto.folder / "shop"
    for words in (
        ("init", "-q", "--initial-branch=main", str(folder)),
        ("-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org",
         "commit", "-q", "--allow-empty", "-m", "A change"),
    ):  # fmt: skip
        subprocess.run(["git", *words], check=True)
    return folder


def git(clone: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    more = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", **environment}
    return subprocess.run(
        ["git", "-C", str(clone), *words],
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_git_asks_the_sign_in_and_nothing_is_typed_or_written_into_addresses(
    platform: Platform, clone: Path
) -> None:
    cyto = platform.cyto
    # git calls the program by its absolute path: an installation's `cyto` is such a file.
    program = cyto.folder / "cyto"
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={cyto.environment["PYTHONPATH"]} exec {cyto.command[0]} -m cli "$@"\n'
    )
    program.chmod(0o755)
    login = cyto.process(
        "login",
        "--email",
        EMAIL,
        "--password-stdin",
        data=f"{factories.PASSWORD}\n",
        CYTO_PROGRAM=str(program),
    )
    assert "git uses it too" in login.err
    remote = cyto.process("git", "remote", "-t", "acme", "-p", "shop", cwd=clone)
    assert remote.code == 0, remote.err
    url = git(clone, "remote", "get-url", "cytoplane").stdout.strip()
    assert url == f"{platform.url}/git/acme/shop.git"
    done = git(clone, "ls-remote", "cytoplane")
    assert done.returncode == 0, done.stderr
    kept = (cyto.folder / ".gitconfig").read_text() + (clone / ".git" / "config").read_text()
    assert "cy_" not in kept

    assert cyto("logout").code == 0
    assert "credential" not in (cyto.folder / ".gitconfig").read_text()
    assert git(clone, "ls-remote", "cytoplane").returncode != 0


def test_the_helper_answers_for_the_platform_alone(platform: Platform) -> None:
    cyto = platform.cyto
    sign_in(cyto)
    host = platform.url.removeprefix("http://")

    def answer(protocol: str, host: str, operation: str = "get") -> str:
        return cyto("git", "credential", operation, data=f"protocol={protocol}\nhost={host}\n\n").out

    assert answer("http", host) == f"username=cyto\npassword={secret(cyto, platform.url)}\n"
    for elsewhere in ("example.org", "127.0.0.1", f"{host}.example.org", f"x@{host}", ""):
        assert answer("http", elsewhere) == ""
    assert answer("https", host) == ""
    assert answer("http", host, "store") == ""
    platform.be("owner")  # a token of the environment is for the platform that is in use
    assert answer("http", "example.org") == ""


@pytest.mark.parametrize(
    ("remote", "found"),
    [
        ("{url}/git/acme/shop.git", True),
        ("{url}/git/acme/shop", True),
        ("http://somebody@{host}/git/acme/shop.git", True),
        ("https://{host}/git/acme/shop.git", False),
        ("http://example.org/git/acme/shop.git", False),
        ("git@example.org:git/acme/shop.git", False),
        ("{url}/git/acme/shop/extra.git", False),
        ("http://[broken/git/acme/shop.git", False),
    ],
)
def test_tenant_and_project_are_taken_from_a_remote_of_this_platform(
    platform: Platform, clone: Path, monkeypatch: pytest.MonkeyPatch, remote: str, found: bool
) -> None:
    platform.be("owner")
    monkeypatch.chdir(clone)
    url = remote.format(url=platform.url, host=platform.url.removeprefix("http://"))
    git(clone, "remote", "add", "upstream", url)
    ran = platform.cyto("projects", "show", "--json")
    if found:
        assert ran.json["slug"] == "shop"
    else:
        assert (ran.code, ran.error) == (errors.USAGE, "place-missing")


def test_flags_go_before_the_environment_and_that_before_the_remote(
    platform: Platform, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.be("owner")
    for name in ("billing", "docs"):
        platform.world.project(name)
    monkeypatch.chdir(clone)
    git(clone, "remote", "add", "cytoplane", f"{platform.url}/git/acme/shop.git")
    ask = ("projects", "show", "--json")
    assert platform.cyto(*ask).json["slug"] == "shop"
    assert platform.cyto(*ask, "-t", "acme").json["slug"] == "shop"
    assert platform.cyto("ps", "--json", "-p", "billing").json == []
    monkeypatch.setenv("CYTO_PROJECT", "docs")
    assert platform.cyto("open", "--portal", "--json").json["url"].endswith("/acme/docs/production")
    assert (
        platform.cyto("open", "--portal", "--json", "-p", "billing")
        .json["url"]
        .endswith("/acme/billing/production")
    )
    monkeypatch.delenv("CYTO_PROJECT")
    # Another tenant's project of the same name is not what one stands in.
    assert platform.cyto("ps", "-t", "globex").error == "place-missing"


def test_a_remote_that_is_there_is_pointed_to_the_project(platform: Platform, clone: Path) -> None:
    platform.be("owner")
    git(clone, "remote", "add", "cytoplane", "http://example.org/x.git")
    ran = platform.cyto.process("git", "remote", "-t", "acme", "-p", "shop", "--json", cwd=clone)
    assert ran.json == {"name": "cytoplane", "url": f"{platform.url}/git/acme/shop.git"}
    ran = platform.cyto.process("git", "remote", "-t", "acme", "-p", "nothing", cwd=clone)
    assert (ran.code, ran.error) == (errors.NOT_FOUND, "not-found")
    ran = platform.cyto.process("git", "remote", "-t", "acme", "-p", "shop")
    assert (ran.code, ran.error) == (errors.USAGE, "git-failed")
    ran = platform.cyto.process("git", "remote", "-t", "acme", "-p", "shop", "--name", "a b", cwd=clone)
    assert ran.error == "git-failed"
