"""What the cell's processes write, followed."""

from __future__ import annotations

from collections.abc import AsyncIterator

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.http import urlencode
from django.views.decorators.http import require_GET

from tenants.policy import Actor
from web import queries_cell, queries_logs, sse
from web.access import Place, actor_anew, cell_place, signed_in
from web.queries_logs import LogFilter

INTERVAL = 0.7


def _filter(request: HttpRequest) -> LogFilter:
    stream = request.GET.get("stream", "")
    return LogFilter(
        component=request.GET.get("component", "")[:40],
        stream=stream if stream in ("stdout", "stderr") else "",
        search=request.GET.get("q", "")[:120],
    )


@require_GET
@signed_in
def page(request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str) -> HttpResponse:
    """The newest lines that match; more arrive by the stream."""
    place = cell_place(actor, tenant, project, environment)
    wanted = _filter(request)
    lines = queries_logs.workload_lines(place.cell, wanted)  # type: ignore[arg-type]
    last = lines[-1].n if lines else 0
    query = urlencode(
        {"component": wanted.component, "stream": wanted.stream, "q": wanted.search, "after": last}
    )
    context = {
        "place": place,
        "tab": "logs",
        "crumb": "Logs",
        "wanted": wanted,
        "lines": lines,
        "last": last,
        "components": [row.name for row in queries_cell.component_rows(place)],
        "events": f"{place.url}/logs/events?{query}",
    }
    return render(request, "web/logs.html", context)


async def events(request: HttpRequest, tenant: str, project: str, environment: str) -> HttpResponse:
    """New lines as they arrive."""
    wanted = _filter(request)
    text = request.GET.get("after", "0")
    start = int(text) if text.isascii() and text.isdigit() else 0

    def place() -> Place:
        return cell_place(actor_anew(request), tenant, project, environment)

    cell = (await sse.read(place)).cell
    # A browser that comes back tells how far it had read.
    seen = request.headers.get("Last-Event-ID", "")
    start = max(start, int(seen)) if seen.isascii() and seen.isdigit() else start

    async def stream() -> AsyncIterator[bytes]:
        after = start
        async for due in sse.ticks(INTERVAL, place):
            lines = await sse.read(queries_logs.workload_lines, cell, wanted, after=after or 1)
            if lines:
                after = lines[-1].n
                yield sse.event("lines", [line.as_dict() for line in lines], str(after))
            elif due:
                yield sse.event("ping")

    return sse.response(stream())
