"""Input and output of the boundary compiler.

Numbers (identities, rules, listener ports, addresses) are allocated elsewhere and are only used
here. Addresses are text; protocols are IP protocol numbers; ports are integers, 0 means any.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
EGRESS, INGRESS = 0, 1
#: AUDIT passes and is reported. Deny beats allow beats audit.
ALLOW, DENY, AUDIT = 1, 2, 3

IDENTITY_NODE, IDENTITY_WORLD, IDENTITY_NORTH, IDENTITY_RESOLVER = 1, 2, 3, 4
IDENTITY_INDEX = 6
#: As dataplane.addresses has them, which this can't import.
IDENTITY_BUILDS = (16, 17)

#: Rules of the platform itself, below every allocated number.
RULE_RESOLVER, RULE_NORTH, RULE_BUILD, RULE_SELF, RULE_FLOOR = 1, 2, 3, 4, 5

PROTOCOLS = {"http": TCP, "grpc": TCP, "tcp": TCP, "udp": UDP, "icmp": ICMP}
GATEWAY_PROTOCOLS = frozenset({"http", "grpc"})


@dataclass(frozen=True)
class Endpoint:
    """A declared port of a component.

    ``visibility`` is ``cell``, ``tenant`` or ``public``; ``callers`` asks for callers' names, which
    makes the gateway the only way in for HTTP. ``balance`` is ``random`` or ``consistent``; for
    ``affinity`` seconds after its last call a client stays with its replica.
    """

    rule: int
    name: str
    port: int
    protocol: str
    visibility: str = "cell"
    hosts: tuple[str, ...] = ()
    callers: bool = False
    balance: str = "random"
    affinity: int = 0

    @property
    def number(self) -> int:
        """IP protocol number."""
        return PROTOCOLS[self.protocol]


@dataclass(frozen=True)
class External:
    """A declared destination outside: a network (``cidr``) or a ``host``.

    A host is a public one of this platform if ``protocol`` is http, else a name of DNS or ``*.`` and one.
    """

    port: int
    protocol: str
    cidr: str = ""
    host: str = ""

    @property
    def number(self) -> int:
        """IP protocol number; ICMP's of the network's family."""
        return ICMPV6 if self.protocol == "icmp" and ":" in self.cidr else PROTOCOLS[self.protocol]

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
    """A declared edge to an endpoint (``provider`` identity and endpoint name) or to ``external``."""

    rule: int
    name: str
    provider: int = 0
    endpoint: str = ""
    external: External | None = None
    listener_port: int = 0


@dataclass(frozen=True)
class Replica:
    """A running copy. ``serving`` ones get new connections; every one has its identity's rights."""

    id: str
    v4: str
    v6: str
    serving: bool
    #: Its share of what is new, relative to the others'.
    weight: int = 1


#: (bytes per second out, and in, new connections per second in each direction, open connections); 0: none
Limits = tuple[int, int, int, int]
UNLIMITED: Limits = (0, 0, 0, 0)


@dataclass(frozen=True)
class Workload:
    """A component in a cell, known to the kernel by ``identity``. ``ping``: its callers may ping it."""

    identity: int
    name: str
    service4: str
    service6: str
    endpoints: tuple[Endpoint, ...] = ()
    connections: tuple[Connection, ...] = ()
    replicas: tuple[Replica, ...] = ()
    limits: Limits = UNLIMITED
    ping: bool = False


@dataclass(frozen=True)
class Cell:
    """A project in an environment."""

    number: int
    tenant: int
    tenant_name: str
    project: str
    environment: str
    rule: int
    gateway_identity: int
    gateway4: str
    gateway6: str
    strict: bool = False
    #: What the project's own declarations could open passes and is reported instead of being denied.
    audit: bool = False
    workloads: tuple[Workload, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.tenant_name}/{self.project}/{self.environment}"


@dataclass(frozen=True)
class Topology:
    """All cells of a plane and the platform's own addresses there."""

    cells: tuple[Cell, ...]
    north4: str = ""
    north6: str = ""
    north_port: int = 8080
    #: Ports under which people reach public hosts from outside (for the door to other tenants).
    public_ports: tuple[int, ...] = (80,)
    door4: str = ""
    door6: str = ""
    resolver4: str = ""
    resolver6: str = ""
    index4: str = ""
    index6: str = ""
    index_port: int = 3141
    #: Domain of public hosts; a name below it is the platform's own, never one of DNS.
    apps_domain: str = ""
    #: (network, reason) that no declaration opens.
    floor: tuple[tuple[str, str], ...] = ()

    def by_identity(self) -> dict[int, tuple[Cell, Workload]]:
        """Every workload with its cell."""
        return {w.identity: (cell, w) for cell in self.cells for w in cell.workloads}


