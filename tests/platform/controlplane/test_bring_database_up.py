"""Bringing the database up: one at a time, as often as one likes; and readiness, which waits for it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.test import Client

from controlplane import health
from controlplane.management.commands import publish_secrets
from controlplane.management.commands.bring_database_up import LOCK
from dataplane.planes.models import Plane
from tenants.models import User
from tests.factories import PASSWORD, World


def _from_elsewhere(statement: str) -> bool:
    """A statement on a connection of its own, whose session ends with it."""
    with connection.copy().cursor() as cursor:
        cursor.execute(statement, [LOCK])
        found = cursor.fetchone()[0]
        cursor.connection.close()
    return found


@pytest.mark.django_db(transaction=True)
def test_who_comes_second_waits_for_the_first() -> None:
    done = threading.Event()

    def second() -> None:
        try:
            call_command("bring_database_up")
            done.set()
        finally:
            connections.close_all()

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        thread = threading.Thread(target=second)
        thread.start()
        try:
            # It is at the lock: PostgreSQL says so.
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            for _ in range(600):
                cursor.execute(waiting)
                if cursor.fetchone()[0]:
                    break
                done.wait(0.05)
            else:
                pytest.fail("it doesn't wait")
            assert not done.is_set()
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
            thread.join(60)
    assert done.is_set()
    assert Plane.objects.filter(name="shared").count() == 1
    assert _from_elsewhere("SELECT pg_try_advisory_lock(%s)"), "the lock is given back"


@pytest.mark.django_db(transaction=True)
def test_the_administrator_is_made_once_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOPLANE_ADMIN_EMAIL", "Root@example.org")
    monkeypatch.setenv("CYTOPLANE_ADMIN_PASSWORD", PASSWORD)
    call_command("bring_database_up")
    monkeypatch.setenv("CYTOPLANE_ADMIN_PASSWORD", "another long password")
    call_command("bring_database_up")
    [user] = User.objects.all()
    assert user.is_platform_admin
    assert user.check_password(PASSWORD)


@pytest.mark.django_db
def test_a_database_behind_this_version_isnt_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_migrations", health._Migrations())
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'sessions'")
    answer = Client().get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["problems"] == {"migrations": "1 not applied"}


@pytest.mark.django_db
def test_a_database_with_all_of_it_is_ready() -> None:
    answer = Client().get("/readyz")
    assert (answer.status_code, answer.json()["problems"]) == (200, {})


def test_new_keys_are_refused_where_tenants_were_encrypted_with_others(world: World) -> None:
    with pytest.raises(CommandError, match="Restore the Secret"):
        publish_secrets._platform()


@pytest.mark.django_db
def test_new_keys_are_all_that_a_platform_needs(tmp_path: Path) -> None:
    made = publish_secrets._platform()
    assert set(made) == {"master.key", "django.key", "authority.key", "authority.pem"}
    assert made["master.key"] != (settings.CONFIG.secrets / "master.key").read_bytes()
