"""`replica.generation`: acknowledged state is the main file and the WAL up to the mark, whoever else is reading."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from temaki.errors import CorruptDatabaseError, WorkingCopyError
from temaki.replica.generation import Generation
from temaki.replica.wal import Scan
from tests.versions import URL, begin, connect, read, save, version, write


@pytest.fixture
def generation(tmp_path: Path) -> Iterator[Generation]:
    """Version 1, of value 10."""
    generation = Generation(save(tmp_path / "1.sqlite", 10), version(1), URL)
    yield generation
    if generation.path.exists():
        generation.dispose()


def value_in(path: Path, data: bytes) -> int:
    """What a database in these bytes has; it must be whole."""
    path.write_bytes(data)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return read(connection)


def uploaded(generation: Generation, found: Scan, sequence: int, tmp_path: Path) -> int:
    """The value that an upload would have."""
    return value_in(tmp_path / "upload.sqlite", generation.image(found, sequence).read())


def test_nothing_beyond_the_mark_is_nothing_to_store(generation: Generation) -> None:
    """Reading, a rollback and a write transaction without a change give no pages."""
    connection = connect(generation)
    connection.pin()
    assert read(connection) == 10
    begin(connection)
    connection.cursor().execute("UPDATE t SET value = 11")
    connection.end_transaction()
    begin(connection)
    connection.commit_locally()
    assert generation.uncommitted_to_store(connection).pages == {}


def test_image_is_what_was_committed(generation: Generation, tmp_path: Path) -> None:
    """While the main file still is what was acknowledged."""
    connection = connect(generation)
    before = generation.path.read_bytes()
    write(connection, 11)
    found = generation.uncommitted_to_store(connection)
    assert uploaded(generation, found, 2, tmp_path) == 11
    assert generation.path.read_bytes() == before


def test_closing_connections_checkpoint_nothing(generation: Generation) -> None:
    """The last connection to close would: the guard is never that one, as long as the generation lives."""
    before = generation.path.read_bytes()
    for value in (11, 12):
        connection = connect(generation, busy=False)
        write(connection, value)
        connection.close()
    assert generation.path.read_bytes() == before
    generation.close_idle()
    assert generation.path.read_bytes() == before


def test_large_commit_checkpoints_nothing(generation: Generation) -> None:
    """SQLite's own limit is 1,000 pages; temaki's connections have none."""
    connection = connect(generation)
    before = generation.path.read_bytes()
    begin(connection)
    connection.cursor().execute("UPDATE t SET value = zeroblob(6000000)")
    connection.commit_locally()
    assert len(generation.uncommitted_to_store(connection).pages) > 1000
    assert generation.path.read_bytes() == before


def test_disposal_writes_nothing(generation: Generation, tmp_path: Path) -> None:
    """The unacknowledged goes with the file, whose name is gone before the guard could checkpoint into it."""
    (tmp_path / "link").hardlink_to(generation.path)
    before = generation.path.read_bytes()
    write(connect(generation, busy=False), 11)
    generation.dispose()
    assert not list(tmp_path.glob("1.sqlite*"))
    assert (tmp_path / "link").read_bytes() == before


def test_acknowledged_commit_is_checkpointed(generation: Generation, tmp_path: Path) -> None:
    """The main file has all of it, it counts as complete, and the next upload begins there."""
    connection = connect(generation)
    for number in range(2, 6):
        write(connection, 10 * number)
        found = generation.uncommitted_to_store(connection)
        assert uploaded(generation, found, number, tmp_path) == 10 * number
        generation.acknowledge(found, version(number))
        assert (generation.version, generation.complete) == (version(number), True)
        assert generation.uncommitted_to_store(connection).pages == {}
        assert value_in(tmp_path / "main.sqlite", generation.path.read_bytes()) == 10 * number


def test_pinned_reader_delays_the_checkpoint_and_nothing_else(generation: Generation, tmp_path: Path) -> None:
    """Uploads are right, only what is new counts as changed, and the file is complete once the reader has left."""
    reader, writer = connect(generation), connect(generation)
    reader.pin()
    begin(writer)
    writer.cursor().execute("CREATE TABLE more AS SELECT zeroblob(20000) AS x")
    writer.commit_locally()
    generation.acknowledge(generation.uncommitted_to_store(writer), version(2))
    for number in range(3, 6):
        write(writer, 10 * number)
        found = generation.uncommitted_to_store(writer)
        assert len(found.pages) == 1
        assert uploaded(generation, found, number, tmp_path) == 10 * number
        generation.acknowledge(found, version(number))
        assert (generation.complete, generation.uncommitted_to_store(writer).pages) == (False, {})
        assert read(reader) == 10
    reader.end_transaction()
    write(writer, 60)
    found = generation.uncommitted_to_store(writer)
    assert uploaded(generation, found, 6, tmp_path) == 60
    generation.acknowledge(found, version(6))
    assert generation.complete
    assert value_in(tmp_path / "main.sqlite", generation.path.read_bytes()) == 60


def test_wal_starts_over(generation: Generation, tmp_path: Path) -> None:
    """Once all is checkpointed SQLite writes from the WAL's start: pages of its last run are not mixed in."""
    connection = connect(generation)
    begin(connection)
    connection.cursor().execute("CREATE TABLE more AS SELECT value, zeroblob(20000) AS x FROM t")
    connection.commit_locally()
    generation.acknowledge(generation.uncommitted_to_store(connection), version(2))
    size = Path(f"{generation.path}-wal").stat().st_size
    write(connection, 30)
    found = generation.uncommitted_to_store(connection)
    assert found.restarted
    assert len(found.pages) == 1
    assert Path(f"{generation.path}-wal").stat().st_size == size
    assert uploaded(generation, found, 3, tmp_path) == 30
    generation.acknowledge(found, version(3))
    write(connection, 40)
    assert uploaded(generation, generation.uncommitted_to_store(connection), 4, tmp_path) == 40


