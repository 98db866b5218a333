"""The stage on which the other tests play: services, a world, a whole deployment."""

from __future__ import annotations

from django.conf import settings
from django.db import connection

from delivery.models import Replica
from tests import services
from tests.factories import World


def test_the_database_and_its_settings_are_the_runs_own(world: World) -> None:
    assert settings.CONFIG.home == services.HOME
    assert connection.settings_dict["HOST"].startswith(str(services.HOME))
    assert str(services.HOME) in settings.REDIS_URL
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version_num")
        assert int(cursor.fetchone()[0]) >= 150000


def test_a_deployment_can_be_carried_to_its_end(world: World) -> None:
    cell = world.cell()
    release = world.deploy(cell)
    cell.refresh_from_db()
    assert cell.serving_release == release
    assert set(Replica.objects.values_list("wanted", flat=True)) == {"serve"}
