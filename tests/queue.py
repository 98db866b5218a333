"""The broker's side of tasks: what is queued in Redis, and a worker that runs it at the test's word."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

import redis

from controlplane.celery import app

_LIST = "celery"


@dataclass(frozen=True)
class Queued:
    """A task as it lies on the broker. ``later`` is set where it has to wait (a countdown)."""

    name: str
    arguments: tuple
    later: bool


class Queue:
    """Reads Celery's own messages; only JSON is accepted, as workers do."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    @staticmethod
    def _read(message: bytes) -> Queued:
        document = json.loads(message)
        assert document["content-type"] == "application/json"
        arguments, _, _ = json.loads(base64.b64decode(document["body"]))
        headers = document["headers"]
        return Queued(headers["task"], tuple(arguments), headers.get("eta") is not None)

    def waiting(self, name: str = "") -> list[Queued]:
        """What is queued, oldest first; only tasks called ``name`` if given."""
        messages: list[bytes] = self._client.lrange(_LIST, 0, -1)  # type: ignore[assignment]
        found = [self._read(message) for message in reversed(messages)]
        return [task for task in found if name in ("", task.name)]

    def clear(self) -> None:
        self._client.delete(_LIST)

    def run(self, most: int = 50, later: bool = False) -> list[Queued]:
        """Do what is queued and what that queues, like a worker; what has to wait only if ``later``."""
        done: list[Queued] = []
        kept: list[bytes] = []
        while len(done) < most and (message := self._client.rpop(_LIST)) is not None:
            assert isinstance(message, bytes)
            task = self._read(message)
            if task.later and not later:
                kept.append(message)
                continue
            app.tasks[task.name].run(*task.arguments)
            done.append(task)
        for message in kept:
            self._client.lpush(_LIST, message)
        assert len(done) < most, f"tasks go on for ever: {done[-5:]}"
        return done
