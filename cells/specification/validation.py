"""Judging a specification that came over the wire: a builder's result is a claim, not a fact.

Written out as a cytoplane.yaml would say it, it must read back as exactly itself. So the rules are the
parser's, and a bound that is added there holds here too.
"""

from __future__ import annotations

from typing import Any

from cells.specification import scaling
from cells.specification.model import (
    Component,
    Connection,
    Endpoint,
    Limits,
    Specification,
    SpecificationError,
    Task,
)
from cells.specification.parser import DOMAIN, assemble

BUILDERS = ("dockerfile", "python", "static")


def validate(document: Any, *, project: str, domain: str = DOMAIN) -> Specification:
    """The specification of a document that ``as_dict`` made of what ``parse`` gave.

    Raises ``SpecificationError`` for everything that ``parse`` can't have given for this project.
    """
    try:
        claimed = Specification.from_dict(document)
        detected: dict[str, str] = {}
        for name, component in claimed.components.items():
            known = detected.setdefault(component.path, component.builder)
            if component.builder not in BUILDERS or known != component.builder:
                raise _wrong(f"`{component.builder}` doesn't build {name}", f"components.{name}.builder")
        written = {name: _written(component) for name, component in claimed.components.items()}
        read = assemble(written, claimed.strict, project, {}, detected, domain)
    except SpecificationError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        raise _wrong("it isn't a specification", "") from None
    if not read.components:
        raise _wrong("it declares nothing", "components")
    for name, component in claimed.components.items():
        if read.components[name] != component:
            raise _wrong(f"{name} can't have come from a cytoplane.yaml", f"components.{name}")
    return read


def _wrong(message: str, where: str) -> SpecificationError:
    return SpecificationError(f"{message}.", "Build it again.", where or "the specification")


def _written(component: Component) -> dict[str, Any]:
    health = component.health
    return {
        "kind": component.kind,
        "command": component.command,
        "path": component.path,
        "replicas": scaling.written(component.replicas, component.scaling),
        "limits": _limits(component.limits),
        "health": {
            "type": health.type,
            "port": health.port,
            "path": health.path,
            "interval": health.interval,
            "timeout": health.timeout,
            "grace": health.grace,
        },
        "endpoints": {key: _endpoint(endpoint) for key, endpoint in component.endpoints.items()},
        "connections": [_connection(connection) for connection in component.connections],
        "ping": component.ping,
        "network": {"services": component.network.services},
        **_task(component.task),
    }


def _task(task: Task | None) -> dict[str, Any]:
    if task is None:
        return {}
    found = {"concurrency": task.concurrency, "timeout": task.timeout, "retries": task.retries}
    return found | ({"schedule": task.schedule} if task.schedule else {})


def _limits(limits: Limits) -> dict[str, Any]:
    """What isn't limited isn't written: the least that may be is more than nothing."""
    network = ("bandwidth_in", "bandwidth_out", "connections_per_second", "connections")
    found = {name: getattr(limits, name) for name in network}
    return {"memory": f"{limits.memory}Mi", "cpu": limits.cpu} | {k: v for k, v in found.items() if v}


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "port": endpoint.port,
        "protocol": endpoint.protocol,
        "visibility": endpoint.visibility,
        "host": endpoint.host,
        "callers": endpoint.callers,
        "balance": endpoint.balance,
        "affinity": endpoint.affinity,
    }


def _connection(connection: Connection) -> dict[str, Any]:
    external = connection.external
    if external is None:
        return {"as": connection.name, "to": connection.to}
    # Nothing that answers a ping has a port.
    found: dict[str, Any] = {"port": external.port} if external.protocol != "icmp" else {}
    if external.host:
        found["host"] = external.host
    if external.cidr:
        found["cidr"] = external.cidr
    found["protocol"] = external.protocol
    return {"as": connection.name, "external": found, **({"to": connection.to} if connection.to else {})}
