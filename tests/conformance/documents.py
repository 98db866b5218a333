"""The boundary back out of a node's document."""

from __future__ import annotations

from typing import Any

from cells.boundary import model


def decode(document: dict[str, Any]) -> model.Boundary:
    """What ``snapshots.encode`` wrote, as the compiler had made it."""
    gateway = document["gateway"]
    return model.Boundary(
        identities={
            int(identity): model.IdentityPolicy(
                entry["cell"],
                [tuple(e) for e in entry["policy"]],  # type: ignore[misc]
                [tuple(e) for e in entry["external"]],  # type: ignore[misc]
            )
            for identity, entry in document["identities"].items()
        },
        addresses={address: tuple(owner) for address, owner in document["addresses"].items()},  # type: ignore[misc]
        services=[model.Service(**{**s, "backends": _backends(s)}) for s in document["services"]],
        names={
            int(identity): {name: tuple(pair) for name, pair in names.items()}
            for identity, names in document["names"].items()
        },
        external_names={
            int(identity): [tuple(entry) for entry in entries]  # type: ignore[misc]
            for identity, entries in document["external_names"].items()
        },
        limits={int(identity): tuple(most) for identity, most in document["limits"].items()},  # type: ignore[misc]
        routes=[model.Route(**route) for route in gateway["routes"]],
        clusters=[model.Cluster(**{**c, "backends": _backends(c)}) for c in gateway["clusters"]],
        listeners=[model.Listener(**item) for item in gateway["listeners"]],
        doors=[model.Door(**{**door, "hosts": tuple(door["hosts"])}) for door in gateway["doors"]],
        floor=tuple(tuple(entry) for entry in document["floor"]),  # type: ignore[misc]
    )


def _backends(entry: dict[str, Any]) -> tuple[model.Backend, ...]:
    return tuple(tuple(b) for b in entry["backends"])  # type: ignore[misc]