def test_foreign_damage_is_not_uploaded(generation: Generation) -> None:
    """A WAL that something else has truncated is an error that says so, and that nothing was stored."""
    reader, writer = connect(generation), connect(generation)
    reader.pin()
    write(writer, 20)
    generation.acknowledge(generation.uncommitted_to_store(writer), version(2))
    with open(f"{generation.path}-wal", "r+b") as wal:
        wal.truncate(40)
    with pytest.raises(WorkingCopyError, match=rf"damaged the working copy of {URL} in .*Nothing was stored"):
        generation.uncommitted_to_store(writer)


def test_commit_that_went_elsewhere(generation: Generation, tmp_path: Path) -> None:
    """A connection that opened other files under the same names has committed, and nothing of it is here: an error."""
    generation.path.rename(tmp_path / "away")
    Path(f"{generation.path}-wal").rename(tmp_path / "away-wal")
    save(generation.path, 10)
    connection = connect(generation)
    write(connection, 11)
    with pytest.raises(WorkingCopyError, match=r"1 frames in the WAL .* not 0"):
        generation.uncommitted_to_store(connection)
    connection.close()


def test_wal_index_has_no_name(generation: Generation) -> None:
    """Who truncates a file that SQLite maps into memory ends the process by SIGBUS; nobody can, without a name."""
    connect(generation).pin()
    assert not list(generation.path.parent.glob("*-shm"))


def test_truncated_main_file_is_not_uploaded(generation: Generation) -> None:
    """Nor are zeros in place of what is missing."""
    connection = connect(generation)
    begin(connection)
    connection.cursor().execute("CREATE TABLE more AS SELECT zeroblob(40000) AS x")
    connection.commit_locally()
    generation.acknowledge(generation.uncommitted_to_store(connection), version(2))
    write(connection, 30)
    found = generation.uncommitted_to_store(connection)
    with open(generation.path, "r+b") as file:
        file.truncate(8192)
    with pytest.raises(WorkingCopyError, match="Nothing was stored"):
        generation.image(found, 3)


def test_garbage_leaves_no_descriptor_open(tmp_path: Path) -> None:
    """A file that SQLite refuses is closed again, by all of its descriptors."""
    path = save(tmp_path / "1.sqlite", 10)
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"\xff" * (len(data) - 100))
    with pytest.raises(CorruptDatabaseError, match=URL):
        Generation(path, version(1), URL)
    descriptors = Path("/proc/self/fd")
    if descriptors.is_dir():
        assert not any(str(path) in str(entry.readlink()) for entry in descriptors.iterdir() if entry.is_symlink())


def test_new_database_is_in_wal_mode(tmp_path: Path) -> None:
    """A generation for a database that has yet to be created makes its file, private to the user."""
    generation = Generation(tmp_path / "1.sqlite", None, URL)
    connection = connect(generation)
    assert connection.cursor().execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert generation.path.stat().st_mode & 0o777 == 0o600
    assert generation.uncommitted_to_store(connection).pages == {}
    begin(connection)
    connection.cursor().execute("CREATE TABLE t AS SELECT 5 AS value")
    connection.commit_locally()
    assert uploaded(generation, generation.uncommitted_to_store(connection), 1, tmp_path) == 5
    connection.close()
    generation.dispose()
