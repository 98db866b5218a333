"""What can only be checked once every component is known."""

from __future__ import annotations

from cells.specification.model import Specification, SpecificationError


def connections(specification: Specification, project: str) -> None:
    """Names within the project must exist; an endpoint may be left out where there is only one."""
    for name, component in specification.components.items():
        seen: set[str] = set()
        for connection in component.connections:
            where = f"cytoplane.yaml, components.{name}.connections"
            if connection.name in seen:
                raise SpecificationError(
                    f"two connections are called {connection.name}.", "Give one another `as`.", where
                )
            seen.add(connection.name)
            if not connection.to or not connection.to.startswith(f"{project}/"):
                continue
            target, _, endpoint = connection.to.partition("/")[2].partition(".")
            provider = specification.components.get(target)
            if provider is None:
                raise SpecificationError(
                    f"there is no component `{target}`.",
                    f"Components are {', '.join(specification.components)}.",
                    where,
                )
            if endpoint and endpoint not in provider.endpoints or not provider.endpoints:
                raise SpecificationError(
                    f"`{target}` has no endpoint {endpoint or 'at all'}.",
                    f"Its endpoints are {', '.join(provider.endpoints) or 'none: declare one'}.",
                    where,
                )


def hosts(specification: Specification) -> None:
    """Each host name belongs to one endpoint."""
    seen: dict[str, str] = {}
    for name, component in specification.components.items():
        for key, endpoint in component.endpoints.items():
            if endpoint.host and endpoint.host in seen:
                raise SpecificationError(
                    f"`{name}.{key}` and `{seen[endpoint.host]}` claim the host `{endpoint.host}`.",
                    "Give each a `host` of its own.",
                )
            if endpoint.host:
                seen[endpoint.host] = f"{name}.{key}"
