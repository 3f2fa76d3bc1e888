"""``bench``: measure what sessions cost, in requests, bytes, milliseconds and dollars.

The command runs real ``db_session``s with the configured strategy. They use an object of their own beside the database,
of the same size, which is deleted at the end.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from time import perf_counter
from typing import Annotated, Final

import typer

from temaki.cli.local import scratch
from temaki.cli.options import AsJson, Url
from temaki.cli.results import Bench, SessionCost
from temaki.cli.target import Target
from temaki.cli.terminal import Terminal, terminal
from temaki.cli.timing import quantiles
from temaki.config import settings
from temaki.config.registry import load
from temaki.errors import CommitUnknownError, StoreError, TemakiError
from temaki.formats.choice import format_for
from temaki.formats.format import Format
from temaki.observe.metering import Meter, MeteredStore, Traffic
from temaki.orm.cause import cause_of
from temaki.orm.database import Database
from temaki.stores.wrapper import Verb
from temaki.strategy import Strategy
from temaki.version import PAGES_FORMAT

PRICES: Final[dict[Verb, float]] = {
    "get": 0.0004,
    "head": 0.0004,
    "put": 0.005,
    "list": 0.005,
    "copy": 0.005,
    "delete": 0.0,
}
"""Price of 1000 requests, in dollars: S3 Standard in us-east-1, list prices of 2025, without traffic and storage."""

_DEFAULT_SIZE: Final = 1 << 20  # bytes
_LARGEST: Final = 64 << 20  # bytes
_PAGE: Final = 4096  # bytes


def bench(
    url: Url = None,
    *,
    sessions: Annotated[int, typer.Option(min=1, metavar="N", help="How many sessions of each kind to measure.")] = 20,
    size: Annotated[
        int | None,
        typer.Option(min=_PAGE, metavar="BYTES", help="Size of the database; the default is that of the stored one."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what a session costs here: requests, bytes, milliseconds, and dollars at S3's list prices.

    Example: temaki bench s3://my-bucket/app.sqlite --sessions 50
    """
    with terminal(as_json=as_json) as out:
        out.show(measure(Target(url), out, sessions=sessions, size=size))


