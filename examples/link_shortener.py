"""A link shortener, written for plain Pony on an SQLite file: its own pragmas, no ``retry``, two gunicorn workers.

Run it with ``gunicorn --workers 2 examples.link_shortener:app``. To move it to a bucket, replace its ``db.bind(…)`` by

    temaki.bind_s3(db, "s3://my-bucket/links.sqlite", strategy="lease-locked", isolation="pony")

and change nothing else. ``tests/examples/test_link_shortener.py`` does so.
"""

from __future__ import annotations

import os
import secrets
import sqlite3

from flask import Flask, abort, redirect, request
from pony.orm import Database, PrimaryKey, Required, db_session
from werkzeug.wrappers import Response

db = Database()


class Link(db.Entity):  # type: ignore[misc,name-defined]
    """A long address under a short code."""

    code = PrimaryKey(str)
    address = Required(str, unique=True)
    visits = Required(int, default=0)


@db.on_connect(provider="sqlite")  # type: ignore[untyped-decorator]
def set_up(_: Database, connection: sqlite3.Connection) -> None:
    """What many applications set for SQLite."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA busy_timeout = 5000")


db.bind("sqlite", os.environ.get("LINKS", "links.sqlite"), create_db=True)
db.generate_mapping(create_tables=True)

app = Flask(__name__)


@app.post("/")
def shorten() -> tuple[str, int]:
    """Gives the code of an address, the same one for the same address."""
    address = request.get_data(as_text=True)
    with db_session:
        link = Link.get(address=address)
        if link is None:
            link = Link(code=secrets.token_urlsafe(6), address=address)
        return str(link.code), 201


@app.get("/<code>")
def visit(code: str) -> Response:
    """Sends the visitor on, and counts."""
    with db_session:
        link = Link.get(code=code)
        if link is None:
            abort(404)
        link.visits += 1
        return redirect(link.address)


@app.get("/")
def everything() -> dict[str, list[object]]:
    """All that is stored: ``{code: [address, visits]}``."""
    with db_session:
        return {link.code: [link.address, link.visits] for link in Link.select()}
