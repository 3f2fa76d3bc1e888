"""An AWS Lambda function that books seats, with its database in a bucket.

Lambda delivers an event at least once: a timeout or a lost answer makes it send the same event again. So the event's
id is stored in the transaction that does its work. What was done before is answered again, and not done again.

Environment: ``TEMAKI_URL=s3://bucket/seats.sqlite``, and ``TEMAKI_TIMEOUT`` below the function's own timeout.
"""

from __future__ import annotations

from typing import Any

from pony.orm import PrimaryKey, Required

from temaki import Database, db_session

SEATS = 100

db = Database()


class Booking(db.Entity):  # type: ignore[name-defined]  # Pony has no types
    """One seat, by the event that booked it."""

    event_id = PrimaryKey(str)
    name = Required(str)
    seat = Required(int, unique=True)


# Outside of the handler: this runs once for each execution environment, in Lambda's init phase.
db.bind_s3()
db.generate_mapping(create_tables=True)


@db_session(retry=10)
def book(event_id: str, name: str) -> dict[str, Any]:
    """One transaction: ended, and stored, before anything is answered."""
    booking = Booking.get(event_id=event_id)
    if booking is None:
        taken = Booking.select().count()
        if taken >= SEATS:
            return {"statusCode": 409, "body": "sold out"}
        booking = Booking(event_id=event_id, name=name, seat=taken + 1)
    return {"statusCode": 200, "body": f"{booking.name}: seat {booking.seat}"}


def handler(event: dict[str, Any], context: object = None) -> dict[str, Any]:
    """What Lambda calls. An exception makes Lambda (or the caller) try again, which :func:`book` is made for."""
    del context
    answer: dict[str, Any] = book(event["id"], event["name"])
    return answer
