"""From files to a ``Specification``, with errors that say where, what and what to write instead."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any

import yaml

from cells.specification import checks, network, scaling, tasks
from cells.specification.external import external as _external
from cells.specification.model import (
    KINDS,
    PROTOCOLS,
    TASKS,
    VISIBILITIES,
    Component,
    Connection,
    Endpoint,
    Health,
    Specification,
    SpecificationError,
)
from cells.specification.values import choice as _choice
from cells.specification.values import number as _number
from cells.specification.values import only as _only

DEFAULT_PORT = 8080
#: Applications' domain where nobody says another.
DOMAIN = "localhost"
LARGEST_FILE = 64 * 1024
#: A label of DNS holds 63; what isn't production adds its environment's name.
LONGEST_HOST = 50
#: Of a component: each has numbers of its own, and somebody has to read the diagram.
MOST_ENDPOINTS, MOST_CONNECTIONS = 20, 100
# `\Z`, since `$` also matches before a line's end.
NAME = re.compile(r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?\Z")
_VARIABLE = re.compile(r"^[A-Z][A-Z0-9_]{0,60}\Z")
_PROCESS = re.compile(r"^([A-Za-z][\w-]*):\s*(.+)$")
_COMPONENT_KEYS = (
    "kind", "command", "path", "replicas", "limits", "health", "endpoints", "connections", "ping", "network",
    "schedule", "concurrency", "timeout", "retries",
)  # fmt: skip


class _Loader(yaml.SafeLoader):
    """Plain data only, and no aliases: a few of them can unfold into gigabytes."""

    def compose_node(self, parent, index):  # type: ignore[no-untyped-def]
        if self.check_event(yaml.AliasEvent):
            raise SpecificationError("aliases (`*name`) aren't supported.", "Write the value out.")
        return super().compose_node(parent, index)


def parse(
    files: Mapping[str, str], *, project: str, detected: Mapping[str, str], domain: str = DOMAIN
) -> Specification:
    """The specification of a repository.

    ``files`` may hold ``cytoplane.yaml`` and ``Procfile``; ``detected`` says for each folder that
    somebody asked about (".", "api", …) how it can be built: dockerfile, python or static. A
    component whose folder isn't in it has nothing to build. Hosts under ``domain`` are applications of
    this platform. Raises ``SpecificationError``.
    """
    document = _document(files.get("cytoplane.yaml", ""))
    processes = _procfile(files.get("Procfile", ""))
    _only(document, ("components", "strict"), "")
    strict = document.get("strict", False)
    declared = document.get("components") or {}
    if not isinstance(declared, dict):
        raise SpecificationError("`components` is a mapping of names.", "components: {web: {}}")
    if not declared:
        declared = _implied(processes, detected)
    return assemble(declared, strict, project, processes, detected, domain)


def assemble(
    declared: Mapping[str, Any],
    strict: Any,
    project: str,
    processes: Mapping[str, str],
    detected: Mapping[str, str],
    domain: str = DOMAIN,
) -> Specification:
    """The specification of components as cytoplane.yaml writes them. Every rule is applied from here on."""
    if not isinstance(strict, bool):
        raise SpecificationError("`strict` is true or false.", "strict: true", "cytoplane.yaml, strict")
    if len(declared) > 50:
        raise SpecificationError(f"{len(declared)} components are too many.", "At most 50 fit in a project.")
    components = {}
    for name, raw in declared.items():
        if not isinstance(name, str) or not NAME.match(name) or "--" in name:
            raise SpecificationError(
                f"`{name}` can't be a component's name.", "Use lower-case letters, digits and single hyphens."
            )
        components[name] = _component(name, raw or {}, project, processes.get(name), detected, domain)
    specification = Specification(components=components, strict=strict)
    checks.connections(specification, project)
    checks.hosts(specification)
    return specification


def _document(text: str) -> dict[str, Any]:
    if len(text.encode()) > LARGEST_FILE:
        raise SpecificationError("the file is larger than 64 KiB.", "Shorten it.")
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506  a safe loader, narrowed
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"cytoplane.yaml, line {mark.line + 1}" if mark else "cytoplane.yaml"
        problem = getattr(error, "problem", None) or "it can't be read as YAML"
        raise SpecificationError(f"{problem}.", "Correct the YAML there.", where) from error
    except SpecificationError:
        raise
    except (ValueError, OverflowError) as error:
        # PyYAML makes dates and numbers of what looks like them, and lets their errors through.
        raise SpecificationError(f"a value can't be read: {error}.", "Put it into quotes.") from error
    except RecursionError as error:
        raise SpecificationError("the file is nested too deeply.", "Flatten it.") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SpecificationError("the file must be a mapping.", "Begin with `components:`.")
    return document


def _procfile(text: str) -> dict[str, str]:
    processes: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _PROCESS.match(line.strip())
        if not match:
            raise SpecificationError(
                "a line is `name: command`.", "web: gunicorn app:app", f"Procfile, line {number}"
            )
        processes[match.group(1).lower().replace("_", "-")] = match.group(2).strip()
    return processes


def _implied(processes: Mapping[str, str], detected: Mapping[str, str]) -> dict[str, Any]:
    """Without cytoplane.yaml: a process each, or one ``web`` component."""
    if processes:
        return {
            name: {"kind": "web" if name == "web" else "worker"} for name in processes if name != "release"
        }
    return {"web": {"kind": "web"}} if detected.get(".") else {}


def _component(
    name: str, raw: Any, project: str, process: str | None, detected: Mapping[str, str], domain: str
) -> Component:
    where = f"cytoplane.yaml, components.{name}"
    if not isinstance(raw, dict):
        raise SpecificationError("a component is a mapping.", f"{name}: {{kind: web}}", where)
    _only(raw, _COMPONENT_KEYS, f"components.{name}")
    kind = raw.get("kind", _kind(name, raw))
    if kind not in KINDS:
        raise SpecificationError(
            f"kind `{kind}` isn't known.", f"Write one of {', '.join(KINDS)}.", f"{where}.kind"
        )
    path = _path(raw.get("path", "."), f"{where}.path")
    builder = detected.get(path, "")
    if not builder:
        raise SpecificationError(
            f"nothing to build was found in `{path}`.",
            "Add a Dockerfile, requirements.txt, pyproject.toml or index.html there, or correct `path`.",
            f"{where}.path",
        )
    command = raw.get("command", process)
    if command is not None and not _is_command(command):
        raise SpecificationError(
            "a command is a line of text.", "command: gunicorn app:app", f"{where}.command"
        )
    if command is None and builder == "python":
        raise SpecificationError(
            "it isn't said how to start it.",
            f"Add a line `{name}: <command>` to Procfile, or `command:` here.",
            where,
        )
    task = tasks.task(raw, kind, where)
    endpoints = _endpoints(raw.get("endpoints"), kind, name, project, where)
    replicas, range_ = scaling.replicas(raw.get("replicas", 0 if task else 1), endpoints, f"{where}.replicas")
    return Component(
        kind=kind,
        command=command,
        path=path,
        replicas=replicas,
        scaling=range_,
        limits=network.limits(raw.get("limits") or {}, f"{where}.limits"),
        health=_health(raw.get("health"), endpoints, f"{where}.health"),
        endpoints=endpoints,
        connections=_connections(raw.get("connections") or [], project, domain, f"{where}.connections"),
        builder=builder,
        ping=network.ping(raw.get("ping", False), f"{where}.ping"),
        network=network.network(raw.get("network") or {}, f"{where}.network"),
        task=task,
    )


def _kind(name: str, raw: Mapping[str, Any]) -> str:
    """What a component is that doesn't say so."""
    if raw.get("schedule"):
        return "cron"
    return "web" if name == "web" else "service" if raw.get("endpoints") else "worker"


