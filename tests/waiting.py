"""Two transactions at once, of which one waits for a row that the other has locked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from django.db import connection, connections, transaction


def meanwhile(holding: Callable[[], object], waiting: Callable[[], Any]) -> Any:
    """What ``waiting`` gives that has to wait until ``holding`` is committed."""
    held, found, errors = threading.Event(), [], []

    def first() -> None:
        try:
            with transaction.atomic():
                holding()
                held.set()
                waited_for()
        except Exception as error:
            errors.append(error)
        finally:
            held.set()
            connections.close_all()

    def second() -> None:
        try:
            with transaction.atomic():
                found.append(waiting())
        except Exception as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert held.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join(20)
    assert not errors, errors
    return found[0]


def waited_for() -> None:
    """Until some transaction waits for a lock."""
    end = time.monotonic() + 10
    with connection.cursor() as cursor:
        while time.monotonic() < end:
            # Else it would be told the same until the transaction ends.
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if cursor.fetchone()[0]:
                return
            time.sleep(0.02)
    raise AssertionError("nobody waits")
