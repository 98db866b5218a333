"""Audit, and learning from what was refused or audited: the connections that a project lacks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import output, place
from cli.api import Api
from cli.errors import CONFLICT, CliError, usage
from cli.gits import run_git
from cli.output import Json
from cli.place import Environment, Project, Tenant

FILE = "cytoplane.yaml"
_IN_AUDIT = (
    "{project} is in audit: what its own declarations could open passes, is reported by `cyto denied`, and "
    "isn't denied."
)
_NOT_IN_AUDIT = "{project} isn't in audit: what isn't declared is denied."


def audit(
    wanted: Annotated[str, typer.Argument(metavar="[on|off|show]", help="Else it is shown.")] = "show",
    tenant: Tenant = "",
    project: Project = "",
    as_json: Json = False,
) -> None:
    """Let pass and report what the project's own declarations could open, instead of denying it."""
    if wanted not in ("on", "off", "show"):
        raise usage(f"`{wanted}` is neither `on`, `off` nor `show`.", "Write `cyto audit on`.")
    where, api = place.project(tenant, project), Api()
    if wanted == "show":
        answer = api.get(where.project_path)
    else:
        answer = api.call("PATCH", where.project_path, {"audit": wanted == "on"})
    if as_json:
        output.as_json(answer)
        return
    text = (_IN_AUDIT if answer["audit"] else _NOT_IN_AUDIT).format(project=where.project)
    output.say(text) if wanted == "show" else output.note(text)
    if answer["audit"]:
        output.note("`cyto learn` lists what it would have to declare; `cyto audit off` ends it.")


def learn(
    chosen: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Of these alone.")] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help=f"Write them into {FILE} and show the change.")
    ] = False,
    push: Annotated[bool, typer.Option("--push", help="With --accept: commit and push the change.")] = False,
    as_yaml: Annotated[bool, typer.Option("--yaml", help=f"Print them as a piece of {FILE}.")] = False,
    hours: Annotated[int, typer.Option(min=1, max=48, help="How far back to look.")] = 24,
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "production",
    as_json: Json = False,
) -> None:
    """Connections that calls which were refused, or that audit let pass, would need."""  # fmt: skip
    if push and not accept:
        raise usage("`--push` needs something to push.", "Write `cyto learn --accept --push`.")
    where = place.cell(tenant, project, environment)
    answer = Api().get(f"{where.path}/learn", hours=hours)
    rows = _chosen(answer["connections"], chosen or [])
    if accept:
        _accept(where, answer, rows, push=push, raw=as_json)
    elif as_json:
        output.as_json(answer | {"connections": rows})
    elif as_yaml:
        output.say(_yaml(rows))
    else:
        _show(rows, answer["excluded"], hours)


def _chosen(rows: list[dict[str, Any]], ids: list[str]) -> list[dict[str, Any]]:
    known = {row["id"]: row for row in rows}
    for name in ids:
        if name not in known:
            raise usage(f"Nothing in the list has the id `{name}`.", "`cyto learn` shows the ids.")
    return [known[name] for name in dict.fromkeys(ids)] if ids else rows


def _show(rows: list[dict[str, Any]], excluded: list[dict[str, Any]], hours: int) -> None:
    shown = [
        {
            **row,
            "verdict": output.VERDICTS.get(row["verdict"], row["verdict"]),
            "last_at": output.ago(row["last_at"]),
        }
        for row in rows
    ]
    columns = {"id": "ID", "component": "COMPONENT", "target": "TO", "verdict": "VERDICT", "packets": "PACKETS",
               "last_at": "LAST", "declaration": "CONNECTION"}  # fmt: skip
    empty = f"Nothing that a connection of this project's would open was seen in the last {hours} hours."
    output.table(shown, columns, raw=False, empty=empty)
    for row in rows:
        if row["note"]:
            output.note(f"{row['id']}: {row['note']}")
    if rows:
        output.note(f"\n`cyto learn --accept` writes them into {FILE}; with ids behind it, these alone.")
    if excluded:
        output.note("\nWhat no connection of this project's opens:")
        for row in excluded:
            output.note(
                f"  {output.safe(row['component'])} → {output.safe(row['target'])}: {row['sentence']}"
            )


