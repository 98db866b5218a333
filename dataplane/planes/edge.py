"""Who may not come to the public ports: the platform admins' list, for the edge of every node."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from cells.boundary.incremental import PLATFORM
from controlplane.errors import CytoplaneError, not_found
from dataplane.planes import actions
from dataplane.planes.models import DeniedNetwork, Plane
from tenants import audit
from tenants.policy import Actor, authorise_platform

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Entries at once; a node's table holds some more.
MOST = 10_000
LONGEST_SECONDS = 366 * 24 * 3600
#: Networks wider than that hold so many people that somebody should mean it.
WIDEST = {4: 8, 6: 19}
#: Nothing comes from there by the network, or the node couldn't even find its neighbours.
NEVER: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "::/127",
        "fe80::/10",
        "ff00::/8",
    )
)


def networks() -> QuerySet[DeniedNetwork]:
    """What is in force, the newest first."""
    rows = DeniedNetwork.objects.filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()))
    return rows.order_by("-pk")


def listing(actor: Actor) -> list[DeniedNetwork]:
    """The list, for platform admins."""
    authorise_platform(actor)
    return list(networks())


@transaction.atomic
def add(
    *,
    acting_user: Actor,
    network: str,
    reason: str,
    seconds: int | None = None,
    force: bool = False,
    client: str = "",
) -> DeniedNetwork:
    """Deny a network, or deny it for another reason or time.

    ``seconds`` None: until it is removed. ``client`` is the address that asks; what would shut it out,
    the operator's own networks or very many people is refused unless ``force``.
    """
    authorise_platform(acting_user)
    parsed = parse(network)
    reason = reason.strip()
    if not reason or len(reason) > 200 or not reason.isprintable():
        raise CytoplaneError(
            "invalid", field="reason", message="A reason has 1 to 200 characters in one line."
        )
    if seconds is not None and not 60 <= seconds <= LONGEST_SECONDS:
        raise CytoplaneError("invalid", field="seconds", message="It lasts from a minute to a year.")
    if not force and (why := _doubt(parsed, client)):
        raise CytoplaneError("deny-doubtful", network=parsed, why=why)
    DeniedNetwork.objects.filter(expires_at__lte=timezone.now()).delete()
    if DeniedNetwork.objects.exclude(network=str(parsed)).count() >= MOST:
        raise CytoplaneError("conflict", message=f"The list has {MOST} entries, which is all that fit.")
    expires = timezone.now() + timedelta(seconds=seconds) if seconds else None
    row, _ = DeniedNetwork.objects.update_or_create(
        network=str(parsed),
        defaults={"reason": reason, "created_by": acting_user.name, "expires_at": expires},
    )
    changes = {"reason": reason, "expires_at": expires.isoformat() if expires else None, "force": force}
    audit.record(acting_user, "edge.deny", row, changes=changes)
    _tell_nodes()
    return row


@transaction.atomic
def remove(*, acting_user: Actor, network: str) -> None:
    """Let a network come again. It is named as it stands in the list, or in another way of writing it."""
    authorise_platform(acting_user)
    row = DeniedNetwork.objects.filter(network=str(parse(network, any_network=True))).first()
    if row is None:
        raise not_found("entry")
    audit.record(acting_user, "edge.allow", row, changes={"reason": row.reason})
    row.delete()
    _tell_nodes()


def parse(text: str, any_network: bool = False) -> Network:
    """A network or an address as people write it. Raises `invalid`."""
    try:
        found = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        message = f"`{text[:60]}` isn't a network, like 203.0.113.0/24 or 2001:db8::/32."
        raise CytoplaneError("invalid", field="network", message=message)
    if (
        isinstance(found, ipaddress.IPv6Network)
        and found.network_address.ipv4_mapped
        and found.prefixlen >= 96
    ):
        found = ipaddress.ip_network((found.network_address.ipv4_mapped, found.prefixlen - 96))
    own = (
        settings.CONFIG.workloads4, settings.CONFIG.services4, settings.CONFIG.workloads6, settings.CONFIG.services6,
    )  # fmt: skip
    if not any_network and any(_inside(found, other) for other in (*NEVER, *own)):
        message = f"{found} is never outside: nothing that comes by a network has such an address."
        raise CytoplaneError("invalid", field="network", message=message)
    return found


def _inside(network: Network, other: Network) -> bool:
    return network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]


def _doubt(network: Network, client: str) -> str:
    """Why somebody may not mean it, as the end of a sentence; "" if nothing speaks against it."""
    if network.prefixlen < WIDEST[network.version]:
        return f"is wider than /{WIDEST[network.version]}"
    try:
        # A network without a host part is compared as what it is: one address.
        if client and ipaddress.ip_address(client) in network:
            return f"holds your own address {client}"
    except ValueError:
        pass
    for own in settings.CONFIG.opened:
        if own.version == network.version and own.overlaps(network):
            return f"overlaps your network {own}"
    return ""


def _tell_nodes() -> None:
    for plane in Plane.objects.all():
        actions.touch(plane, [PLATFORM])


def document() -> dict[str, Any]:
    """The list as nodes get it: networks with the second at which each ends, 0 for never."""
    rows = networks().order_by("network").values_list("network", "expires_at")
    return {"denied": [[network, int(end.timestamp()) if end else 0] for network, end in rows]}
