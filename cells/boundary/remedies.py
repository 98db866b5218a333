"""What to write into cytoplane.yaml, as text for people to copy."""

from __future__ import annotations

from cells.boundary.model import External, Missing


def entry(missing: Missing) -> str:
    """One item of a component's ``connections``, without its dash."""
    if missing.external is None:
        return f"{{to: {missing.to}}}"
    return f"{{external: {{{_external(missing.external)}}}}}"


def _external(external: External) -> str:
    if external.cidr:
        cidr = f'"{external.cidr}"' if ":" in external.cidr else external.cidr
        port = "" if external.protocol == "icmp" else f"port: {external.port}, "
        return f"cidr: {cidr}, {port}protocol: {external.protocol}"
    host = f'"{external.host}"' if external.host.startswith("*") else external.host
    return f"host: {host}, port: {external.port}, protocol: {external.protocol}"


def connection(missing: Missing) -> str:
    """The connection below its component."""
    return f"components:\n  {missing.component}:\n    connections:\n      - {entry(missing)}"


def endpoint(component: str, name: str, values: str) -> str:
    """An endpoint or a part of one below its component."""
    return f"components:\n  {component}:\n    endpoints:\n      {name}: {{{values}}}"
