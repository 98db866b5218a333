"""How a state looks and reads, said once, so that it is the same on every page.

A look is a word for people, a tone (one of five colours) and an icon: the colour never stands alone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """``tone``: ok, busy, warn, bad or idle. ``spins``: something is going on right now."""

    word: str
    tone: str
    icon: str
    spins: bool = False


_OK, _BAD = "circle-check", "circle-x"

LOOKS: dict[str, dict[str, Look]] = {
    "deployment": {
        "queued": Look("Queued", "idle", "clock"),
        "building": Look("Building", "busy", "loader-circle", True),
        "starting": Look("Starting", "busy", "loader-circle", True),
        "switching": Look("Switching", "busy", "loader-circle", True),
        "draining": Look("Draining the old release", "busy", "loader-circle", True),
        "live": Look("Live", "ok", _OK),
        "failed": Look("Failed", "bad", _BAD),
        "cancelled": Look("Cancelled", "idle", "circle-minus"),
        "superseded": Look("Superseded", "idle", "circle-minus"),
    },
    "run": {
        "starting": Look("Starting", "busy", "loader-circle", True),
        "running": Look("Running", "busy", "loader-circle", True),
        "succeeded": Look("Succeeded", "ok", _OK),
        "failed": Look("Failed", "bad", _BAD),
        "timed-out": Look("Took too long", "bad", "clock"),
        "cancelled": Look("Cancelled", "idle", "circle-minus"),
        "lost": Look("Lost", "bad", "circle-help"),
        "skipped": Look("Skipped", "warn", "circle-minus"),
    },
    "phase": {
        "pending": Look("Pending", "idle", "circle-dashed"),
        "starting": Look("Starting", "busy", "loader-circle", True),
        "healthy": Look("Healthy", "ok", _OK),
        "unhealthy": Look("Unhealthy", "bad", "circle-alert"),
        "draining": Look("Draining", "idle", "circle-minus"),
        "failed": Look("Failed", "bad", _BAD),
        "stopped": Look("Stopped", "idle", "circle-minus"),
    },
    "cell": {
        "serving": Look("Serving", "ok", _OK),
        "degraded": Look("Degraded", "warn", "triangle-alert"),
        "down": Look("Down", "bad", _BAD),
        "deploying": Look("First deployment runs", "busy", "loader-circle", True),
        "failed": Look("Never came up", "bad", _BAD),
        "empty": Look("Nothing deployed", "idle", "circle-dashed"),
    },
    "verdict": {
        "allowed": Look("Allowed", "ok", "shield-check"),
        "denied": Look("Denied", "bad", "shield-x"),
        "audited": Look("Would be denied", "warn", "shield-alert"),
    },
    "tenant": {
        "active": Look("Active", "ok", _OK),
        "suspended": Look("Suspended", "warn", "circle-pause"),
    },
    "node": {
        "healthy": Look("Healthy", "ok", _OK),
        "unhealthy": Look("Unhealthy", "bad", "circle-alert"),
        "offline": Look("Offline", "bad", "wifi-off"),
        "behind": Look("Catching up", "busy", "loader-circle", True),
        "none": Look("No node enrolled", "warn", "triangle-alert"),
    },
    "step": {
        "waiting": Look("Not begun", "idle", "circle-dashed"),
        "running": Look("Running", "busy", "loader-circle", True),
        "done": Look("Done", "ok", _OK),
        "failed": Look("Failed", "bad", _BAD),
    },
}

_UNKNOWN = Look("Unknown", "idle", "circle-help")


def look(kind: str, value: str) -> Look:
    """The look of a state; an unknown one shows its own name and no colour."""
    found = LOOKS.get(kind, {}).get(value)
    return found or Look(str(value).replace("_", " ").capitalize() or "Unknown", "idle", _UNKNOWN.icon)


#: Component kind → icon.
KIND_ICONS = {"web": "globe", "service": "box", "worker": "cpu", "postgres": "database", "redis": "database"}

ROLE_WORDS = {
    "owner": "Everything, members and owners included",
    "admin": "Members, projects and everything a developer may",
    "developer": "Push, deploy, configure, scale",
    "viewer": "Read only",
}

KIND_ICONS |= {"cron": "clock", "job": "rocket"}
KIND_ICONS |= {"internet": "globe", "external": "external-link", "cell": "layers", "stranger": "shield-x"}
KIND_ICONS |= {"node": "hard-drive", "unknown": "circle-help"}
