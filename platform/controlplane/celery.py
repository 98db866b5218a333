"""The task queue: JSON, ids only, at least once, enqueued on commit through one base task."""

from __future__ import annotations

import os

import redis
from celery import Celery, Task
from django.conf import settings
from django.db import transaction

from controlplane import alive

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")


class OnCommit(Task):
    """The base of all tasks.

    ``enqueue`` puts the task on the queue once the surrounding transaction is committed, so that a
    worker never looks for a row that isn't there yet, and an aborted change enqueues nothing.
    Arguments are ids (int or str): a secret can't reach the broker by way of an argument.
    """

    abstract = True
    acks_late = True
    reject_on_worker_lost = True

    def enqueue(self, *ids: int | str, countdown: float | None = None) -> None:
        """Run this task after commit, ``countdown`` seconds later if given."""
        for value in ids:
            if not isinstance(value, int | str):
                raise TypeError(f"tasks take ids only, not {type(value).__name__}")
        # The change is made whether or not the broker answers: what a lost wake-up would have done, the
        # sweep does a moment later.
        transaction.on_commit(lambda: self.apply_async(ids, countdown=countdown), robust=True)


app = Celery("cytoplane", task_cls=OnCommit)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_soft_time_limit=60,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 120, "socket_keepalive": True},
    worker_hijack_root_logger=False,
    beat_schedule_filename="",
    beat_scheduler="controlplane.beat:LeasedScheduler",
    timezone="UTC",
)
app.autodiscover_tasks()
app.steps["worker"].add(alive.WorkerAlive)

#: Written by a periodic task: it is there as long as beat, broker and a worker do their work.
PULSE_KEY = "cytoplane:pulse"
PULSE_SECONDS = 20


@app.task(name="controlplane.pulse")
def pulse() -> None:
    """Prove that periodic tasks are given out and done."""
    redis.Redis.from_url(settings.REDIS_URL).set(PULSE_KEY, "1", ex=PULSE_SECONDS)
