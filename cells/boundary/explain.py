"""Why a call is allowed or denied, as a sentence, with the declaration that would open it."""

from __future__ import annotations

from cells.boundary import ends, outside, parts
from cells.boundary.edges import by_gateway_alone, decide
from cells.boundary.ends import End, UnknownEndError
from cells.boundary.model import (
    PROTOCOLS,
    RULE_SELF,
    Cell,
    Endpoint,
    Explanation,
    Missing,
    Topology,
    Workload,
)
from cells.boundary.remedies import connection, endpoint

INTERNET = ends.INTERNET
#: What a call may be asked about; http and grpc are spoken over tcp.
SPOKEN = ("tcp", "udp", "icmp")
_OUTSIDE = (ends.INTERNET, ends.NETWORK, ends.HOST)


def explain(
    topology: Topology,
    source: int | str | End,
    destination: int | str | End,
    port: int = 0,
    protocol: str = "",
    reader: Cell | None = None,
) -> Explanation:
    """The verdict on one call: the first of ``explanations``, which see."""
    return explanations(topology, source, destination, port, protocol, reader)[0]


def explanations(
    topology: Topology,
    source: int | str | End,
    destination: int | str | End,
    port: int = 0,
    protocol: str = "",
    reader: Cell | None = None,
) -> list[Explanation]:
    """The verdicts on a call, at least one.

    An end is an identity, or what a person writes, read with the eyes of the cell ``reader`` (the
    source's own where that is an identity). ``port`` 0 asks about everything that is declared there,
    each with its own verdict; ``protocol`` is tcp, udp, icmp, or "" for whatever the port speaks.
    A component is meant by its name or its service's address, unless one of its replicas' addresses
    is asked about. Raises ``KeyError`` for an identity that isn't in the topology and
    ``UnknownEndError`` for what names nothing or isn't the boundary's to judge.
    """
    start = _end(topology, source, reader)
    target = _end(topology, destination, reader or start.cell)
    if start.kind == ends.HOST:
        # Whoever is known by a public host calls as what is behind it; every other host is outside.
        tenant = reader.tenant if reader else 0
        start = ends.public(topology, start.text, tenant) or start
    if start.kind in _OUTSIDE and target.kind == ends.HOST:
        found = ends.public(topology, target.text, reader.tenant if reader else 0)
        if found is None:
            raise UnknownEndError(
                f"`{target.text}` is no public host of yours.", "`cyto open` shows which there are."
            )
        target = found
    spoken = {"http": "tcp", "grpc": "tcp"}.get(protocol, protocol)
    if start.workload is None:
        return parts.calls(topology, start, target, port, spoken)
    if target.workload is not None:
        return _between(start, target, port, spoken)
    if target.kind in _OUTSIDE or target.kind == ends.DOOR:
        return outside.explanations(topology, start, target, port, spoken)
    return parts.called(topology, start, target, port, spoken)


def _end(topology: Topology, end: int | str | End, reader: Cell | None) -> End:
    if isinstance(end, End):
        return end
    return ends.of_identity(topology, end) if isinstance(end, int) else ends.find(topology, end, reader)


def _between(start: End, target: End, port: int, protocol: str) -> list[Explanation]:
    """Between two components."""
    cell, consumer, provider_cell, provider = start.cell, start.workload, target.cell, target.workload
    assert cell and consumer and provider_cell and provider
    if cell.tenant != provider_cell.tenant:
        return [parts.stranger(f"`{consumer.name}`")]
    if cell.environment != provider_cell.environment:
        sentence = (
            f"`{consumer.name}` runs in {cell.environment}, `{provider.name}` of {provider_cell.project} in "
            f"{provider_cell.environment}: environments never talk to each other."
        )
        return [Explanation(False, "OTHER_ENVIRONMENT", provider_cell.rule, sentence, port=port, protocol=protocol)]  # fmt: skip
    same = consumer.identity == provider.identity
    if target.replica and same and (start.replica == target.replica or len(provider.replicas) == 1):
        sentence = f"It is an address of `{consumer.name}` itself, and a replica always reaches itself."
        return [Explanation(True, "SELF", RULE_SELF, sentence, port=port, protocol=protocol)]
    if protocol == "icmp":
        return [_echo(cell, consumer, provider_cell, provider)]
    asked = [e for e in provider.endpoints if _is_asked(e, target.endpoint, port, protocol)]
    if not asked:
        return [_not_declared(cell, consumer, provider_cell, provider, target, port, protocol)]
    return [_edge(cell, consumer, provider_cell, provider, e, target.way) for e in asked]


