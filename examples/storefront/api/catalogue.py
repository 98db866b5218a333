"""The catalogue: a small JSON API. Its gateway says who is calling."""

from flask import Flask, abort, request

app = Flask(__name__)
PRODUCTS = [
    {
        "id": 1,
        "name": "Brass lantern",
        "text": "Burns oil or a candle for nine hours.",
        "price": 64.0,
        "stock": 12,
    },
    {
        "id": 2,
        "name": "Wool blanket",
        "text": "Woven from undyed wool, 140 by 200 cm.",
        "price": 118.5,
        "stock": 4,
    },
    {
        "id": 3,
        "name": "Linen towel",
        "text": "Washed soft, dries within an hour.",
        "price": 18.9,
        "stock": 40,
    },
    {"id": 4, "name": "Beeswax candle", "text": "Drip-free, smells of summer.", "price": 7.5, "stock": 160},
]


@app.get("/products")
def products():
    return {"products": PRODUCTS, "caller": request.headers.get("X-Cytoplane-Caller", "")}


@app.get("/products/<int:number>")
def product(number: int):
    for entry in PRODUCTS:
        if entry["id"] == number:
            return entry
    return abort(404)


@app.get("/healthz")
def healthz():
    return {"ok": True}
