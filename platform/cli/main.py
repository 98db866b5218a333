"""The program: topics, `topic:verb`, and errors with their id, next step and exit code."""

from __future__ import annotations

import sys

import click
import typer

from cli import account, configuration, delivery, gits, observe, planes, projects, tenants
from cli.api import CliError
from cli.output import note

app = typer.Typer(
    name="cyto",
    help="Deploy and watch applications on Cytoplane. Tenant, project and environment are taken from the git "
    "remote where one stands; flags say otherwise.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (account, projects, configuration, delivery, observe, tenants, planes, gits):
    module.register(app)


def _spelled(arguments: list[str]) -> list[str]:
    """``topic:verb`` as ``topic verb``, for the first word only."""
    if arguments and ":" in arguments[0] and not arguments[0].startswith("-"):
        return [*arguments[0].split(":", 1), *arguments[1:]]
    return arguments


def main(arguments: list[str] | None = None) -> None:
    """Run and exit."""
    words = _spelled(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.exit(app(args=words, standalone_mode=False, prog_name="cyto") or 0)
    except CliError as error:
        note(f" !     {error.message}")
        if error.following:
            note(f"       {error.following}")
        if error.code:
            where = f", request {error.request}" if error.request else ""
            note(f"       error id: {error.code}{where}")
        sys.exit(error.exit)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except (click.exceptions.Abort, KeyboardInterrupt):
        note("Stopped.")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
