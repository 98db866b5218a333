"""Turns identities, as the kernel counts them, into ends that the reader may see.

What belongs to another tenant is called just that: its names are not the reader's to know.
"""

from __future__ import annotations

from collections.abc import Iterable

from dataplane.addresses import (
    IDENTITY_BUILDS,
    IDENTITY_GATEWAY_NORTH,
    IDENTITY_INDEX_PROXY,
    IDENTITY_NODE,
    IDENTITY_RESOLVER,
    IDENTITY_WORLD,
)
from projects.models import Cell, Workload
from web.picture import EAST, INSIDE, NORTH, SOUTH, WEST, End

_PLATFORM = {
    IDENTITY_NODE: ("The node", "node"),
    IDENTITY_RESOLVER: ("Resolver", "unknown"),
    **dict.fromkeys(IDENTITY_BUILDS, ("A build", "hammer")),
    IDENTITY_INDEX_PROXY: ("Package index proxy", "unknown"),
}


class Names:
    """Ends of one cell's edges, read with two queries for any number of identities."""

    def __init__(self, cell: Cell, tenant_id: int, url: str, identities: Iterable[int]) -> None:
        wanted = {i for i in identities if i >= 256}
        self.cell, self.tenant_id, self.url = cell, tenant_id, url
        self.workloads = {
            w.identity: w
            for w in Workload.objects.filter(identity__in=wanted).select_related(
                "component", "cell__project__tenant", "cell__environment"
            )
        }
        gateways = wanted - self.workloads.keys()
        self.gateways = {
            c.gateway_identity: c
            for c in Cell.objects.filter(gateway_identity__in=gateways).select_related(
                "project__tenant", "environment"
            )
        }

    def component(self, identity: int) -> str:
        """The component's name if the identity is one of this cell's, else empty."""
        found = self.workloads.get(identity)
        return found.component.name if found and found.cell_id == self.cell.pk else ""

    def end(self, identity: int, remote: str, outgoing: bool) -> End:
        """The end that an identity is, seen from this cell; ``outgoing``: it is being called."""
        workload = self.workloads.get(identity)
        if workload is not None:
            return self._workload(workload, outgoing)
        gateway = self.gateways.get(identity)
        if gateway is not None:
            return self._gateway(gateway, outgoing)
        side = SOUTH if outgoing else NORTH
        if identity == IDENTITY_GATEWAY_NORTH:
            return End("north", "Internet", NORTH, "internet")
        if identity == IDENTITY_WORLD or identity == 0:
            if remote:
                return End(f"address:{remote}", remote, side, "external", ref=remote)
            return End(f"world:{side}", "Internet", side, "internet")
        name, icon = _PLATFORM.get(identity, ("Unknown", "unknown"))
        return End(f"platform:{identity}", name, EAST if outgoing else WEST, icon, "platform", stranger=True)

    def _workload(self, workload: Workload, outgoing: bool) -> End:
        cell = workload.cell
        component = workload.component
        if cell.pk == self.cell.pk:
            return End(
                f"w{workload.identity}",
                component.name,
                INSIDE,
                component.kind,
                url=f"{self.url}/components/{component.name}",
                ref=component.name,
            )
        side = EAST if outgoing else WEST
        if cell.project.tenant_id != self.tenant_id:
            return End(f"stranger:{side}", "Another tenant", side, "stranger", stranger=True)
        place = f"/{cell.project.tenant.slug}/{cell.project.slug}/{cell.environment.name}"
        same = cell.environment_id == self.cell.environment_id
        return End(
            f"w{workload.identity}",
            component.name,
            side,
            component.kind,
            cell.project.slug if same else f"{cell.project.slug}, {cell.environment.name}",
            f"{place}/components/{component.name}",
            stranger=not same,
            ref=f"{cell.project.slug}/{component.name}@{cell.environment.name}",
        )

    def _gateway(self, gateway: Cell, outgoing: bool) -> End:
        side = EAST if outgoing else WEST
        if gateway.project.tenant_id != self.tenant_id:
            return End(f"stranger:{side}", "Another tenant", side, "stranger", stranger=True)
        url = f"/{gateway.project.tenant.slug}/{gateway.project.slug}/{gateway.environment.name}"
        return End(
            f"g{gateway.gateway_identity}", gateway.project.slug, side, "cell", "through its gateway", url
        )
