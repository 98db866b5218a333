"""Reads a release's specification for display. The one place of the portal that knows its shape."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoint:
    name: str
    port: int
    protocol: str
    visibility: str
    callers: bool = False


@dataclass(frozen=True)
class Connection:
    """``to`` is ``project/component.endpoint`` or empty; ``external`` a network or host, or empty."""

    name: str
    to: str = ""
    external: str = ""
    port: int = 0
    protocol: str = "tcp"

    @property
    def target(self) -> str:
        return self.to or self.external


@dataclass(frozen=True)
class Component:
    name: str
    kind: str
    command: str
    endpoints: tuple[Endpoint, ...]
    connections: tuple[Connection, ...]
    replicas: int
    memory: str
    cpu: str
    probe: str


def components(document: dict | None) -> dict[str, Component]:
    """Components of a specification by name; an absent or older document gives fewer facts, not an error."""
    raw = (document or {}).get("components", {})
    items = raw.items() if isinstance(raw, dict) else ((c.get("name", ""), c) for c in raw)
    return {name: _component(name, value or {}) for name, value in items}


def _named(raw: object) -> list[tuple[str, dict]]:
    """Things that are written either as a mapping by name or as a list with names."""
    if isinstance(raw, dict):
        return [(name, value or {}) for name, value in raw.items()]
    return [(value.get("name", ""), value) for value in raw or [] if isinstance(value, dict)]  # type: ignore[attr-defined]


def _component(name: str, raw: dict) -> Component:
    endpoints = tuple(
        Endpoint(
            name=key,
            port=int(value.get("port") or 0),
            protocol=value.get("protocol") or "http",
            visibility=value.get("visibility") or "cell",
            callers=bool(value.get("callers")),
        )
        for key, value in _named(raw.get("endpoints"))
    )
    limits = raw.get("limits") or {}
    health = raw.get("health") or {}
    command = raw.get("command") or ""
    return Component(
        name=name,
        kind=raw.get("kind") or "service",
        command=" ".join(command) if isinstance(command, list) else str(command),
        endpoints=endpoints,
        connections=tuple(_connection(item) for item in raw.get("connections") or []),
        replicas=int(raw.get("replicas") or 1),
        memory=_memory(limits.get("memory")),
        cpu=str(limits.get("cpu") or ""),
        probe=_probe(health),
    )


def _connection(raw: dict) -> Connection:
    external = raw.get("external") or {}
    name = raw.get("as") or raw.get("name") or ""
    if external:
        return Connection(
            name=name,
            external=external.get("cidr") or external.get("host") or "",
            port=int(external.get("port") or 0),
            protocol=external.get("protocol") or "tcp",
        )
    return Connection(name=name, to=raw.get("to") or "")


def _memory(value: object) -> str:
    """A limit, which the specification keeps in MiB."""
    return f"{value:g} MiB" if isinstance(value, int | float) and value else ""


def _probe(health: dict) -> str:
    kind = health.get("type") or ("http" if health.get("path") else "")
    if kind == "http" or health.get("path"):
        return f"GET {health.get('path') or '/'}"
    return {"tcp": "TCP connect", "none": "no check"}.get(kind, "")
