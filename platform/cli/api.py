"""The REST API as the command line uses it: one request, its answer or an error with an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx

from cli.settings import Settings, load

#: Exit codes, documented in docs/cli.md.
REFUSED, USAGE, NOT_SIGNED_IN, NOT_FOUND, UNREACHABLE, FAILED = 1, 2, 3, 4, 5, 6


class CliError(Exception):
    """``code`` is the error's id, ``exit`` the process's exit code."""

    def __init__(
        self, message: str, following: str = "", code: str = "", exit_code: int = REFUSED, request: str = ""
    ) -> None:
        self.message, self.following, self.code = message, following, code
        self.exit, self.request = exit_code, request
        super().__init__(message)


def part(text: str) -> str:
    """A piece of a path: whatever it holds, it stays one piece."""
    return quote(text, safe="")


def _error(answer: httpx.Response) -> CliError:
    exit_code = {401: NOT_SIGNED_IN, 404: NOT_FOUND}.get(answer.status_code, REFUSED)
    try:
        error = answer.json()["error"]
        return CliError(
            error["message"], error.get("next", ""), error["id"], exit_code, error.get("request", "")
        )
    except (ValueError, KeyError, TypeError):
        return CliError(
            f"The platform answered with status {answer.status_code}.",
            "Try again; if it stays, tell its operator.",
            "unexpected-answer",
            exit_code,
        )


class Api:
    """One client for one call of the program."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load()
        headers = {"User-Agent": "cyto", "Accept": "application/json"}
        if self.settings.token:
            headers["Authorization"] = f"Bearer {self.settings.token}"
        self._client = httpx.Client(
            base_url=f"{self.settings.url}/api/v1", headers=headers, timeout=httpx.Timeout(30, read=60)
        )

    def _unreachable(self, error: Exception) -> CliError:
        return CliError(
            f"{self.settings.url} doesn't answer: {error}",
            "Is the address right? `cyto login --url URL` chooses another one.",
            "unreachable",
            UNREACHABLE,
        )

    def call(self, method: str, path: str, document: Any = None, **query: Any) -> Any:
        """The decoded answer. Raises ``CliError``."""
        query = {key: value for key, value in query.items() if value not in (None, "")}
        try:
            answer = self._client.request(method, path, json=document, params=query)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from None
        if not answer.is_success:
            raise _error(answer)
        try:
            return answer.json()
        except ValueError:
            raise CliError(
                f"{self.settings.url} isn't the platform's address: its answer isn't JSON.",
                "`cyto login --url URL` chooses another one.",
                "unexpected-answer",
                UNREACHABLE,
            ) from None

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", path, **query)

    def post(self, path: str, document: Any = None) -> Any:
        return self.call("POST", path, {} if document is None else document)

    def stream(self, path: str, **query: Any) -> Iterator[str]:
        """Text as it arrives."""
        try:
            with self._client.stream("GET", path, params=query, timeout=None) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _error(answer)
                yield from answer.iter_text()
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