#: (remote identity, port, protocol, direction, verdict, rule)
PolicyEntry = tuple[int, int, int, int, int, int]
#: (network, port, protocol, verdict, rule)
ExternalEntry = tuple[str, int, int, int, int]
#: (name of DNS or pattern of names, port, protocol, rule)
NameEntry = tuple[str, int, int, int]
#: (replica id or "gateway", address, port)
Backend = tuple[str, str, int]


@dataclass
class IdentityPolicy:
    """Everything that one identity may do."""

    cell: int
    policy: list[PolicyEntry] = field(default_factory=list)
    external: list[ExternalEntry] = field(default_factory=list)


@dataclass(frozen=True)
class Service:
    """A service address and port as one consumer (0: anyone) sees it."""

    consumer: int
    address: str
    port: int
    protocol: int
    backends: tuple[Backend, ...]
    choice: str = "random"
    affinity: int = 0
    #: Of each backend; none: all the same.
    weights: tuple[int, ...] = ()


@dataclass(frozen=True)
class Route:
    """A public host name and the cluster behind it."""

    host: str
    cluster: str


@dataclass(frozen=True)
class Cluster:
    """Backends of an endpoint as the gateway dials them, from ``source4``/``source6``.

    ``sticky``: one client's requests go to one backend, as long as there are the same ones.
    """

    name: str
    protocol: str
    backends: tuple[Backend, ...]
    source4: str
    source6: str
    sticky: bool = False
    weights: tuple[int, ...] = ()


@dataclass(frozen=True)
class Listener:
    """The gateway's door for one connection; only its consumer's identity can reach it.

    ``caller`` is what the provider is told; "" where it mustn't be told anything.
    """

    name: str
    address4: str
    address6: str
    port: int
    cluster: str
    caller: str


@dataclass(frozen=True)
class Door:
    """The north gateway's door for one workload: to the public hosts that it declares, as a stranger."""

    name: str
    address4: str
    address6: str
    port: int
    hosts: tuple[str, ...]


@dataclass
class Boundary:
    """The compiler's result for a plane."""

    identities: dict[int, IdentityPolicy] = field(default_factory=dict)
    #: platform address → (identity, replica id or the platform part's name)
    addresses: dict[str, tuple[int, str]] = field(default_factory=dict)
    services: list[Service] = field(default_factory=list)
    #: identity → what it may use, of those that have any limit
    limits: dict[int, Limits] = field(default_factory=dict)
    #: identity → name → addresses
    names: dict[int, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    #: identity → names of the outside world that it declares
    external_names: dict[int, list[NameEntry]] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)
    clusters: list[Cluster] = field(default_factory=list)
    listeners: list[Listener] = field(default_factory=list)
    doors: list[Door] = field(default_factory=list)
    floor: tuple[tuple[str, str], ...] = ()

    def add(self, part: Boundary) -> None:
        """Take over a part of the plane. An identity that several parts have gets the rights of all."""
        for identity, policy in part.identities.items():
            known = self.identities.get(identity)
            if known is None:
                self.identities[identity] = replace(
                    policy, policy=[*policy.policy], external=[*policy.external]
                )
            else:
                known.policy += policy.policy
                known.external += policy.external
        for name in _PARTS:
            own, more = getattr(self, name), getattr(part, name)
            if isinstance(own, dict):
                own.update(more)
            elif more:  # in place but for tuples
                own += more
                setattr(self, name, own)


#: What parts of a plane hold nothing in common of.
_PARTS = tuple(part.name for part in fields(Boundary) if part.name != "identities")


@dataclass(frozen=True)
class Missing:
    """The connection that would open a call: of ``component``, to an endpoint or to something outside."""

    component: str
    to: str = ""
    external: External | None = None


@dataclass(frozen=True)
class Explanation:
    """A verdict for people. ``fix`` is what to declare (YAML) where something can be declared.

    ``allowed`` is what the declarations say. ``audited``: they don't allow it, but it passes and is
    reported. ``port`` and ``protocol`` are those that were judged, 0 and "" where none was.
    """

    allowed: bool
    reason: str
    rule: int
    sentence: str
    fix: str = ""
    via_gateway: bool = False
    audited: bool = False
    port: int = 0
    protocol: str = ""
    endpoint: str = ""
    #: What ``fix`` says, if it is a connection.
    missing: Missing | None = None

    @property
    def passes(self) -> bool:
        """What the kernel does."""
        return self.allowed or self.audited

    @property
    def verdict(self) -> str:
        return "allowed" if self.allowed else "audited" if self.audited else "denied"
