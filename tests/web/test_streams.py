"""A stream ends when who reads it may not any more: by its role, by the session, by the account."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.http import StreamingHttpResponse
from django.test import AsyncClient

from tenants.models import Membership, User
from tests.factories import World
from web import sse

PLACE = "/acme/shop/production"


def removed(world: World, client: AsyncClient) -> None:
    Membership.objects.filter(user=world.person("viewer")).delete()


def signed_out(world: World, client: AsyncClient) -> None:
    client.session.delete()


def closed(world: World, client: AsyncClient) -> None:
    User.objects.filter(pk=world.person("viewer").pk).update(is_active=False)


def other_password(world: World, client: AsyncClient) -> None:
    person = world.person("viewer")
    person.set_password("another long secret")
    person.save()


@pytest.mark.parametrize(
    ("page", "end"),
    [
        ("events", removed),
        ("deployments/{}/events", removed),
        *(("logs/events", end) for end in (removed, signed_out, closed, other_password)),
    ],
)
def test_a_stream_ends_with_its_readers_rights(
    committed_world: World,
    monkeypatch: pytest.MonkeyPatch,
    page: str,
    end: Callable[[World, AsyncClient], None],
) -> None:
    world = committed_world
    deployment = world.push(world.cell())
    monkeypatch.setattr(sse, "PING", 0.0)
    monkeypatch.setattr(sse, "LIFE", 20.0)
    client = AsyncClient()
    client.force_login(world.person("viewer"))

    def take_away() -> None:
        try:
            end(world, client)
        finally:
            connections.close_all()

    async def read() -> int:
        answer = await client.get(f"{PLACE}/{page.format(deployment.pk)}")
        # What the request's own thread has opened, a server keeps for the next one.
        await sync_to_async(connections.close_all)()
        assert isinstance(answer, StreamingHttpResponse)
        seen = 0
        async for _ in answer:
            seen += 1
            if seen == 1:
                await sync_to_async(take_away, thread_sensitive=False)()
            if seen > 3:
                break
        return seen

    assert asyncio.run(asyncio.wait_for(read(), 15)) <= 3
