"""Planes that are Kubernetes clusters driven directly: their kubeconfig, sealed, and their driver."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from django.db import IntegrityError, transaction
from django.utils import timezone

from controlplane import crypto
from controlplane.errors import CytoplaneError, not_found
from dataplane import addresses
from dataplane.drivers import Denied, Driver, DriverError, Unreachable
from dataplane.drivers.kubernetes import InvalidKubeconfig, Kubeconfig, Kubernetes, Site
from dataplane.planes import ranges
from dataplane.planes.models import Plane
from tenants import audit, keys, names
from tenants.models import Tenant
from tenants.policy import Actor, authorise_platform


def _context(plane: Plane) -> str:
    return f"plane:{plane.pk}:kubeconfig"


def create_plane(*, acting_user: Actor, name: str, kubeconfig: str, owner: str = "") -> tuple[Plane, str]:
    """A plane and its cluster's version. Nothing is kept unless the cluster takes the credentials.

    Only what is needed of the kubeconfig is stored, sealed with the master key.
    """
    authorise_platform(acting_user)
    names.validate(name)
    tenant = Tenant.objects.filter(slug=owner).first() if owner else None
    if owner and tenant is None:
        raise not_found("tenant")
    if Plane.objects.filter(name=name).exists():
        raise CytoplaneError("name-taken", kind="plane", name=name)
    parsed, version = _tried(kubeconfig)
    try:
        with transaction.atomic():
            plane = Plane.objects.create(name=name, engine=Plane.Engine.KUBERNETES, owner=tenant)
            _keep(plane, parsed)
            audit.record(
                acting_user,
                "plane.create",
                plane,
                tenant=tenant,
                changes={"engine": plane.engine, "server": parsed.server},
            )
    except IntegrityError:
        raise CytoplaneError("name-taken", kind="plane", name=name)
    return plane, version


def replace_kubeconfig(*, acting_user: Actor, name: str, kubeconfig: str) -> tuple[Plane, str]:
    """Other credentials or another address for the same cluster; what failed is tried again at once."""
    authorise_platform(acting_user)
    if not Plane.objects.filter(name=name, engine=Plane.Engine.KUBERNETES).exists():
        raise not_found("plane")
    parsed, version = _tried(kubeconfig)
    with transaction.atomic():
        plane = Plane.objects.select_for_update(of=("self",)).select_related("owner").get(name=name)
        _keep(plane, parsed)
        plane.places.update(next_at=timezone.now())
        audit.record(
            acting_user, "plane.kubeconfig", plane, tenant=plane.owner, changes={"server": parsed.server}
        )
    return plane, version


def _keep(plane: Plane, kubeconfig: Kubeconfig) -> None:
    plane.kubeconfig = crypto.wrap(keys.masters(), kubeconfig.as_yaml().encode(), _context(plane))
    plane.save(update_fields=["kubeconfig"])


def _tried(kubeconfig: str) -> tuple[Kubeconfig, str]:
    """What is needed of a kubeconfig, and the version of its cluster, which was asked."""
    try:
        parsed = Kubeconfig.parse(kubeconfig)
    except InvalidKubeconfig as error:
        raise CytoplaneError("invalid", field="kubeconfig", message=f"The kubeconfig can't be used: {error}.")
    try:
        return parsed, Kubernetes(parsed).check()
    except Unreachable as error:
        raise CytoplaneError("cluster-unreachable", reason=_clause(error))
    except DriverError as error:
        raise CytoplaneError("cluster-refused", reason=_clause(error))


def _clause(error: DriverError) -> str:
    return str(error).rstrip(".")


def site_of(plane: Plane) -> Site:
    """What pods on the plane have to know of the platform."""
    config = ranges.config_of(plane)
    resolver = addresses.workload(config, addresses.RESOLVER)
    return Site(
        registry=f"127.0.0.1:{config.registry_port}",
        resolvers=(resolver.v4, resolver.v6),
        check_image=config.check_image,
        networks=(str(config.workloads4), str(config.workloads6)),
        opened=tuple(map(str, config.opened)),
    )


def driver_of(plane: Plane) -> Driver:
    """The plane's driver. Raises ``Denied`` if its kubeconfig can't be opened."""
    if plane.engine != Plane.Engine.KUBERNETES or plane.kubeconfig is None:
        raise Denied(f"The plane {plane.name} has no kubeconfig.")
    try:
        text = crypto.unwrap(keys.masters(), bytes(plane.kubeconfig), _context(plane)).decode()
        return Kubernetes(Kubeconfig.parse(text), site=site_of(plane))
    except (InvalidTag, InvalidKubeconfig):
        raise Denied(
            f"The kubeconfig of the plane {plane.name} can't be opened with the master key."
        ) from None