def _is_command(value: Any) -> bool:
    """Escapes in YAML can make zero bytes and half characters, which nobody could run or store."""
    if not isinstance(value, str) or not value.strip() or len(value) > 4000:
        return False
    return "\0" not in value and value.encode(errors="replace").decode() == value


def _default_host(project: str, name: str, own: bool, where: str) -> str:
    host = project if own else f"{name}-{project}"
    if len(host) > LONGEST_HOST:
        raise SpecificationError(
            f"the host name `{host}` would be longer than {LONGEST_HOST}.",
            "endpoints: {http: {port: 8080, visibility: public, host: shop}}",
            where,
        )
    return host


def _path(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise SpecificationError("a path is text.", "path: api", where)
    path = posixpath.normpath(value or ".")
    if path.startswith(("/", "..")) or "\0" in path:
        raise SpecificationError("a path stays inside the repository.", "path: api", where)
    return path


def _endpoints(raw: Any, kind: str, name: str, project: str, where: str) -> dict[str, Endpoint]:
    if raw is None:
        if kind == "worker" or kind in TASKS:
            return {}
        if kind == "web":
            host = _default_host(project, name, name == "web", where)
            return {"http": Endpoint(DEFAULT_PORT, "http", "public", host)}
        return {"http": Endpoint(DEFAULT_PORT)}
    where = f"{where}.endpoints"
    if not isinstance(raw, dict):
        raise SpecificationError(
            "endpoints are a mapping of names.", "endpoints: {http: {port: 8080}}", where
        )
    if len(raw) > MOST_ENDPOINTS:
        raise SpecificationError(
            f"{len(raw)} endpoints are too many.", f"At most {MOST_ENDPOINTS} fit in a component.", where
        )
    found: dict[str, Endpoint] = {}
    for key, value in raw.items():
        here = f"{where}.{key}"
        if not isinstance(key, str) or not NAME.match(key):
            raise SpecificationError(
                f"`{key}` can't be an endpoint's name.", "Use lower-case letters.", where
            )
        value = {"port": value} if isinstance(value, int) else value
        if not isinstance(value, dict):
            raise SpecificationError("an endpoint is a mapping.", f"{key}: {{port: 8080}}", here)
        _only(
            value,
            ("port", "protocol", "visibility", "host", "callers", "balance", "affinity"),
            here.removeprefix("cytoplane.yaml, "),
        )
        protocol = _choice(value.get("protocol", "http"), PROTOCOLS, f"{here}.protocol")
        visibility = _choice(value.get("visibility", "cell"), VISIBILITIES, f"{here}.visibility")
        host = value.get("host", "")
        if host and (not isinstance(host, str) or not NAME.match(host) or "--" in host):
            raise SpecificationError(f"`{host}` can't be a host name.", "host: shop", f"{here}.host")
        if visibility == "public" and protocol not in ("http", "grpc"):
            raise SpecificationError(
                f"a public endpoint speaks http or grpc, not {protocol}.",
                "visibility: tenant",
                f"{here}.visibility",
            )
        if visibility == "public" and not host:
            host = _default_host(project, name, name == "web" and key in ("http", "main"), f"{here}.host")
        if host and visibility != "public":
            raise SpecificationError(
                "only a public endpoint has a host.", "visibility: public", f"{here}.host"
            )
        callers = value.get("callers", False)
        if not isinstance(callers, bool) or (callers and protocol not in ("http", "grpc")):
            raise SpecificationError("`callers` is for http and grpc.", "callers: false", f"{here}.callers")
        port = _number(value.get("port", DEFAULT_PORT), 1, 65535, f"{here}.port", int)
        new = Endpoint(port, protocol, visibility, host, callers, *network.balancing(value, here))
        for other, known in found.items():
            if known.port == port and (known.protocol == "udp") == (protocol == "udp"):
                raise SpecificationError(
                    f"`{key}` and `{other}` share port {port}.", "Give each its own.", here
                )
        found[key] = new
    return found


def _health(raw: Any, endpoints: Mapping[str, Endpoint], where: str) -> Health:
    probed = next((e for e in endpoints.values() if e.protocol != "udp"), None)
    if raw is None:
        # Without a check of its own, a component is ready once its first port accepts.
        return Health(type="tcp", port=probed.port) if probed else Health()
    if not isinstance(raw, dict):
        raise SpecificationError("health is a mapping.", "health: {path: /healthz}", where)
    _only(
        raw, ("type", "port", "path", "interval", "timeout", "grace"), where.removeprefix("cytoplane.yaml, ")
    )
    kind = _choice(
        raw.get("type", "http" if "path" in raw else "tcp"), ("http", "tcp", "none"), f"{where}.type"
    )
    path = raw.get("path", "/")
    if not isinstance(path, str) or not path.startswith("/") or not path.isprintable() or " " in path:
        raise SpecificationError("a path begins with `/`.", "path: /healthz", f"{where}.path")
    least = 0 if kind == "none" else 1
    port = _number(raw.get("port", probed.port if probed else 0), least, 65535, f"{where}.port", int)
    return Health(
        type=kind,
        port=port,
        path=path,
        interval=_number(raw.get("interval", 2), 0.2, 300, f"{where}.interval", float),
        timeout=_number(raw.get("timeout", 2), 0.1, 60, f"{where}.timeout", float),
        grace=_number(raw.get("grace", 60), 1, 600, f"{where}.grace", float),
    )


def _connections(raw: Any, project: str, domain: str, where: str) -> tuple[Connection, ...]:
    if not isinstance(raw, list):
        raise SpecificationError("connections are a list.", "connections: [{to: api}]", where)
    if len(raw) > MOST_CONNECTIONS:
        raise SpecificationError(
            f"{len(raw)} connections are too many.", f"At most {MOST_CONNECTIONS} fit in a component.", where
        )
    found = []
    for number, item in enumerate(raw):
        here = f"{where}[{number}]"
        if isinstance(item, str):
            item = {"to": item}
        if not isinstance(item, dict) or ("to" in item) == ("external" in item):
            raise SpecificationError(
                "a connection has either `to` or `external`.", "{to: api} or {external: {cidr: …}}", here
            )
        _only(item, ("to", "external", "as"), here.removeprefix("cytoplane.yaml, "))
        if "to" in item:
            to = _target(item["to"], project, f"{here}.to")
            default = to.partition("/")[2].partition(".")[0].upper().replace("-", "_")
            found.append(Connection(name=_variable(item.get("as", default), here), to=to))
            continue
        external = _external(item["external"], f"{here}.external", domain)
        found.append(Connection(name=_variable(item.get("as", "EXTERNAL"), here), external=external))
    return tuple(found)


def _target(value: Any, project: str, where: str) -> str:
    """``component``, ``component.endpoint`` or ``project/component[.endpoint]`` in full form."""
    name = "([a-z][a-z0-9-]{0,39})"
    match = re.fullmatch(rf"(?:{name}/)?{name}(?:\.{name})?", str(value))
    if not match:
        raise SpecificationError(f"`{value}` names no endpoint.", "to: api or to: billing/api.http", where)
    return f"{match.group(1) or project}/{match.group(2)}.{match.group(3) or ''}".rstrip(".")


def _variable(value: Any, where: str) -> str:
    if not isinstance(value, str) or not _VARIABLE.match(value):
        raise SpecificationError(f"`{value}` can't be part of a variable's name.", "as: API", f"{where}.as")
    return value
