"""``replicas``: a number, or a range between which the platform decides by load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cells.specification.model import Endpoint, Scaling, SpecificationError
from cells.specification.values import number, only

MOST_REPLICAS = 50
#: Percent of the limit. More than the most could never be exceeded by more than the tolerance: the kernel
#: gives nobody more than the limit.
LEAST_CPU, MOST_CPU = 5, 90
LEAST_REQUESTS, MOST_REQUESTS = 0.1, 100_000
_KEYS = ("min", "max", "cpu", "requests")


def replicas(raw: Any, endpoints: Mapping[str, Endpoint], where: str) -> tuple[int, Scaling | None]:
    """The number to begin with, and the range if there is one. Raises ``SpecificationError``."""
    if not isinstance(raw, dict):
        return number(raw, 0, MOST_REPLICAS, where, int), None
    only(raw, _KEYS, where.removeprefix("cytoplane.yaml, "))
    least = number(raw.get("min", 1), 1, MOST_REPLICAS, f"{where}.min", int)
    most = number(_said(raw, "max", where), least, MOST_REPLICAS, f"{where}.max", int)
    cpu = raw.get("cpu")
    requests = raw.get("requests")
    if cpu is None and requests is None:
        raise SpecificationError(
            "it isn't said by what replicas scale.",
            "replicas: {min: 1, max: 5, cpu: 70} or {min: 1, max: 5, requests: 50}",
            where,
        )
    if requests is not None and not any(map(_counted, endpoints.values())):
        raise SpecificationError(
            "requests are counted by the gateway, and none of its endpoints is behind one.",
            "Scale by `cpu`, or declare an http or grpc endpoint that is public, a tenant's or has callers.",
            f"{where}.requests",
        )
    return least, Scaling(
        least=least,
        most=most,
        cpu=0 if cpu is None else number(cpu, LEAST_CPU, MOST_CPU, f"{where}.cpu", int),
        requests=0.0
        if requests is None
        else number(requests, LEAST_REQUESTS, MOST_REQUESTS, f"{where}.requests", float),
    )


def _said(raw: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in raw:
        raise SpecificationError(f"`{key}` is missing.", "replicas: {min: 1, max: 5, cpu: 70}", where)
    return raw[key]


def _counted(endpoint: Endpoint) -> bool:
    """Whether calls of it pass a gateway; others go from replica to replica."""
    return endpoint.protocol in ("http", "grpc") and (endpoint.visibility != "cell" or endpoint.callers)


def written(least: int, scaling: Scaling | None) -> Any:
    """As a cytoplane.yaml says it."""
    if scaling is None:
        return least
    found: dict[str, Any] = {"min": scaling.least, "max": scaling.most}
    return found | {key: value for key in ("cpu", "requests") if (value := getattr(scaling, key))}
