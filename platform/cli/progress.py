"""Following a deployment to its end, over lost connections, and saying how it ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from cli import output
from cli.api import Api
from cli.errors import FAILED, PLATFORM, UNREACHABLE, CliError
from cli.place import Place

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end, with its log.")]
#: How often in a row a lost platform is asked again, with as many seconds in between as tries.
_TRIES = 8


def stream_log(api: Api, path: str, write: Callable[[str], None]) -> dict[str, Any]:
    """Write a deployment's log until it ends; the deployment. What was written isn't written again.

    The platform ends a stream after some minutes, and may be restarted meanwhile: the stream begins
    anew, and as much of it as is known is left out. ``path`` is the deployment's.
    """
    seen, failures = 0, 0
    while True:
        try:
            position = 0
            for text in api.stream(f"{path}/log", follow="true"):
                fresh = text[max(0, seen - position) :]
                position += len(text)
                seen = max(seen, position)
                if fresh:
                    write(fresh)
                    failures = 0
            found = api.get(path)
        except CliError as error:
            failures += 1
            if error.exit not in (UNREACHABLE, PLATFORM) or failures > _TRIES:
                raise
            output.note(f"       {error.message} Trying again…")
            time.sleep(failures)
            continue
        if found["ended_at"]:
            return found
        time.sleep(1)


def to_terminal(stream: Any) -> Callable[[str], None]:
    """Write log text: colours for a person, plain text for a file, nothing that steers a terminal."""

    def write(text: str) -> None:
        stream.write(output.safe(text, colours=stream.isatty()))
        stream.flush()

    return write


def failure(found: dict[str, Any], *, shown: bool) -> CliError | None:
    """The error of a deployment that ended otherwise than well; None for the others."""
    if not found["ended_at"] or found["state"] == "live":
        return None
    error = found.get("error") or {}
    message = error.get("message") or f"Deployment {found['id']} is {found['state']}."
    if found.get("still_serving"):
        message += f" {found['still_serving']} still serves."
    following = error.get("next") or f"`cyto deployments retry {found['id']}` tries it once more."
    code = error.get("id") or f"deployment-{found['state']}"
    return CliError(message, following, code, FAILED, shown=shown)


def after(api: Api, where: Place, number: int, answer: Any, text: str, *, wait: bool, raw: bool) -> None:
    """Follow a deployment that a command made, with its log on standard error, or tell its number."""
    if not wait:
        output.done(answer, f"{text} Deployment {number} is underway.", raw=raw)
        return
    output.note(f"{text} Deployment {number}:")
    found = stream_log(api, f"{where.path}/deployments/{number}", to_terminal(sys.stderr))
    if raw:
        output.as_json(found)
    error = failure(found, shown=raw)
    if error:
        raise error
