"""Tries to reach what it shouldn't, and shows what happened. Part of the demonstration of isolation."""

import socket
import time

from flask import Flask, request

app = Flask(__name__)


def attempt(host: str, port: int) -> dict:
    """One TCP connection: whether it opened, how long it took, what the error was."""
    begun = time.monotonic()
    try:
        socket.create_connection((host, port), timeout=2).close()
        outcome = "reached"
    except OSError as error:
        outcome = str(error)
    return {"host": host, "port": port, "outcome": outcome, "seconds": round(time.monotonic() - begun, 3)}


@app.get("/try")
def attempts():
    """``/try?to=host:port&to=…``: an attempt for each."""
    found = []
    for target in request.args.getlist("to")[:50]:
        host, _, port = target.rpartition(":")
        if port.isdigit() and host:
            found.append(attempt(host.strip("[]"), int(port)))
    return {"attempts": found}


@app.get("/")
def home():
    return "<!doctype html><title>Prober</title><p>Ask <code>/try?to=host:port</code>.\n"
