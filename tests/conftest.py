"""What every test of the control plane stands on: a migrated database, keys, an empty Redis.

``db`` runs a test in a transaction that is undone; ``transactional_db`` commits for real, for tests
with several workers or with what happens on commit. Both are pytest-django's.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection

from tests import factories, services
from tests.cluster import two_nodes
from tests.dataplane.agent.pods.fixtures import bare_nodes, pod_plane, unchained
from tests.e2e import installation as whole
from tests.queue import Queue

__all__ = ["bare_nodes", "pod_plane", "two_nodes", "unchained"]


#: Fixtures in the order in which tests that use them are run, after all others: Kubernetes may still be
#: being built meanwhile, and what such a fixture starts is at work to the end of the run.
_LATE = ("live_installation", "cluster", "two_nodes")


def pytest_configure() -> None:
    """A shell has what it starts in the background ignore Ctrl-C; commands that tests start are to hear it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a whole installation or a cluster comes last. Order within is kept."""

    def rank(item: pytest.Item) -> int:
        used = getattr(item, "fixturenames", ())
        return max((place for place, name in enumerate(_LATE, 1) if name in used), default=0)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def installation() -> services.Services:
    """PostgreSQL and Redis of this run, and the keys that an installation makes for itself."""
    services.SERVICES.start()
    call_command("init_secrets")
    settings.STATIC_ROOT.mkdir(exist_ok=True)
    return services.SERVICES


@pytest.fixture(scope="session")
def live_installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[whole.Installation]:
    """A whole installation as the demonstration leaves it; one for all tests of a run that need one."""
    if os.geteuid() != 0:
        pytest.skip("a whole installation needs root")
    yield from whole.running(tmp_path_factory.mktemp("live"))


@pytest.fixture(scope="session")
def django_db_modify_db_settings(installation: services.Services) -> None:
    """The database server runs before pytest-django makes its database in it."""


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> None:
    """Tables that tests have committed to are emptied row by row: truncating all makes files anew for each."""

    def statements(style: object, tables: Sequence[str], **_: object) -> list[str]:
        names = ", ".join(map(connection.ops.quote_name, sorted(tables)))
        return [
            # Waits for whoever is still writing, as truncating would; no trigger sees it either.
            f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE",
            "SET LOCAL session_replication_role = replica",
            *(f"DELETE FROM {name}" for name in names.split(", ")),
        ]

    connection.ops.sql_flush = statements  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def _empty_redis(request: pytest.FixtureRequest) -> Iterator[None]:
    """Counters, caches and queued tasks of one test are never another's."""
    yield
    if services.SERVICES.running:
        services.SERVICES.redis().flushall()


@pytest.fixture
def queue(installation: services.Services) -> Queue:
    """The tasks that were put on the broker, to look at and to run."""
    return Queue(installation.redis())


@pytest.fixture
def world(db: None) -> factories.World:
    """Two tenants with somebody in each role, a shared plane and a platform admin."""
    return factories.World()


@pytest.fixture
def committed_world(transactional_db: None) -> factories.World:
    """The same, committed: other connections see it."""
    return factories.World()
