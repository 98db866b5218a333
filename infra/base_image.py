"""Puts the base image into the builder's read-only store, where builds find it."""

from __future__ import annotations

from collections.abc import Callable

from dataplane.builder.images import base_store
from infra import base_recipe
from infra.config import Config


def ensure(config: Config, say: Callable[[str], None]) -> None:
    """Make the archive if it isn't cached, and import it where builds find it."""
    archive = base_recipe.archive_in(config.cache)
    if not archive.exists():
        say("Making the base image from Debian's packages")
        base_recipe.make(config.cache)
    store = base_store(config)
    mark = store / "recipe"
    if mark.exists() and mark.read_text() == base_recipe.recipe():
        return
    say("Importing the base image")
    store.mkdir(parents=True, exist_ok=True)
    run = config.run / "builder" / "base"
    base_recipe.run(
        [
            "skopeo",
            "copy",
            "--quiet",
            f"oci-archive:{archive}",
            f"containers-storage:[overlay@{store}+{run}]{base_recipe.BASE}",
        ]
    )
    mark.write_text(base_recipe.recipe())
