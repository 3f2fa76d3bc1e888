"""What seeding 100,000 rows costs: the first start, against creating them through the ORM; and an unchanged second one.

All of it in one process and on stores in memory, so that what is compared is measured in turns. Of the second start the
fingerprint of the list is shown apart: a list is read through to the end to know that it has not changed.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from typing import Any

from pony.orm import Optional, PrimaryKey, Required, db_session

from benchmarks._common import Targets, in_turns, median, ms, table
from temaki import Database, Seeded
from temaki.orm.seed import fingerprint
from temaki.stores.memory import MemoryStore

FIRST_TARGET, RATIO_TARGET, SECOND_TARGET = 1.5, 3.0, 0.005
_numbers = itertools.count()


def rows_of(number: int) -> list[dict[str, Any]]:
    """Some columns of several types."""
    return [{"id": each, "label": f"label {each}", "size": each * 3, "share": each / 7} for each in range(number)]


def start(store: MemoryStore, rows: list[dict[str, Any]] | None, url: str | None = None) -> Any:
    """A program's start; seeded, if there are rows."""
    db = Database()
    namespace = {
        "__module__": __name__,
        "id": PrimaryKey(int),
        "label": Required(str),
        "size": Required(int),
        "share": Optional(float),
        **({} if rows is None else {"rows": rows}),
    }
    type(db.Entity)("Item", (db.Entity, Seeded), namespace)
    db.bind_s3(url or f"memory://seeding-{next(_numbers)}/app.sqlite", store=store)
    db.generate_mapping(create_tables=True)
    return db


def create(rows: list[dict[str, Any]]) -> None:
    """The first start of a program that creates its rows itself."""
    db = start(MemoryStore(), None)
    with db_session:
        for row in rows:
            db.Item(**row)


def restarts(store: MemoryStore, rows: list[dict[str, Any]] | None) -> Callable[[], None]:
    """Starts on a database that is complete, and whose working copy is there already."""
    first = start(store, rows)
    url = first.provider.engine.url

    def again() -> None:
        start(store, rows, url)
        assert first.provider.engine.url == url  # and so it is still there, with the working copy

    return again


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rows = rows_of(arguments.rows)
    few = rows[: arguments.rows // 100]
    by_orm, seeded = map(median, in_turns(arguments.rounds, lambda: create(rows), lambda: start(MemoryStore(), rows)))
    plain, again, again_few, mark = map(
        median,
        in_turns(
            arguments.rounds * 3,
            restarts(MemoryStore(), None),
            restarts(MemoryStore(), rows),
            restarts(MemoryStore(), few),
            lambda: fingerprint.digest(*fingerprint.of_rows(rows)),
        ),
    )
    print(f"  {len(rows):,} rows of 4 columns; medians of {arguments.rounds} rounds, in turns.\n")
    table(
        ("what", "median"),
        [
            ["first start, created through the ORM", ms(by_orm)],
            ["first start, seeded", ms(seeded)],
            ["second start, no rows to look at", ms(plain)],
            ["second start, unchanged rows", ms(again)],
            ["of that: the fingerprint", ms(mark)],
            [f"second start, {len(few):,} unchanged rows", ms(again_few)],
        ],
    )
    targets = Targets()
    targets.add("first start, seeded", ms(FIRST_TARGET), ms(seeded), met=seeded <= FIRST_TARGET)
    ratio = by_orm / seeded
    targets.add(
        "the same, times as fast as the ORM (at least)", f"{RATIO_TARGET:g}", f"{ratio:.1f}", met=ratio >= RATIO_TARGET
    )
    beyond, few_beyond, rest = again - plain, again_few - plain, again - plain - mark
    targets.add("second start, beyond one without rows", ms(SECOND_TARGET), ms(beyond), met=beyond <= SECOND_TARGET)
    targets.add("the same, without the fingerprint", ms(SECOND_TARGET), ms(rest), met=rest <= SECOND_TARGET)
    targets.add(f"the same, {len(few):,} rows", ms(SECOND_TARGET), ms(few_beyond), met=few_beyond <= SECOND_TARGET)
    targets.show()


if __name__ == "__main__":
    main()
