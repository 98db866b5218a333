"""The program: topics, `topic:verb`, and errors with their id, next step and exit code."""

from __future__ import annotations

import io
import os
import sys
import traceback

import typer
from typer.completion import completion_init

from cli import (
    about,
    account,
    admin,
    configuration,
    delivery,
    execution,
    gits,
    learning,
    observe,
    planes,
    projects,
    runs,
    tenants,
)
from cli.errors import INTERNAL, INTERRUPTED, CliError, usage
from cli.output import as_json, note, safe
from cli.topics import Program

app = typer.Typer(
    name="cyto",
    help="Deploy and watch applications on Cytoplane. Tenant and project are taken from the git remote where "
    "one stands; flags say otherwise. `cyto help TOPIC` tells more, `--json` prints for programs.",
    cls=Program,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for module in (
    account,
    tenants,
    projects,
    configuration,
    delivery,
    execution,
    runs,
    observe,
    learning,
    planes,
    admin,
    gits,
    about,
):
    module.register(app)


def spelled(words: list[str]) -> list[str]:
    """The other ways to write a command: ``topic:verb``, ``help topic verb``, ``--version``."""
    if words[:1] == ["help"] and "--json" not in words and words[1:2] != ["--help"]:
        return [*spelled(words[1:]), "--help"]
    if words[:1] in (["--version"], ["-V"]):
        return ["version", *words[1:]]
    if words and ":" in words[0] and not words[0].startswith("-"):
        return [*words[0].split(":", 1), *words[1:]]
    return words


def _misunderstood(error: typer.TyperException) -> CliError:
    """What typer says about words that it can't understand, in the common form."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "cyto"
    message = " ".join(error.format_message().split())
    message = message[:1].upper() + message[1:] + ("" if message[-1:] in ".?" else ".")
    return usage(message, f"`{command} --help` shows how it is written.")


def _report(error: CliError, raw: bool) -> int:
    note(f" !     {safe(error.message)}")
    if error.following:
        note(f"       {safe(error.following)}")
    note(f"       error id: {error.code}" + (f", request {error.request}" if error.request else ""))
    if raw and not error.shown:
        as_json(error.as_dict())
    return error.exit


def run(words: list[str]) -> int:
    """The exit code of a command; what goes wrong is told as a sentence, never as a traceback."""
    # Behind -- are words of somebody else's command.
    raw = "--json" in (words[: words.index("--")] if "--" in words else words)
    if "_CYTO_COMPLETE" in os.environ:  # a shell asks what could come next
        completion_init()
    try:
        return int(app(args=spelled(words), standalone_mode=False, prog_name="cyto") or 0)
    except CliError as error:
        return _report(error, raw)
    except typer.TyperException as error:
        return _report(_misunderstood(error), raw)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:  # the last line of defence: people get a sentence
        if os.environ.get("CYTO_DEBUG"):
            traceback.print_exc()
        following = "Set CYTO_DEBUG=1, try again, and report what it prints."
        message = f"cyto itself failed: {type(error).__name__}: {error}"
        return _report(CliError(message, following, "cyto-failed", INTERNAL), raw)


def main(arguments: list[str] | None = None) -> None:
    """Run and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = run(sys.argv[1:] if arguments is None else arguments)
    if code == INTERRUPTED:
        note("Stopped.")
    sys.exit(code)
