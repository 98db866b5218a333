"""Health checks, made from inside the workload's own namespace: no packet has to pass a veth."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dataplane.agent.namespaces import run_in

#: What a path may hold as it is; all else is percent-encoded.
_PLAIN = "!#$%&'()*+,/:;=?@[]~"


class ProbeFailed(Exception):
    """The check didn't pass; ``what`` was asked, ``answer`` came back."""

    def __init__(self, what: str, answer: str) -> None:
        self.what, self.answer = what, answer
        super().__init__(f"{what}: {answer}")


def check(namespace: Path, address: str, probe: dict[str, Any]) -> None:
    """Raise ``ProbeFailed`` unless the check passes. Type ``none`` always passes."""
    if probe["type"] == "none":
        return
    run_in(namespace, lambda: _check(address, probe))


def _hang_up(connection: http.client.HTTPConnection, ending: threading.Event) -> None:
    ending.set()
    own = connection.sock
    if own is not None:
        with contextlib.suppress(OSError):
            own.shutdown(socket.SHUT_RDWR)


def _check(address: str, probe: dict[str, Any]) -> None:
    port, timeout = probe["port"], probe["timeout"]
    what = f"TCP port {port}" if probe["type"] == "tcp" else f"GET {probe['path']} on port {port}"
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    # A socket's own patience begins anew with each byte: an answer that drips would never end.
    ending = threading.Event()
    timer = threading.Timer(timeout, _hang_up, (connection, ending))
    timer.daemon = True
    timer.start()
    try:
        if probe["type"] == "tcp":
            connection.connect()
            return
        connection.request(
            "GET",
            quote(probe["path"], safe=_PLAIN),
            headers={"User-Agent": "cytoplane-probe", "Connection": "close"},
        )
        status = connection.getresponse().status
    except ConnectionRefusedError:
        raise ProbeFailed(what, "nothing listens there") from None
    except TimeoutError:
        raise ProbeFailed(what, f"no answer within {timeout} s") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if ending.is_set():
            raise ProbeFailed(what, f"no answer within {timeout} s") from None
        raise ProbeFailed(what, str(error) or type(error).__name__) from None
    finally:
        timer.cancel()
        connection.close()
    if not 200 <= status < 400:
        raise ProbeFailed(what, f"status {status}")