def measure(target: Target, out: Terminal, *, sessions: int, size: int | None) -> Bench:
    """Measure what :func:`bench` shows.

    Args:
        target: The database.
        out: The terminal, for notes.
        sessions: How many sessions of each kind to measure.
        size: Size of the measured database, in bytes; None: that of the stored one.

    Raises:
        ConfigurationError: The strategy is configured wrongly.
        StoreError, SyncError: A request failed.
    """
    strategy = _strategy(target)
    stored = target.current_or_none()
    if size is None:
        size = _DEFAULT_SIZE if stored is None else min(stored.size, _LARGEST)
    form = format_for(stored, target.settings.format)
    key = f"{target.key}.temaki-bench-{os.urandom(8).hex()}"
    out.note(f"Measuring with an object of its own beside the database, of {size} bytes.")
    with scratch() as folder:
        out.so_far = "The object that was stored for the measurement was deleted."
        try:
            costs = Bed(target, key, strategy, form, folder, size=size).measure(sessions)
        except CommitUnknownError as error:
            # The object is deleted now, so whether the commit was stored does not matter.
            if isinstance(error.__cause__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
        finally:
            # This includes objects that a strategy keeps beside it, such as a lease.
            with suppress(StoreError):
                for info in list(target.store.list(key)):
                    target.store.delete(info.key)
    prices = {str(verb): price for verb, price in PRICES.items()}
    return Bench(
        url=target.url,
        strategy=str(target.settings.strategy),
        format="pages" if form.number == PAGES_FORMAT else "file",
        size=size,
        prices=prices,
        sessions=costs,
    )


def _strategy(target: Target) -> Strategy:
    chosen = target.settings
    assert isinstance(chosen.strategy, str), "only an argument of bind_s3 can be an instance"
    return settings.make_strategy(
        load(chosen.strategy, origin=chosen.origins.get("strategy", "strategy")), chosen.options
    )


class Bed:
    """A database that the measurement uses, and another process that changes it.

    Args:
        target: The store and its configuration.
        key: The key of the object that the measurement uses.
        strategy: The strategy to measure.
        form: The format of the database.
        folder: The folder for the local file.
        size: Size of the database, in bytes.
    """

    def __init__(self, target: Target, key: str, strategy: Strategy, form: Format, folder: Path, *, size: int) -> None:
        self._target, self._key, self._strategy, self._form = target, key, strategy, form
        self._file = folder / "bench.sqlite"
        _fill(self._file, size)
        self._meter = Meter()
        self._db, self._other = Database(), Database()

    def measure(self, sessions: int) -> list[SessionCost]:
        """Measure all kinds of session, one after the other.

        Args:
            sessions: How many sessions of each kind to measure.
        """
        target = self._target
        target.publish(self._file, None, key=self._key, form=self._form)
        url = target.url.removesuffix(target.key) + self._key
        self._db.bind_s3(url, strategy=self._strategy, store=MeteredStore(target.store, self._meter), compact="manual")
        # A process has one working copy for a URL. Under another URL, the same object has a second one.
        self._other.bind_s3(
            f"memory://another/{self._key}", store=target.store, strategy="etag-cached", compact="manual"
        )
        for db in (self._db, self._other):
            db.generate_mapping()
        _read(self._db)  # the first session pulls, and makes the client
        costs = [
            self._cost("reads, unchanged", sessions, lambda: _read(self._db)),
            self._cost(
                "reads, changed by another", sessions, lambda: _read(self._db), before=lambda: _write(self._other)
            ),
        ]
        if self._strategy.writes:
            _write(self._db)  # the first write may probe the store
            costs.append(self._cost("writes", sessions, lambda: _write(self._db)))
        for db in (self._db, self._other):
            db.unbind()
        return costs

    def _cost(
        self, name: str, sessions: int, session: Callable[[], None], *, before: Callable[[], None] | None = None
    ) -> SessionCost:
        durations = []  # milliseconds
        self._meter.reset()
        for _ in range(sessions):
            if before is not None:
                before()  # the meter does not see these requests
            begin = perf_counter()
            session()
            durations.append((perf_counter() - begin) * 1000)
        traffic = self._meter.traffic()
        median, high = quantiles(durations)
        return SessionCost(
            session=name,
            sessions=sessions,
            requests={verb: round(traffic.count(verb) / sessions, 2) for verb in PRICES if traffic.count(verb)},
            bytes_up=traffic.bytes_up // sessions,
            bytes_down=traffic.bytes_down // sessions,
            p50=median,
            p95=high,
            dollars_per_1000=dollars(traffic) / sessions * 1000,
        )


def _read(db: Database) -> None:
    from temaki import db_session

    with db_session:
        db.select("value FROM bench WHERE id = 1")


def _write(db: Database) -> None:
    from pony.orm import CommitException

    from temaki import db_session

    @db_session(retry=5)
    def write() -> None:
        db.execute("UPDATE bench SET value = value + 1 WHERE id = 1")

    try:
        write()
    except CommitException as error:
        cause = cause_of(error)
        if isinstance(cause, (TemakiError, KeyboardInterrupt)):
            raise cause from cause.__cause__  # its cause shows whether it was interrupted
        raise


def dollars(traffic: Traffic) -> float:
    """Return what requests cost at list prices, in dollars. Requests without an answer count, too."""
    return sum(traffic.count(verb) * price / 1000 for verb, price in PRICES.items())


def _fill(path: Path, size: int) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"PRAGMA page_size = {_PAGE}")
        database.execute("CREATE TABLE bench (id INTEGER PRIMARY KEY, value INTEGER NOT NULL)")
        database.execute("INSERT INTO bench VALUES (1, 0)")
        if size > 4 * _PAGE:
            database.execute("CREATE TABLE filler (data BLOB)")
            database.execute("INSERT INTO filler VALUES (?)", (os.urandom(size - 4 * _PAGE),))
