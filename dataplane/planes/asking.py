"""Long questions that are asked again and again: the database thinks once about how to answer them.

Thinking takes several times as long as answering. It is kept for each connection, so not where somebody
may share connections out between the database and us: beyond the embedded one's own socket.
"""

from __future__ import annotations

from typing import Any

import psycopg
from django.db import connection


def ask(question: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    """All rows of the answer."""
    if not _ours() or connection.execute_wrappers or connection.queries_logged:
        with connection.cursor() as cursor:
            cursor.execute(question, parameters)
            return cursor.fetchall()
    connection.ensure_connection()
    # Django's own cursors put parameters into the text, and so never prepare whatever this says.
    connection.connection.prepare_threshold = 1
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        cursor.execute(question, parameters, prepare=True)
        return cursor.fetchall()


def _ours() -> bool:
    return str(connection.settings_dict["HOST"]).startswith("/")
