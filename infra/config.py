"""One place for every path, port and address range of an installation.

An installation is one state directory (``CYTOPLANE_HOME``). Several may live on one machine if
their ``CYTOPLANE_NET`` and ports differ; everything that the installation puts into the kernel
(interfaces, namespaces, pinned maps, nftables) carries its ``net`` number, so that it can be found
and removed by it alone. No Django here: agent, builder, gateway and web all read this.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import tomllib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

V4 = ipaddress.IPv4Network
V6 = ipaddress.IPv6Network
#: A host name: nothing else of an address.
_HOST = re.compile(r"(?=.{1,253}$)(?!-)[A-Za-z0-9-]{1,63}(?:\.(?!-)[A-Za-z0-9-]{1,63})*")


def _apart(text: str) -> list[str]:
    """What commas separate, without what is empty."""
    return [part for part in (part.strip() for part in text.split(",")) if part]


def https_host(url: str) -> str:
    """Host and port of ``https://host[:port]``. Raises ``ValueError`` for any other address."""
    parts = urlsplit(url)
    host, rest = parts.hostname or "", (parts.path.strip("/"), parts.query, parts.fragment)
    if parts.scheme != "https" or any(rest) or "@" in parts.netloc:
        raise ValueError(f"{url[:200]!r} isn't https://host:port")
    if not _HOST.fullmatch(host):
        ipaddress.ip_address(host)
    return f"{f'[{host}]' if ':' in host else host}:{parts.port or 443}"


def _default(name: str, file_values: dict, fallback):
    """A setting's value: environment variable ``CYTOPLANE_<NAME>``, config file, fallback."""
    env = os.environ.get(f"CYTOPLANE_{name.upper()}")
    if env is not None:
        return type(fallback)(env)
    return type(fallback)(file_values.get(name, fallback))


