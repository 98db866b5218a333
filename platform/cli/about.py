"""The program about itself: help, version, completion; and the way to the browser."""

from __future__ import annotations

import os
import sys
import webbrowser
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli import __version__, output, place
from cli.api import Api, part
from cli.errors import EXIT_CODES, NOT_FOUND, CliError, usage
from cli.output import Json
from cli.place import Environment, Project, Tenant
from cli.settings import load

SHELLS = ("bash", "zsh", "fish")


def version(as_json: Json = False) -> None:
    """This program's version and its platform."""
    document = {"version": __version__, "url": load().url}
    output.as_json(document) if as_json else print(f"cyto {__version__}, for {document['url']}")


def commands(command: Any, name: str = "") -> list[dict[str, Any]]:
    """Every command that people see, with its words and options."""
    if isinstance(command, TyperGroup):
        found = [commands(below, f"{name} {key}".strip()) for key, below in command.commands.items()]
        return [one for several in found for one in several]
    if command.hidden:
        return []
    parameters = [p for p in command.params if p.name != "help"]
    arguments = [p.metavar or (p.name or "").upper() for p in parameters if p.param_type_name == "argument"]
    options = [
        {"names": [*p.opts, *p.secondary_opts], "help": (p.help or "").strip()}
        for p in parameters
        if p.param_type_name == "option"
    ]
    text = " ".join((command.help or "").split())
    return [{"command": name, "help": text, "arguments": arguments, "options": options}]


def help_(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[TOPIC [VERB]]")] = None,
    as_json: Json = False,
) -> None:
    """How commands are written. With --json: all of them, and the exit codes."""
    if not as_json:  # `cyto help X` became `cyto X --help` before it came here
        print(context.find_root().get_help())
        return
    found = [
        one
        for one in commands(context.find_root().command)
        if one["command"].split()[: len(words or [])] == (words or [])
    ]
    if not found:
        raise usage(f"`{' '.join(words or [])}` isn't a command.", "`cyto help` lists them.")
    output.as_json({"commands": found, "exit_codes": {str(code): text for code, text in EXIT_CODES.items()}})


def completion(
    context: typer.Context,
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish")] = "bash",
    as_json: Json = False,
) -> None:
    """Print a shell's completion script. Write `eval "$(cyto completion bash)"` in ~/.bashrc."""
    if shell not in SHELLS:
        raise usage(f"`{shell}` isn't a shell that is known.", f"Write one of {', '.join(SHELLS)}.")
    script = script_for(shell)
    output.as_json({"shell": shell, "script": script}) if as_json else print(script)


def script_for(shell: str) -> str:
    """What the shell evaluates; it asks the program itself for what could come next."""
    return {
        "bash": (
            "_cyto() {\n  local IFS=$'\\n'\n"
            '  COMPREPLY=( $(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD '
            "_CYTO_COMPLETE=complete_bash cyto) )\n}\n"
            "complete -o default -F _cyto cyto"
        ),
        "zsh": (
            "#compdef cyto\n_cyto() {\n"
            '  eval $(_TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _CYTO_COMPLETE=complete_zsh cyto)\n}\n'
            "compdef _cyto cyto"
        ),
        "fish": (
            "complete --command cyto --no-files --arguments '(env _CYTO_COMPLETE=complete_fish "
            "_TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS=(commandline -cp) cyto)' "
            "--condition 'env _CYTO_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=is-args "
            "_TYPER_COMPLETE_ARGS=(commandline -cp) cyto'"
        ),
    }[shell]


def _has_browser() -> bool:
    """Whether somebody looks at this terminal who could see a window."""
    shows = any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))
    return sys.stdout.isatty() and (shows or sys.platform == "darwin")


def open_(
    component: Annotated[
        str, typer.Argument(metavar="[COMPONENT]", help="Else the first that has an address.")
    ] = "",
    portal: Annotated[
        bool, typer.Option("--portal", help="The project's page in the portal instead.")
    ] = False,
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "production",
    as_json: Json = False,
) -> None:
    """Print the application's address. Where there is a browser it is opened."""
    where, api = place.cell(tenant, project, environment), Api()
    if portal:
        api.get(where.project_path)
        url = f"{api.url}/{part(where.tenant)}/{part(where.project)}/{part(where.environment)}"
    else:
        rows = api.get(f"{where.path}/components")
        urls = [url for row in rows if component in ("", row["name"]) for url in row["urls"]]
        if not urls:
            what = f"`{component}`" if component else f"{where.project} in {where.environment}"
            following = "`cyto components` shows what has one; a public endpoint with `host` gets one."
            raise CliError(f"{what} has no public address.", following, "no-address", NOT_FOUND)
        url = urls[0]
    output.as_json({"url": url}) if as_json else print(url)
    if not as_json and _has_browser():
        webbrowser.open(url)


def register(app: typer.Typer) -> None:
    app.command("open")(open_)
    app.command("completion")(completion)
    app.command("help")(help_)
    app.command()(version)
