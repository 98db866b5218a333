"""What a cluster's pods need to know of the platform around them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Site:
    """The same for all cells of a plane."""

    #: Where a node's own registry proxy listens, ``127.0.0.1:5001``; "": images are named as they are.
    registry: str = ""
    #: Addresses of the resolver on every node; none: pods ask whom their node asks.
    resolvers: tuple[str, ...] = ()
    #: The first container of every pod, which tests that it is isolated; "": there is none.
    check_image: str = ""
    check_arguments: tuple[str, ...] = ()
    #: A priority class that the cluster has.
    priority_class: str = ""
    #: Whether the nodes' runtime can give users of containers other ids (Kubernetes 1.30 and newer).
    user_namespaces: bool = False
    #: Networks of the platform's own addresses, which pods must reach where a cluster enforces policies.
    networks: tuple[str, ...] = ()
    #: Private networks that the operator opened to declarations.
    opened: tuple[str, ...] = ()
