"""A small Flask application with its database in a bucket: ``flask --app examples.flask_app run``.

Environment: ``TEMAKI_URL=s3://bucket/notes.sqlite``.
"""

from __future__ import annotations

from typing import Any

from flask import Flask, request
from pony.orm import CommitException, Required, desc

from temaki import ConflictError, Database, TemakiError, cause_of, db_session

db = Database()


class Note(db.Entity):  # type: ignore[name-defined]  # Pony has no types
    """Something to remember."""

    text = Required(str)


db.bind_s3()
db.generate_mapping(create_tables=True)

app = Flask(__name__)


# The session ends inside of the view: the answer is sent after the commit is stored, and can say if it was not.
@app.get("/notes")
@db_session
def list_notes() -> list[dict[str, Any]]:
    """The newest first."""
    return [note.to_dict() for note in Note.select().order_by(desc(Note.id)).limit(100)]


@app.post("/notes")
@db_session(retry=5)
def add_note() -> tuple[dict[str, Any], int]:
    """Add one. Runs again if another process was faster."""
    note = Note(text=request.get_json()["text"])
    note.flush()  # gives it its id
    return note.to_dict(), 201


@app.errorhandler(TemakiError)
@app.errorhandler(CommitException)
def not_stored(error: Exception) -> tuple[dict[str, str], int]:
    """What the store refused or did not answer. Another error in a commit (a constraint) stays what it is."""
    cause = cause_of(error)
    if not isinstance(cause, TemakiError):
        raise error
    app.logger.error("%s: %s", type(cause).__name__, cause)
    return {"error": type(cause).__name__}, 409 if isinstance(cause, ConflictError) else 503