@dataclass(frozen=True)
class Config:
    """An installation's settings. Ports are TCP ports on the node; ranges are CIDR networks."""

    home: Path
    #: 0..15; selects address ranges and the names of kernel objects.
    net: int = 0
    #: The portal and REST API and git, on localhost.
    portal_port: int = 8000
    #: The north gateway's public HTTP port.
    apps_port: int = 8080
    #: The agents' own mutual-TLS listener.
    agents_port: int = 8443
    apps_domain: str = "localhost"
    portal_host: str = "localhost"
    cache: Path = Path("/var/cache/cytoplane")
    #: 1 where people reach the portal by TLS, which something in front of it speaks: cookies are
    #: for TLS alone then.
    portal_tls: int = 0
    #: Where people find the portal, `https://portal.example.com`; "": by its host and port. TLS is spoken by
    #: something in front of it.
    portal_origin: str = ""
    #: Addresses that the portal listens on, separated by commas; "": the loopback ones.
    portal_bind: str = ""
    #: Folder of repositories and source archives, which every web and worker process shares; "": the state
    #: directory.
    shared_dir: str = ""
    #: Package index of builds; "" takes pip's own setting, else the public one.
    index_url: str = ""
    #: Private networks that tenants may declare egress to, separated by commas. All others are floor.
    open_networks: str = ""
    #: Servers that know names of the outside world, separated by commas; "": the machine's own.
    dns_servers: str = ""
    #: The interface that faces the network, which the deny list and the pace of new connections hold
    #: for; "": the platform attaches nothing to any interface of the machine.
    edge_interface: str = ""
    #: New connections per second that one address may open to the public ports; 0: as many as it likes.
    edge_connections: int = 100
    #: What loads the kernel programs: bcc (compiles, needs headers), prebuilt (needs neither) or auto,
    #: which is bcc where it can compile.
    loader: str = "auto"
    #: What this installation is: `platform`, all of it, or `node`, agent, gateway and resolver of a plane
    #: whose control plane is elsewhere.
    role: str = "platform"
    #: Who starts processes here: `machine` (podman) or `kubernetes`.
    engine: str = "machine"
    #: The agents' listener of the control plane, `https://host:port`; "": on this machine.
    control_url: str = ""
    #: What this node is called in its plane; "": the machine's host name.
    node_name: str = ""
    #: Address that the agents' listener listens on; loopback as long as no plane is elsewhere.
    agents_bind: str = "127.0.0.1"
    #: Names and addresses, separated by commas, by which nodes elsewhere reach the agents' listener. They
    #: are in its certificate; commands for new planes carry the first.
    agents_names: str = ""
    #: Kubernetes: loopback port of each node where its containers' images come from.
    registry_port: int = 5001
    #: Kubernetes: image of the check that cells' pods begin with, as pods name it; "": they have none.
    check_image: str = ""
    #: Kubernetes: networks of the cluster's pods and services, separated by commas: they are floor.
    cluster_networks: str = ""
    #: Kubernetes: interfaces to the other nodes, separated by commas; "": those with the node's addresses.
    underlay: str = ""
    #: Package index that build steps may use, through the build proxy only.
    extra: dict = field(default_factory=dict, hash=False)

    @property
    def opened(self) -> list[V4 | V6]:
        """``open_networks``, parsed. Raises ``ValueError``."""
        return [ipaddress.ip_network(text) for text in _apart(self.open_networks)]

    @property
    def upstreams(self) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
        """``dns_servers``, parsed. Raises ``ValueError``; a loopback address means nothing to the resolver."""
        found = [ipaddress.ip_address(text) for text in _apart(self.dns_servers)]
        for address in found:
            if address.is_loopback:
                raise ValueError(f"{address} is a loopback address, which the resolver can't reach")
        return found

    @property
    def control_plane(self) -> str:
        """Address of the agents' listener, without a path. Raises ``ValueError`` unless it is HTTPS."""
        return f"https://{self.control_host}"

    @property
    def control_host(self) -> str:
        """Host and port of the agents' listener, as in addresses of images. Raises ``ValueError``."""
        return https_host(self.control_url) if self.control_url else f"localhost:{self.agents_port}"

    @property
    def node(self) -> str:
        """This node's name in its plane."""
        return self.node_name or socket.gethostname()[:80] or "node"

    @property
    def outside_names(self) -> list[str]:
        """``agents_names``, apart. Raises ``ValueError``."""
        names = _apart(self.agents_names)
        for name in names:
            if not _HOST.fullmatch(name):
                ipaddress.ip_address(name)
        return names

    @property
    def agents_url(self) -> str:
        """What nodes elsewhere dial. Raises ``ValueError``."""
        name = next(iter(self.outside_names), "localhost")
        return f"https://{f'[{name}]' if ':' in name else name}:{self.agents_port}"

    @property
    def cluster_ranges(self) -> list[V4 | V6]:
        """``cluster_networks``, parsed. Raises ``ValueError``."""
        return [ipaddress.ip_network(text) for text in _apart(self.cluster_networks)]

    @property
    def underlays(self) -> list[str]:
        """``underlay``, apart: names of interfaces; none if they have to be found."""
        return _apart(self.underlay)

    @property
    def name(self) -> str:
        """Prefix of everything this installation puts in the kernel, e.g. ``cy0``."""
        return f"cy{self.net}"

    # Paths. Each part owns its folder; modes are set by infra.install.
    @property
    def run(self) -> Path:
        """Sockets and pid files."""
        return self.home / "run"

    @property
    def secrets(self) -> Path:
        """Root- or service-owned key files (master key, CA key)."""
        return self.home / "secrets"

    @property
    def logs(self) -> Path:
        """A log file for each supervised process."""
        return self.home / "logs"

    @property
    def agent_dir(self) -> Path:
        """Agent: certificate, last state, workload logs, secrets of what runs. Root only."""
        return self.home / "agent"

    @property
    def controller_dir(self) -> Path:
        """Plane controller: certificate, last state."""
        return self.home / "controller"

    @property
    def builder_dir(self) -> Path:
        """Builder: certificate, storage per tenant, workspaces. Root only."""
        return self.home / "builder"

    @property
    def gateway_dir(self) -> Path:
        """Envoy's file configuration (written by the agent) and admin socket."""
        return self.home / "gateway"

    @property
    def resolver_dir(self) -> Path:
        """The resolver's table (written by the agent)."""
        return self.home / "resolver"

    @property
    def git_dir(self) -> Path:
        """Bare repositories: ``<tenant id>/<project id>.git``."""
        return Path(self.shared_dir or self.home) / "git"

    @property
    def archives_dir(self) -> Path:
        """Sources of pushes whose builds aren't done."""
        return Path(self.shared_dir or self.home) / "archives"

    @property
    def server_tls(self) -> Path:
        """The agents' listener's certificate and key: the control plane writes, its gateway reads."""
        return self.home / "server-tls"

    @property
    def bpffs(self) -> Path:
        """Where programs and maps are pinned."""
        return Path("/sys/fs/bpf") / f"cytoplane-{self.net}"

    @property
    def netns_dir(self) -> Path:
        """Bind-mounted network namespaces that the agent made."""
        return Path("/run/netns")

    @property
    def web_socket(self) -> Path:
        """Unix socket of the agents' ASGI application (only the control Envoy opens it)."""
        return self.run / "web" / "agents.sock"

    @property
    def postgres_socket_dir(self) -> Path:
        return self.run / "postgres"

    @property
    def redis_socket(self) -> Path:
        return self.run / "redis" / "redis.sock"

    @property
    def registry_socket(self) -> Path:
        return self.run / "registry" / "registry.sock"

    # Address ranges.
    @cached_property
    def workloads4(self) -> V4:
        """Addresses of replicas, gateways, resolver."""
        return V4(f"10.{64 + 2 * self.net}.0.0/16")

    @cached_property
    def services4(self) -> V4:
        """Service addresses: never on a wire, only translated at the socket."""
        return V4(f"10.{65 + 2 * self.net}.0.0/16")

    @cached_property
    def workloads6(self) -> V6:
        return V6(f"fd63:7970:{self.net:x}:1::/64")

    @cached_property
    def services6(self) -> V6:
        return V6(f"fd63:7970:{self.net:x}:2::/64")

    @property
    def portal_url(self) -> str:
        """Where people find the portal, without a slash at the end."""
        return self.portal_origin or f"http://{self.portal_host}:{self.portal_port}"

    @property
    def portal_addresses(self) -> list[str]:
        """Addresses that the portal listens on. Raises ``ValueError``."""
        return [str(ipaddress.ip_address(text)) for text in _apart(self.portal_bind or "127.0.0.1,::1")]


