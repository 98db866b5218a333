"""Pages of a list: which one is asked for and what surrounds it."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest


def page_number(request: HttpRequest) -> int:
    """The page asked for, 1 where it makes no sense."""
    text = request.GET.get("page", "1")
    return max(1, min(int(text), 10_000)) if text.isascii() and text.isdigit() else 1


@dataclass
class Listing:
    """One page of ``total`` things, ``size`` to a page."""

    items: list
    page: int
    size: int
    total: int

    @classmethod
    def of(cls, request: HttpRequest, queryset, size: int = 50) -> Listing:
        """The page of a queryset that the request asks for; two queries."""
        page = page_number(request)
        total = queryset.count()
        return cls(list(queryset[(page - 1) * size : page * size]), page, size, total)

    @property
    def pages(self) -> int:
        return max(1, -(-self.total // self.size))

    @property
    def first(self) -> int:
        return (self.page - 1) * self.size + 1 if self.items else 0

    @property
    def last(self) -> int:
        return (self.page - 1) * self.size + len(self.items)

    @property
    def previous(self) -> int:
        return self.page - 1

    @property
    def next(self) -> int:
        return self.page + 1
