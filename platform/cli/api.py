"""The REST API as the command line uses it: one request, its answer or an error with an exit code."""

from __future__ import annotations

import codecs
import re
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx

from cli import __version__
from cli.errors import UNREACHABLE, CliError, exit_for, usage
from cli.settings import Settings, load

_CONNECT_SECONDS, _READ_SECONDS = 10, 60
#: A deployment's log says nothing while a large image is pulled, but a build's limit is far below this.
_SILENCE_SECONDS = 900
_ERRNO = re.compile(r"^\[Errno -?\d+\] ")
_OTHER_ADDRESS = "Is the address right? `cyto login --url URL` chooses another one."


def part(text: str) -> str:
    """A piece of a path: whatever it holds, it stays one piece."""
    if text in ("", ".", ".."):
        raise usage(f"`{text}` can't be a name.", "Write the name of the thing that is meant.")
    return quote(text, safe="")


def _unexpected(url: str, message: str, exit_code: int = UNREACHABLE) -> CliError:
    return CliError(f"{url}: {message}", _OTHER_ADDRESS, "unexpected-answer", exit_code)


def _certificate_error(error: BaseException | None) -> ssl.SSLError | None:
    """The TLS failure behind an error, however deep it lies."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


class Api:
    """One client for one call of the program."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        bearer: str | None = None,
        patience: float = _READ_SECONDS,
    ) -> None:
        """``bearer`` is a token instead of the remembered one; empty for none. ``patience``: seconds."""
        self.settings = settings or load()
        self.url = self.settings.url
        headers = {"User-Agent": f"cyto/{__version__}", "Accept": "application/json"}
        bearer = self.settings.token if bearer is None else bearer
        if bearer:
            if not (bearer.isascii() and bearer.isprintable()):
                raise usage("The token in CYTO_TOKEN can't be one.", "Copy it again, or `cyto login`.")
            headers["Authorization"] = f"Bearer {bearer}"
        self._client = httpx.Client(
            base_url=f"{self.url}/api/v1",
            headers=headers,
            timeout=httpx.Timeout(patience, connect=_CONNECT_SECONDS),
        )

    def _unreachable(self, error: Exception) -> CliError:
        refused = _certificate_error(error)
        if refused is not None:
            reason = getattr(refused, "verify_message", "") or refused.reason or str(refused)
            if reason in ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING"):
                reason = "what listens there doesn't speak TLS"
            return CliError(
                f"The connection to {self.url} isn't safe: {reason}.",
                "For a private authority set SSL_CERT_FILE to its certificate; is `https` right?",
                "tls",
                UNREACHABLE,
            )
        if isinstance(error, httpx.TimeoutException):
            return CliError(
                f"{self.url} doesn't answer in time.", "Try again in a moment.", "timeout", UNREACHABLE
            )
        if isinstance(error, httpx.RemoteProtocolError):
            return CliError(
                f"{self.url} ended the connection without an answer.",
                _OTHER_ADDRESS,
                "unreachable",
                UNREACHABLE,
            )
        reason = _ERRNO.sub("", str(error)) or type(error).__name__
        return CliError(f"{self.url} doesn't answer: {reason}.", _OTHER_ADDRESS, "unreachable", UNREACHABLE)

    def _error(self, answer: httpx.Response) -> CliError:
        exit_code = exit_for(answer.status_code)
        try:
            error = answer.json()["error"]
            return CliError(
                str(error["message"]), str(error["next"]), str(error["id"]), exit_code,
                request=str(error.get("request_id", "")),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError):
            pass
        if answer.is_redirect:
            where = answer.headers.get("Location", "").split("/api/v1")[0]
            return _unexpected(self.url, f"it points elsewhere, to {where}.")
        if answer.status_code in (502, 503, 504):
            return CliError(
                f"{self.url} is there, but the platform behind it isn't (status {answer.status_code}).",
                "Try again in a moment.", "unreachable", UNREACHABLE,
            )  # fmt: skip
        return _unexpected(self.url, f"not an answer of the platform (status {answer.status_code}).")

    def call(self, method: str, path: str, document: Any = None, **query: Any) -> Any:
        """The decoded answer. Raises ``CliError``."""
        query = {key: value for key, value in query.items() if value not in (None, "")}
        try:
            answer = self._client.request(method, path, json=document, params=query)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from None
        if not answer.is_success:
            raise self._error(answer)
        try:
            return answer.json()
        except ValueError:
            raise _unexpected(self.url, "not the platform: its answer isn't JSON.") from None

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", path, **query)

    def post(self, path: str, document: Any = None) -> Any:
        return self.call("POST", path, {} if document is None else document)

    def stream(self, path: str, **query: Any) -> Iterator[str]:
        """Text as it arrives."""
        timeout = httpx.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        try:
            with self._client.stream("GET", path, params=query, timeout=timeout) as answer:
                if not answer.is_success:
                    answer.read()
                    raise self._error(answer)
                for piece in answer.iter_bytes():
                    yield decoder.decode(piece)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