def _accept(
    where: place.Place, answer: dict[str, Any], rows: list[dict[str, Any]], *, push: bool, raw: bool
) -> None:
    try:
        # The rules of cytoplane.yaml, which no other command needs.
        from cells.specification import SpecificationError
        from cli import declarations
    except ImportError:
        raise CliError(
            "This `cyto` was installed without the rules of cytoplane.yaml.",
            "Take `cyto learn --yaml`, or put the root of Cytoplane's repository on PYTHONPATH too.",
            "no-rules",
        ) from None
    root = _tree(where)
    file = root / FILE
    if push and run_git("-C", str(root), "status", "--porcelain", "--", FILE).strip():
        raise CliError(f"{FILE} has changes of your own that aren't committed.",
                       "Commit them, then accept again.", "not-committed", CONFLICT)  # fmt: skip
    if file.is_symlink():
        raise usage(
            f"{FILE} is a link, which the platform doesn't follow.", "Make it a file of the repository."
        )
    files = {
        name: (root / name).read_text(encoding="utf-8")
        for name in (FILE, "Procfile")
        if (root / name).is_file() and not (root / name).is_symlink()
    }
    try:
        change = declarations.add(files, rows, project=where.project, domain=answer["domain"])
    except SpecificationError as error:
        raise CliError(f"{error.where}: {error.message}", error.hint, "specification") from None
    for text in change.skipped:
        output.note(f"Left out: {text}")
    done = {"added": change.added, "skipped": change.skipped, "diff": change.diff}
    if not change.diff:
        output.done(done | {"pushed": False}, f"{FILE} has all of it already.", raw=raw)
        return
    file.write_text(change.text, encoding="utf-8")
    if not raw:
        output.say(change.diff.rstrip("\n"))
    if push:
        _push(root, where, len(change.added))
    said = (
        "It is committed and pushed."
        if push
        else f"{file} is changed; commit and push it, and it is in force."
    )
    output.done(done | {"pushed": push}, said, raw=raw)


def _yaml(rows: list[dict[str, Any]]) -> str:
    """The connections as a piece of cytoplane.yaml."""
    lines: dict[str, list[str]] = {}
    for row in rows:
        lines.setdefault(row["component"], []).append(f"      - {row['declaration']}")
    parts = [[f"  {name}:", "    connections:", *items] for name, items in sorted(lines.items())]
    return "\n".join(["components:", *(line for part in parts for line in part)]) if parts else ""


def _tree(where: place.Place) -> Path:
    """The root of the project's working tree that one stands in. Raises ``CliError`` if one doesn't."""
    if place.from_git() != (where.tenant, where.project):
        raise CliError(
            f"This isn't a working tree of {where.tenant}/{where.project}.",
            "Stand in one, or take `cyto learn --yaml` and write it into cytoplane.yaml yourself.",
            "no-working-tree",
        )
    return Path(run_git("rev-parse", "--show-toplevel").strip())


def _push(root: Path, where: place.Place, number: int) -> None:
    """Commit the file alone and push the branch that is checked out."""
    branch = run_git("-C", str(root), "symbolic-ref", "--short", "HEAD").strip()
    message = f"Connections that traffic needs: {number} more"
    run_git("-C", str(root), "add", "--", FILE)
    run_git("-C", str(root), "commit", "-q", "-m", message, "--", FILE)
    remote = place.remote_of(where.tenant, where.project)
    done = subprocess.run(
        ["git", "-C", str(root), "push", remote, f"HEAD:refs/heads/{branch}"],
        env={**os.environ, "LC_ALL": "C"},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        raise CliError("git couldn't push; the change is committed.", "Read what it says above, then `git push`.", "git-failed")  # fmt: skip


def register(app: typer.Typer) -> None:
    app.command()(audit)
    app.command()(learn)
