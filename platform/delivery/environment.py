"""What a process gets as its environment."""

from __future__ import annotations

import json

from cells.specification import Connection, Specification
from delivery.models import Release
from tenants.keys import Box

#: What the resolver knows names under.
DOMAIN = "cy.internal"


def purpose(release: Release) -> str:
    """Associated data of a release's sealed configuration."""
    return f"release:{release.cell_id}:{release.number}"


def of_release(release: Release) -> dict[str, dict[str, str]]:
    """Component → variables: configuration, addresses of its connections, port."""
    specification = Specification.from_dict(release.specification)
    box = Box(release.cell.project.tenant_id)
    configuration = json.loads(box.unseal(release.configuration, purpose(release)))
    found = {}
    for name, component in specification.components.items():
        values = {"CYTOPLANE_COMPONENT": name, "CYTOPLANE_RELEASE": f"v{release.number}"}
        first = next((e for e in component.endpoints.values() if e.protocol != "udp"), None)
        if first is not None:
            values["PORT"] = str(first.port)
        for connection in component.connections:
            values |= _injected(release, specification, connection)
        found[name] = values | configuration.get("", {}) | configuration.get(name, {})
    return found


def _injected(release: Release, specification: Specification, connection: Connection) -> dict[str, str]:
    """``NAME_URL``, ``NAME_HOST`` and ``NAME_PORT`` of a connection."""
    name = connection.name
    if connection.external is not None:
        external = connection.external
        if external.name and not external.name.startswith("*."):
            return {f"{name}_HOST": external.name, f"{name}_PORT": str(external.port)}
        if not external.public:
            return {}
        return {
            f"{name}_HOST": external.host,
            f"{name}_PORT": str(external.port),
            f"{name}_URL": f"http://{external.host}:{external.port}",
        }
    project, _, rest = (connection.to or "").partition("/")
    target, _, wanted = rest.partition(".")
    endpoints = _provider(release, specification, project, target)
    endpoint = endpoints.get(wanted) or next(iter(endpoints.values()), None)
    if endpoint is None:
        return {}
    host = f"{target}.{project}.{DOMAIN}"
    scheme = "http" if endpoint["protocol"] in ("http", "grpc") else endpoint["protocol"]
    return {
        f"{name}_HOST": host,
        f"{name}_PORT": str(endpoint["port"]),
        f"{name}_URL": f"{scheme}://{host}:{endpoint['port']}",
    }


def _provider(
    release: Release, specification: Specification, project: str, component: str
) -> dict[str, dict]:
    """The provider's endpoints as its serving release declares them; this release's own for its cell."""
    if project == release.cell.project.slug:
        document = specification.as_dict()
    else:
        serving = (
            Release.objects.filter(
                cell__project__tenant=release.cell.project.tenant,
                cell__project__slug=project,
                cell__environment=release.cell.environment,
                pk__in=release.cell.__class__.objects.values("serving_release"),
            )
            .only("specification")
            .first()
        )
        document = serving.specification if serving else {"components": {}}
    return document["components"].get(component, {}).get("endpoints", {})
