"""The shop's pages. Everything that it sells comes from the API behind it."""

import json
import os
import urllib.error
import urllib.request

from flask import Flask, render_template

app = Flask(__name__)
API = os.environ.get("API_URL", "http://127.0.0.1:9000")


def ask(path: str) -> dict:
    """A document of the API; raises ``OSError`` when it can't be had."""
    with urllib.request.urlopen(f"{API}{path}", timeout=3) as answer:  # noqa: S310  an address of our own
        return json.load(answer)


@app.get("/")
def home():
    try:
        return render_template(
            "home.html", **ask("/products"), release=os.environ.get("CYTOPLANE_RELEASE", "")
        )
    except OSError as error:
        return render_template("closed.html", reason=str(error)), 502


@app.get("/products/<int:number>")
def product(number: int):
    try:
        return render_template("product.html", product=ask(f"/products/{number}"))
    except urllib.error.HTTPError as error:
        return render_template("closed.html", reason="There is no such product."), error.code
    except OSError as error:
        return render_template("closed.html", reason=str(error)), 502


@app.get("/healthz")
def healthz():
    return {"ok": True}
