"""A small FastAPI application with its database in a bucket: ``uvicorn examples.fastapi_app:app``.

Environment: ``TEMAKI_URL=s3://bucket/notes.sqlite``.
"""

from __future__ import annotations

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pony.orm import CommitException, Required
from pydantic import BaseModel

from temaki import ConflictError, Database, TemakiError, cause_of, db_session

db = Database()


class Note(db.Entity):  # type: ignore[name-defined]  # Pony has no types
    """Something to remember."""

    text = Required(str)


class NewNote(BaseModel):
    """What a client sends."""

    text: str


class StoredNote(NewNote):
    """What it gets."""

    id: int


db.bind_s3()
db.generate_mapping(create_tables=True)

app = FastAPI()


# `def`, not `async def`: FastAPI runs these in threads, and a session belongs to its thread.
@app.get("/notes/{number}")
@db_session
def read_note(number: int) -> StoredNote:
    """One of them."""
    note = Note.get(id=number)
    if note is None:
        raise HTTPException(404)
    return StoredNote(id=note.id, text=note.text)


@app.post("/notes", status_code=201)
@db_session(retry=5)
def add_note(new: NewNote) -> StoredNote:
    """Add one. Runs again if another process was faster."""
    note = Note(text=new.text)
    note.flush()  # gives it its id
    return StoredNote(id=note.id, text=note.text)


@app.exception_handler(TemakiError)
@app.exception_handler(CommitException)
def not_stored(request: Request, error: Exception) -> JSONResponse:
    """What the store refused or did not answer. Another error in a commit (a constraint) stays what it is."""
    del request
    cause = cause_of(error)
    if not isinstance(cause, TemakiError):
        raise error
    return JSONResponse({"error": type(cause).__name__}, 409 if isinstance(cause, ConflictError) else 503)
