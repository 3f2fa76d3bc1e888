"""temaki, with the strategy of the options."""

from __future__ import annotations

from typing import Any

from pony.orm import PrimaryKey, Required, db_session

from benchmarks.side_by_side.systems.system import Config
from temaki import Database


class Temaki:
    """Pony's sessions."""

    def __init__(self, config: Config) -> None:
        db = Database()

        class Item(db.Entity):  # type: ignore[name-defined]
            _table_ = "item"
            id = PrimaryKey(int)
            name = Required(str)
            count = Required(int)

        options = dict(config["options"])
        strategy = options.pop("strategy")
        hold: dict[str, Any] = {"hold": float(options["hold"])} if "hold" in options else {}
        db.bind_s3(f"s3://{config['bucket']}/{config['key']}", strategy=strategy, **hold)
        db.generate_mapping(check_tables=False)
        self._Item: Any = Item
        self._waits = strategy == "lease-locked"

    @db_session
    def read(self) -> tuple[str, int]:
        """One session."""
        item = self._Item[1]
        return item.name, item.count

    def commit(self, rows: int, name: str) -> None:
        """One session."""
        with db_session(immediate=self._waits):
            for item in self._Item.select(lambda item: item.id > 1 and item.id <= rows + 1):
                item.name = name

    def increment(self) -> int:
        """One session; run again after a conflict, as the README has it."""

        @db_session(retry=10_000, immediate=self._waits)
        def add() -> int:
            item = self._Item[1]
            item.count += 1
            count: int = item.count
            return count

        counted: int = add()
        return counted


make = Temaki
