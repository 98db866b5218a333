"""Data planes, their nodes, certificates and the desired state that they pull."""

from __future__ import annotations

from django.db import models


class Plane(models.Model):
    """Where cells run."""

    class Engine(models.TextChoices):
        MACHINE = "machine"
        KUBERNETES = "kubernetes"

    name = models.CharField(max_length=40, unique=True)
    engine = models.CharField(max_length=16, choices=Engine.choices)
    #: None: shared by all tenants. Else private to its owner.
    owner = models.ForeignKey(
        "tenants.Tenant", null=True, blank=True, on_delete=models.PROTECT, related_name="planes"
    )
    #: Number of the newest snapshot.
    generation = models.BigIntegerField(default=0)
    #: Digest of what concerns every unit: the installation's addresses, the code that makes documents.
    basis = models.CharField(max_length=64, blank=True)
    #: Number of the cell up to which the last self-check came, and how many units such checks repaired.
    checked = models.BigIntegerField(default=0)
    repaired = models.BigIntegerField(default=0)
    #: Sealed with the master key; only for Kubernetes planes that workers drive directly.
    kubeconfig = models.BinaryField(null=True)
    #: Selects the address ranges that the plane's nodes use; None: the installation's own number.
    net = models.PositiveSmallIntegerField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name

    @property
    def direct(self) -> bool:
        """Whether workers drive it. All others dial in and ask what they should be."""
        return self.engine == self.Engine.KUBERNETES and self.kubeconfig is not None

    @property
    def joins_as(self) -> str:
        """Kind of the node that enrols with a token for the plane: a cluster's controller brings its agents."""
        return Node.Kind.CONTROLLER if self.engine == self.Engine.KUBERNETES else Node.Kind.AGENT


class Node(models.Model):
    """An enrolled agent, controller or builder. What it reports is untrusted input."""

    class Kind(models.TextChoices):
        AGENT = "agent"
        BUILDER = "builder"
        #: Drives a Kubernetes plane from inside, and asks for its agents' tokens.
        CONTROLLER = "controller"

    #: None for builders: they belong to no plane.
    plane = models.ForeignKey(Plane, null=True, on_delete=models.CASCADE, related_name="nodes")
    kind = models.CharField(max_length=16, choices=Kind.choices)
    name = models.CharField(max_length=80)
    facts = models.JSONField(default=dict)
    health = models.JSONField(default=dict)
    last_seen_at = models.DateTimeField(null=True)
    #: Generation that the node says it has applied.
    acknowledged = models.BigIntegerField(default=0)
    #: How many times it has enrolled: what it was given before opens nothing any more.
    enrolment = models.PositiveIntegerField(default=1, db_default=1)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["plane", "kind", "name"], name="node_name")]

    def __str__(self) -> str:
        return self.name


class EnrolmentToken(models.Model):
    """One-time permission to enrol; stored as a digest."""

    digest = models.CharField(max_length=64, unique=True)
    kind = models.CharField(max_length=16, choices=Node.Kind.choices)
    plane = models.ForeignKey(Plane, null=True, on_delete=models.CASCADE)
    #: What the node has to be called; "": whatever it says.
    node_name = models.CharField(max_length=80, blank=True)
    created_by = models.CharField(max_length=254, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)


class Certificate(models.Model):
    """A client certificate that was issued to a node."""

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="certificates")
    #: SHA-256 of the DER form, hex, as Envoy forwards it.
    fingerprint = models.CharField(max_length=64, unique=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)


class Snapshot(models.Model):
    """A generation of a plane's desired state: its units as they were when it was the newest.

    ``mark`` is drawn by lot. A node that names number and mark has exactly this generation; with the
    number alone it could be that of a database that was restored since.
    """

    plane = models.ForeignKey(Plane, on_delete=models.CASCADE, related_name="snapshots")
    generation = models.BigIntegerField()
    mark = models.CharField(max_length=32)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["plane", "generation"], name="snapshot_number")]


class Unit(models.Model):
    """A cell's part of a plane's desired state, or the platform's (number 0), as it is now.

    Secrets are references in it, filled in when it is sent. ``facts`` is the declared cell that it was
    compiled from, for compiling its neighbours.
    """

    plane = models.ForeignKey(Plane, on_delete=models.CASCADE, related_name="units")
    #: The cell's number.
    number = models.BigIntegerField()
    #: The generation that brought it, or took it away.
    generation = models.BigIntegerField()
    #: None: the cell is gone. Kept until no node can be of a generation that had it.
    document = models.JSONField(null=True)
    facts = models.JSONField(null=True)
    #: Where the cell is, as its facts say: its neighbours are there too.
    tenant = models.BigIntegerField(null=True)
    environment = models.CharField(max_length=40, blank=True)
    audit = models.BooleanField(default=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["plane", "number"], name="unit_number")]
        indexes = [
            models.Index(fields=["plane", "generation"], name="unit_generation"),
            models.Index(fields=["plane", "tenant", "environment"], name="unit_place"),
        ]


class Touched(models.Model):
    """A cell that may have to be compiled anew: written with the change, taken by the next rebuild."""

    plane = models.ForeignKey(Plane, on_delete=models.CASCADE, related_name="touched")
    #: The cell's number; None for all of the plane.
    number = models.BigIntegerField(null=True)


class DeniedNetwork(models.Model):
    """Who may not come to the public ports of any node. Written by ``planes.edge``."""

    #: As ``ipaddress`` writes it, IPv4 or IPv6, with its prefix length.
    network = models.CharField(max_length=43, unique=True)
    reason = models.CharField(max_length=200)
    created_by = models.CharField(max_length=254)
    created_at = models.DateTimeField(auto_now_add=True)
    #: None: until somebody takes it back.
    expires_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.network


class Sequence(models.Model):
    """The next number of a kind. Numbers are never reused."""

    kind = models.CharField(max_length=40, primary_key=True)
    next = models.BigIntegerField()


class ReplicaAddress(models.Model):
    """An address index of a plane in use by a replica or resting after one."""

    plane = models.ForeignKey(Plane, on_delete=models.CASCADE)
    index = models.IntegerField()
    #: Set when its replica ended; may be given again ten minutes later.
    freed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["plane", "index"], name="replica_address")]
