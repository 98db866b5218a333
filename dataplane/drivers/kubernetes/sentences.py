"""What Kubernetes says about a pod, in words for the person who pushed it.

Its messages change with versions: what isn't recognised is passed on shortened, never dropped.
"""

from __future__ import annotations

import re
from typing import Any

_LONGEST = 240
_INSUFFICIENT = re.compile(r"(\d+) Insufficient ([a-z-]+)")
_PLUGIN = re.compile(r"plugin type=\"?[\w.-]+\"?(?: name=\"?[\w.-]+\"?)? failed \(add\): ")
_STATUS = re.compile(r"statuscode: (\d{3})")
_RESOURCES = {"cpu": "processor time", "memory": "memory", "pods": "room for another pod"}


def short(text: str) -> str:
    """One line of bounded length, without the full stop."""
    return " ".join(text.split())[:_LONGEST].rstrip(". ")


def unschedulable(message: str) -> str:
    """Why no node takes it."""
    lacking = dict.fromkeys(match[2] for match in _INSUFFICIENT.finditer(message))
    if "cytoplane.dev/unprotected" in message and not lacking:
        return "no node of the plane can isolate it at the moment"
    if lacking:
        names = " or ".join(_RESOURCES.get(name, name) for name in lacking)
        return f"no node of the plane has enough {names} for it"
    return f"no node of the plane can take it: {short(message)}"


def refused(message: str) -> str:
    """Why the cluster made no pod."""
    if "exceeded quota" in message:
        what = message[message.index("exceeded quota") :]
        asked = re.search(r"requested: ([^,]+(?:,[a-z.]+=[^,]+)*), used", what)
        return f"the cell's quota refuses it ({short(asked[1] if asked else what)} more is too much)"
    if "violates PodSecurity" in message:
        return f"the cluster's pod security refuses it: {short(message.partition('violates ')[2])}"
    return f"the cluster refuses it: {short(message.partition('forbidden: ')[2] or message)}"


def image(message: str) -> str:
    """Why its image isn't there."""
    lower = message.lower()
    if "not found" in lower or "manifest unknown" in lower:
        why = "the registry doesn't have it"
    elif any(word in lower for word in ("401", "403", "unauthorized", "denied", "authorization failed")):
        why = "the registry refuses the node"
    elif any(word in lower for word in ("connection refused", "timeout", "no route", "deadline", "dial tcp")):
        why = "the node doesn't reach the registry"
    elif "no space left" in lower:
        why = "the node's disk is full"
    else:
        why = short(message.rpartition("desc = ")[2])
    return f"its image can't be pulled: {why}"


def configuration(message: str) -> tuple[bool, str]:
    """(whether it passes by itself, why the container can't be made)."""
    if re.search(r"secret \"?env-r\d+\"? not found", message):
        return True, "its variables aren't on the cluster yet"
    return False, f"its container can't be made: {short(message)}"


def cant_run(message: str) -> str:
    """Why its command doesn't begin."""
    command = re.search(r"exec: \\?\"(.+?)\\?\": (.+)", message)
    if command:
        return f"its command can't be run: {short(command[1])}: {short(command[2].removesuffix(': unknown'))}"
    return f"its command can't be run: {short(message.rpartition('caused: ')[2])}"


def sandbox(message: str) -> str:
    """Why it has no network, or no disk, yet: what our own plugin says is said as it is."""
    ours = _PLUGIN.search(message)
    if ours:
        return f"its node gives it no network: {short(message[ours.end() :])}"
    return f"its node can't prepare it: {short(message.rpartition('desc = ')[2])}"


def unchecked(message: str) -> str:
    """Why the first container ended."""
    return f"its node doesn't isolate it as it must: {short(message) or 'the check says nothing'}"


def evicted(reason: str, message: str) -> str:
    if reason == "Evicted":
        return f"its node needed the room: {short(message)}"
    return f"its node ended it: {short(message or reason)}"


def probe(declared: dict[str, Any], message: str) -> dict[str, str]:
    """What was asked and what came back, as a machine's agent says it."""
    port = declared["port"]
    what = f"TCP port {port}" if declared["type"] == "tcp" else f"GET {declared['path']} on port {port}"
    status = _STATUS.search(message)
    if status:
        answer = f"status {status[1]}"
    elif "connection refused" in message:
        answer = "nothing listens there"
    elif "deadline exceeded" in message or "timeout" in message.lower():
        answer = f"no answer within {declared['timeout']} s"
    else:
        answer = short(message.removeprefix("Readiness probe failed: ")) or "it isn't known what"
    return {"what": what, "answer": answer}