def _echo(cell: Cell, consumer: Workload, provider_cell: Cell, provider: Workload) -> Explanation:
    """May it be pinged? Only by who may call something of it; by a replica's address, since services don't answer."""
    there = f"`{provider.name}` of {provider_cell.project}"
    edges = [decide(cell, consumer, provider_cell, provider, e) for e in provider.endpoints]
    rule = provider.endpoints[0].rule if provider.endpoints else provider_cell.rule
    if not provider.ping:
        sentence = f"{there} doesn't declare that it may be pinged."
        fix = f"components:\n  {provider.name}:\n    ping: true"
        return Explanation(False, "ECHO", rule, sentence, fix, protocol="icmp")
    if not any(edge.allowed for edge in edges):
        sentence = (
            f"Only who may call {there} may ping it, and `{consumer.name}` may call none of its endpoints."
        )
        return Explanation(False, "ECHO", rule, sentence, protocol="icmp")
    sentence = f"`{consumer.name}` may ping {there} at the addresses of its replicas."
    return Explanation(True, "ECHO", rule, sentence, protocol="icmp")


def _is_asked(endpoint: Endpoint, name: str, port: int, protocol: str) -> bool:
    return (
        name in ("", endpoint.name)
        and port in (0, endpoint.port)
        and (not protocol or PROTOCOLS[protocol] == endpoint.number)
    )


def _not_declared(
    cell: Cell, consumer: Workload, provider_cell: Cell, provider: Workload, target: End, port: int, protocol: str
) -> Explanation:  # fmt: skip
    there = f"`{provider.name}` of {provider_cell.project}"
    spoken = protocol or "tcp"
    kind = f"{protocol} " if protocol else ""
    what = f"no endpoint on port {port}/{spoken}" if port else f"no {kind}endpoint"
    sentence = f"{there} declares {what}."
    # What isn't declared has no service, so that only an address of a replica leads there.
    audited = cell.audit and cell.number == provider_cell.number and target.way == ends.BY_ADDRESS
    values = f"port: {port or 8080}, protocol: {spoken}"
    if cell.number != provider_cell.number:
        values += ", visibility: tenant"
    return Explanation(
        False,
        "PORT_NOT_DECLARED",
        provider_cell.rule,
        f"{sentence} The project is in audit, so it passes and is reported." if audited else sentence,
        endpoint(provider.name, "main", values),
        audited=audited,
        port=port,
        protocol=spoken if port else protocol,
    )


def _edge(
    cell: Cell, consumer: Workload, provider_cell: Cell, provider: Workload, declared: Endpoint, way: str
) -> Explanation:
    """One component's call of another's endpoint."""
    edge = decide(cell, consumer, provider_cell, provider, declared)
    spoken = "udp" if declared.protocol == "udp" else "tcp"
    target = (
        provider.name if cell.number == provider_cell.number else f"{provider_cell.project}/{provider.name}"
    )
    missing = Missing(consumer.name, f"{target}.{declared.name}")
    what = (
        f"`{provider.name}` of {provider_cell.project}, endpoint `{declared.name}` "
        f"({declared.port}/{declared.protocol})"
    )

    def answer(sentence: str, reason: str = edge.reason, fix: str = "", **more: object) -> Explanation:
        values: dict = {"audited": edge.audited, "rule": edge.rule, **more}
        if values["audited"]:
            sentence += " The project is in audit, so it passes and is reported."
        return Explanation(
            reason=reason,
            sentence=sentence,
            fix=fix,
            port=declared.port,
            protocol=spoken,
            endpoint=declared.name,
            **({"allowed": False} | values),
        )

    if edge.via_gateway and way == ends.BY_ADDRESS:
        name = f"{provider.name}.{provider_cell.project}"
        return answer(
            f"{what} is called through its gateway only: use its name `{name}`, not an address of a replica.",
            "GATEWAY_ONLY",
            rule=declared.rule,
            audited=cell.audit and not by_gateway_alone(declared),
        )
    if edge.allowed:
        how = {
            "SELF": "a component always reaches itself",
            "SAME_CELL": "both are in the same cell and the endpoint is declared",
            "CONNECTION": "the connection is declared",
        }[edge.reason]
        gateway = ", through the cell's gateway" if edge.via_gateway else ""
        away = (
            "" if any(r.serving for r in provider.replicas) else " None of its replicas serves now, though."
        )
        return answer(
            f"`{consumer.name}` may call {what}: {how}{gateway}.{away}",
            allowed=True,
            via_gateway=edge.via_gateway,
        )
    fix = connection(missing)
    if edge.reason == "VISIBILITY":
        return answer(
            f"{what} is visible in its own cell only.",
            fix=endpoint(provider.name, declared.name, "visibility: tenant"),
        )
    sentence = {
        "STRICT": f"The project is strict and no connection from `{consumer.name}` to {what} is declared.",
        "CALLERS_ONLY": f"{what} receives callers' names, so it is called through its gateway only, "
        f"and `{consumer.name}` declares no connection to it.",
        "NOT_CONNECTED": f"`{consumer.name}` declares no connection to {what}.",
    }[edge.reason]
    return answer(sentence, fix=fix, missing=missing)