def load(home: str | os.PathLike | None = None) -> Config:
    """Read ``$CYTOPLANE_HOME/config.toml`` (if there is one), overridden by the environment."""
    path = Path(home or os.environ.get("CYTOPLANE_HOME", "/var/lib/cytoplane"))
    values: dict = {}
    file = path / "config.toml"
    if file.exists():
        values = tomllib.loads(file.read_text())
    net = _default("net", values, 0)
    if not 0 <= net <= 15:
        raise ValueError(f"CYTOPLANE_NET must be 0 to 15, not {net}")
    return Config(
        home=path,
        net=net,
        portal_port=_default("portal_port", values, 8000),
        apps_port=_default("apps_port", values, 8080),
        agents_port=_default("agents_port", values, 8443),
        apps_domain=_default("apps_domain", values, "localhost"),
        portal_host=_default("portal_host", values, "localhost"),
        cache=Path(_default("cache", values, "/var/cache/cytoplane")),
        portal_tls=_default("portal_tls", values, 0),
        portal_origin=_default("portal_origin", values, ""),
        portal_bind=_default("portal_bind", values, ""),
        shared_dir=_default("shared_dir", values, ""),
        index_url=_default("index_url", values, ""),
        open_networks=_default("open_networks", values, ""),
        loader=_default("loader", values, "auto"),
        dns_servers=_default("dns_servers", values, ""),
        edge_interface=_default("edge_interface", values, ""),
        edge_connections=_default("edge_connections", values, 100),
        role=_default("role", values, "platform"),
        engine=_default("engine", values, "machine"),
        control_url=_default("control_url", values, ""),
        node_name=_default("node_name", values, ""),
        agents_bind=_default("agents_bind", values, "127.0.0.1"),
        agents_names=_default("agents_names", values, ""),
        registry_port=_default("registry_port", values, 5001),
        check_image=_default("check_image", values, ""),
        cluster_networks=_default("cluster_networks", values, ""),
        underlay=_default("underlay", values, ""),
        extra=values.get("extra", {}),
    )
