"""A job that cron starts: it adds up a day's lines of a log, once, however often it is started.

``cron_job.py 2026-11-22 access.log``. Two machines may run it: under ``lease-locked`` the second one waits for the
first, and then finds that there is nothing left to do.

Environment: ``TEMAKI_URL=s3://bucket/traffic.sqlite``. Exit codes: 0 done; 75 (``EX_TEMPFAIL``) try again, which
does no harm; 70 (``EX_SOFTWARE``) somebody has to look.
"""

from __future__ import annotations

import os
import sys
from datetime import date
from pathlib import Path

from pony.orm import CommitException, PrimaryKey, Required

from temaki import (
    CommitUnknownError,
    Database,
    LeaseTimeoutError,
    StoreUnavailableError,
    TemakiError,
    cause_of,
    db_session,
)

db = Database()


class Day(db.Entity):  # type: ignore[name-defined]  # Pony has no types
    """One day's sum. Its key is what makes the job repeatable."""

    day = PrimaryKey(date)
    lines = Required(int)


@db_session(immediate=True)  # takes the lease before it reads: it never runs into another one that does so
def add_up(day: date, log: Path) -> bool:
    """Store the day's sum, unless that was done before."""
    if Day.get(day=day) is not None:
        return False
    with log.open(encoding="utf-8") as file:
        Day(day=day, lines=sum(line.startswith(day.isoformat()) for line in file))
    return True


def main(day: str, log: str) -> int:
    """Run the job; returns its exit code."""
    try:
        # With a cache folder an unchanged database costs one small request, and no download, at each start.
        db.bind_s3(strategy="lease-locked", cache_dir=os.environ.get("TEMAKI_CACHE_DIR", "~/.cache/traffic"))
        db.generate_mapping(create_tables=True)
        done = add_up(date.fromisoformat(day), Path(log))
    except (TemakiError, CommitException) as error:
        cause = cause_of(error)
        print(f"{type(cause).__name__}: {cause}", file=sys.stderr)
        # Also where it is not known whether the commit landed: to run this job again does no harm.
        again = isinstance(cause, (StoreUnavailableError, LeaseTimeoutError, CommitUnknownError))
        return os.EX_TEMPFAIL if again else os.EX_SOFTWARE
    print(f"{day}: {'stored' if done else 'was done before'}")
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
