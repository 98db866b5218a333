"""Who there is: users, tenants, memberships, tokens, plans, and what they did."""

from __future__ import annotations

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **extra) -> User:
        user = self.model(email=self.normalize_email(email).lower(), **extra)
        user.set_password(password)
        user.save()
        return user

    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(email=(username or "").lower())


class User(AbstractBaseUser):
    """A person. The email address is the login."""

    email = models.EmailField(unique=True)
    name = models.CharField(max_length=120, blank=True)
    is_platform_admin = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    USERNAME_FIELD = "email"
    objects = UserManager()

    def __str__(self) -> str:
        return self.email


class Plan(models.Model):
    """What a tenant may use. CPU in cores, memory in MiB, both summed over all replicas.

    ``repository_mib`` is for each project's. Bandwidth (Mbit/s in each direction), new connections per
    second and open connections are for each component; 0: no ceiling.
    """

    name = models.CharField(max_length=40, unique=True)
    components = models.PositiveIntegerField(default=20)
    replicas = models.PositiveIntegerField(default=40)
    memory_mib = models.PositiveIntegerField(default=16384)
    cpu = models.FloatField(default=16)
    projects = models.PositiveIntegerField(default=20)
    repository_mib = models.PositiveIntegerField(default=1024)
    bandwidth_mbit = models.PositiveIntegerField(default=0)
    connections_per_second = models.PositiveIntegerField(default=5000)
    connections = models.PositiveIntegerField(default=20000)

    def __str__(self) -> str:
        return self.name


class Tenant(models.Model):
    """An organisation."""

    class State(models.TextChoices):
        ACTIVE = "active"
        SUSPENDED = "suspended"

    slug = models.CharField(max_length=40, unique=True)
    name = models.CharField(max_length=120)
    state = models.CharField(max_length=16, choices=State.choices, default=State.ACTIVE)
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.slug


class TenantKey(models.Model):
    """The tenant's data key, wrapped by the master key."""

    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE, related_name="key")
    wrapped = models.BinaryField()


class Role(models.TextChoices):
    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    VIEWER = "viewer"


class Membership(models.Model):
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role.choices)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "user"], name="one_membership")]


class Token(models.Model):
    """A bearer token of a person, optionally narrowed to one tenant; stored hashed.

    ``scopes``: ``read``, ``deploy`` (push, releases, scale, configuration), ``manage`` (members,
    tokens, projects). A token never has more rights than its user has at the time of use.
    """

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    tenant = models.ForeignKey(Tenant, null=True, blank=True, on_delete=models.CASCADE)
    name = models.CharField(max_length=80)
    prefix = models.CharField(max_length=16)
    digest = models.CharField(max_length=64, unique=True)
    scopes = models.JSONField(default=list)
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    revoked_at = models.DateTimeField(null=True)


class AuditEvent(models.Model):
    """What was done, written in the transaction that did it. Append-only."""

    tenant = models.ForeignKey(Tenant, null=True, on_delete=models.SET_NULL, related_name="audit")
    actor = models.CharField(max_length=254)
    verb = models.CharField(max_length=60)
    object_type = models.CharField(max_length=40)
    object_id = models.CharField(max_length=40)
    object_name = models.CharField(max_length=160)
    changes = models.JSONField(default=dict)
    request_id = models.CharField(max_length=32, blank=True)
    at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["tenant", "-id"])]
