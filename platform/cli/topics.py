"""Topics: plural nouns with verbs below them. A bare topic lists."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

_HELP = ("-h", "--help")


class Topic(TyperGroup):
    """``cyto projects`` and ``cyto projects --json`` are ``cyto projects list …``; without a list, help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        bare = not args or (args[0].startswith("-") and args[0] not in _HELP)
        if bare and not ctx.resilient_parsing:
            args = ["list", *args] if "list" in self.commands else ["--help"]
        return super().parse_args(ctx, args)


class Program(TyperGroup):
    """All topics. Whoever reads the output may go away before its end, like `head` does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ([] if ctx.resilient_parsing else ["--help"]))

    def invoke(self, ctx: Any) -> Any:
        try:
            answer = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        return answer


def topic(help_text: str) -> typer.Typer:
    """A topic without verbs yet."""
    return typer.Typer(help=help_text, cls=Topic, rich_markup_mode=None)
