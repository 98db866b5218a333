"""The parsed form of a repository's declarations.

Memory in MiB, CPU in cores, bandwidth in bits per second, times in seconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

KINDS = ("web", "service", "worker", "cron", "job")
#: Kinds of what ends by itself; no replica of theirs goes on running.
TASKS = ("cron", "job")
CONCURRENCIES = ("forbid", "replace", "allow")
PROTOCOLS = ("http", "grpc", "tcp", "udp")
VISIBILITIES = ("cell", "tenant", "public")
BALANCES = ("random", "consistent")


class SpecificationError(ValueError):
    """Something in the repository's declarations is wrong. ``where`` is a file and a path inside it."""

    def __init__(self, message: str, hint: str, where: str = "cytoplane.yaml") -> None:
        self.message, self.hint, self.where = message, hint, where
        super().__init__(f"{where}: {message}")


@dataclass(frozen=True)
class Endpoint:
    port: int
    protocol: str = "http"
    visibility: str = "cell"
    #: First part of the public host name.
    host: str = ""
    #: Whether the gateway adds the caller's name to each request.
    callers: bool = False
    #: How a client gets its replica: by chance, or the same client the same one.
    balance: str = "random"
    #: Seconds that a client stays with its replica after its last call; 0: it doesn't.
    affinity: int = 0


@dataclass(frozen=True)
class External:
    """``host`` is a public host of this platform if ``protocol`` is http, else a name of DNS or ``*.`` and one."""

    port: int
    protocol: str
    cidr: str = ""
    host: str = ""

    @property
    def public(self) -> bool:
        """Whether the platform's own door leads there."""
        return bool(self.host) and self.protocol == "http"

    @property
    def name(self) -> str:
        """The name of DNS, or the pattern of names; "" if it is something else."""
        return "" if self.public else self.host


@dataclass(frozen=True)
class Connection:
    """``to`` is ``project/component.endpoint``; None where the connection leads outside."""

    name: str
    to: str | None = None
    external: External | None = None

    @property
    def key(self) -> str:
        """What the connection is known by between releases."""
        if self.to:
            return self.to
        assert self.external is not None
        e = self.external
        return f"external:{e.cidr or e.host}:{e.port}/{e.protocol}"


@dataclass(frozen=True)
class Health:
    """``type`` is http, tcp or none; ``grace`` is how long a start may take."""

    type: str = "none"
    port: int = 0
    path: str = "/"
    interval: float = 2
    timeout: float = 2
    grace: float = 60


@dataclass(frozen=True)
class Limits:
    """Memory and CPU are each replica's; the network's are for all replicas together, 0: the plan's."""

    memory: int = 256
    cpu: float = 0.5
    bandwidth_in: int = 0
    bandwidth_out: int = 0
    connections_per_second: int = 0
    connections: int = 0


@dataclass(frozen=True)
class Scaling:
    """Replicas follow load. ``cpu``: percent of the limit, ``requests``: a second, each replica's; 0: not by it."""

    least: int
    most: int
    cpu: int = 0
    requests: float = 0.0


@dataclass(frozen=True)
class Network:
    """``services`` False: service addresses mean nothing to the component's sockets."""

    services: bool = True


@dataclass(frozen=True)
class Task:
    """``schedule`` is a cron's, five fields in UTC. ``concurrency`` says what happens if it is time while it
    still runs: nothing, the old run ends, or both run. ``timeout`` and ``retries`` are each run's."""

    schedule: str = ""
    concurrency: str = "forbid"
    timeout: int = 3600
    retries: int = 0


@dataclass(frozen=True)
class Component:
    """``command`` is a shell line for the container's own shell; None runs the image's own."""

    kind: str
    command: str | None = None
    path: str = "."
    replicas: int = 1
    limits: Limits = field(default_factory=Limits)
    health: Health = field(default_factory=Health)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    connections: tuple[Connection, ...] = ()
    #: How its image is built: dockerfile, python or static.
    builder: str = ""
    #: Who may call one of its endpoints may ping it too.
    ping: bool = False
    network: Network = field(default_factory=Network)
    #: None: as many as ``replicas``, or as somebody scaled it to. Else ``replicas`` is what it begins with.
    scaling: Scaling | None = None
    #: How it runs if it is of kind cron or job.
    task: Task | None = None

    def number(self, scaled: int | None) -> int:
        """How many replicas there should be of it; ``scaled``: what it was scaled to, if it was."""
        if self.task is not None:
            return 0
        wanted = self.replicas if scaled is None else int(scaled)
        return wanted if self.scaling is None else min(max(wanted, self.scaling.least), self.scaling.most)


@dataclass(frozen=True)
class Specification:
    components: dict[str, Component]
    strict: bool = False

    def as_dict(self) -> dict:
        """A form for JSON; ``from_dict`` reads it."""
        return asdict(self) | {
            "components": {
                name: asdict(component)
                | {
                    "connections": [asdict(c) for c in component.connections],
                    # A database's JSON keeps no order, and the first endpoint is the one that is meant
                    # where none is named.
                    "order": list(component.endpoints),
                }
                for name, component in self.components.items()
            }
        }

    @classmethod
    def from_dict(cls, document: dict) -> Specification:
        """Raises ``KeyError`` or ``TypeError`` on a document that ``as_dict`` didn't make."""
        components = {}
        for name, raw in document["components"].items():
            components[name] = Component(
                kind=raw["kind"],
                command=raw["command"],
                path=raw["path"],
                replicas=raw["replicas"],
                limits=Limits(**raw["limits"]),
                health=Health(**raw["health"]),
                endpoints={key: Endpoint(**raw["endpoints"][key]) for key in _order(raw)},
                connections=tuple(
                    Connection(
                        name=c["name"],
                        to=c["to"],
                        external=External(**c["external"]) if c["external"] else None,
                    )
                    for c in raw["connections"]
                ),
                builder=raw.get("builder", ""),
                ping=raw.get("ping", False),
                network=Network(**raw.get("network", {})),
                task=Task(**raw["task"]) if raw.get("task") else None,
                scaling=Scaling(**raw["scaling"]) if raw.get("scaling") else None,
            )
        return cls(components=components, strict=document["strict"])


def _order(raw: dict) -> list[str]:
    """Names of a component's endpoints as they were declared."""
    order = list(raw.get("order", raw["endpoints"]))
    if sorted(order) != sorted(raw["endpoints"]):
        raise KeyError("order")
    return order
