"""What befalls a stored database beside its clients: the commands of an operator, and other tools.

The operator's commands run the real code, in a process of its own that meets the same faults as all others. What other
tools do happens in one step: no temaki can take part in it.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from temaki.errors import CorruptDatabaseError, NotFoundError, StoreError, SyncError
from temaki.formats.choice import by_number, format_for, open_stored
from temaki.formats.format import Format, WholeTask
from temaki.formats.pages.compact import compact
from temaki.formats.pages.maintain import collect
from temaki.remote.remote import Remote, new_commit
from temaki.replica.image import Image
from temaki.stores.memory import MemoryStore
from temaki.testing.histories import Operation, Outcome
from temaki.testing.simulation.ledger import Bucket, Landing
from temaki.testing.simulation.network import KEY
from temaki.testing.simulation.scheduler import Crash, Violation
from temaki.testing.simulation.stored import digest_of, materialised
from temaki.version import FILE_FORMAT, PAGES_FORMAT, Published, Version

if TYPE_CHECKING:
    from temaki.store import Download, Store
    from temaki.testing.simulation.roles import Actor, Stage

OPERATOR: Final[tuple[str, dict[str, Any]]] = ("operator", {})
COMMANDS: Final = ("compact", "collect", "compact", "convert", "convert back")
ERASING: Final = ("restore", "put back")


def publish_file(  # noqa: PLR0917 - as the commands call it
    remote: Remote, path: Path, base: Version | None, form: Format, commit: str, number: int
) -> Published:
    """Store a SQLite file as the next version, as the commands do."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        image = Image.of_file(descriptor, number)
        body = form.store_whole(WholeTask(image, base, commit, number, remote.source))
        return remote.publish(
            body.content,
            body.size,
            base,
            sequence=number,
            commit_id=commit,
            metadata=body.metadata,
            written_as=form.number,
            rebuild=body.rebuild,
        )
    finally:
        os.close(descriptor)


class Caretaker:
    """The program of the operator, over all incarnations of its process.

    Args:
        world: The schedule.
        bucket: Its bucket.
        number: Number of the process.
        commands: How many commands are run.
        erases: Whether some of them bring back older versions.
        meddles: Whether other tools write to the bucket.
    """

    thread = 0
    strategy: tuple[str, dict[str, Any]] = OPERATOR

    def __init__(
        self, world: Stage, bucket: Bucket, number: int, *, commands: int, erases: bool, meddles: bool
    ) -> None:
        self.world, self.bucket, self.number = world, bucket, number
        self._left, self._erases, self._meddles = commands, erases, meddles
        self.done = not commands
        self._names = 0

    def run(self, process: Actor) -> None:
        """Run the commands that are left."""
        choices = self.world.choices
        kinds = (*COMMANDS, *(ERASING * 2 if self._erases else ()), *(("overwrite",) * 2 if self._meddles else ()))
        while self._left:
            self._left -= 1
            process.pause(choices.pick((0.5, 0.1, 1.0, 3.0)))
            kind = choices.pick(kinds)
            self.world.log(process.name, kind)
            try:
                getattr(self, f"_{kind.replace(' ', '_')}")(process)
            except (StoreError, SyncError) as error:
                self._failed(process, error)
        self.done = True
        self.world.wake_director()

    def finish(self, process: Actor) -> None:
        """Once all faults are over, a compaction works."""
        for _ in range(2):
            try:
                self._compact(process)
            except NotFoundError:
                return  # nobody has made a database
            process.pause(1.0)

    def _failed(self, process: Actor, error: StoreError | SyncError) -> None:
        self.world.log(process.name, error)
        if process.dead:
            raise Crash from error
        if isinstance(error, CorruptDatabaseError) and not process.met_bad_answer:
            raise Violation(f"{process.name} meets {type(error).__name__}: {error}") from error

    # -- commands -------------------------------------------------------------------------------------------------

    def _compact(self, process: Actor) -> None:
        done = compact(process.shared.remote.source, self._scratch(process))
        if done is not None:
            self.world.log(
                process.name,
                "has compacted:" + " folded" * done.folded + " merged" * bool(done.merged) + " busy" * done.busy,
                f"deleted {len(done.collected.deleted)}, condemned {len(done.collected.condemned)}",
            )

    def _collect(self, process: Actor) -> None:
        done = collect(process.shared.remote.source)
        self.world.log(process.name, f"has collected: {len(done.deleted)} deleted, {len(done.condemned)} condemned")

    def _convert(self, process: Actor) -> None:
        """To the other format."""
        remote, path = process.shared.remote, self._scratch(process)
        version = self._fetch(remote, path)
        form = by_number(PAGES_FORMAT if version.format == FILE_FORMAT else FILE_FORMAT)
        self._publish(process, path, version, form, version.sequence + 1)

    def _convert_back(self, process: Actor) -> None:
        """To pages, if it is a file."""
        info = process.shared.remote.source.store.head(KEY)
        if info.metadata.get("temaki-format") != PAGES_FORMAT:
            self._convert(process)

    def _restore(self, process: Actor) -> None:
        """An older version becomes the newest one, as a new version."""
        landing = self._older()
        remote, path = process.shared.remote, self._scratch(process)
        old = Remote(
            cast("Store", _OldVersion(process, self.bucket, landing)),  # it is only read
            KEY,
            url=remote.url,
            clock=process.shared.clock,
            timeout=self.world.timeout,
        )
        self._fetch(old, path)
        stored = remote.fetch(open_stored)
        assert stored is not None, "an unconditional GET has a body"
        with stored:
            base = stored.version
        number = max(base.sequence, *(number_of(one) for one in self.bucket.ledger.landings[-20:])) + 1
        self.bucket.ledger.is_erased = True
        self._publish(process, path, base, format_for(base, "pages"), number)

    def _publish(self, process: Actor, path: Path, base: Version, form: Format, number: int) -> None:
        commit = new_commit()
        self.bucket.ledger.announce(commit, digest_of(path.read_bytes()))
        try:
            publish_file(process.shared.remote, path, base, form, commit, number)
        finally:
            path.unlink(missing_ok=True)
        self.world.log(process.name, "has stored it as version", number)

    def _fetch(self, remote: Remote, path: Path) -> Version:
        stored = remote.fetch(open_stored)
        assert stored is not None, "an unconditional GET has a body"
        with stored:
            stored.save(path)
            return stored.version

    def _older(self) -> Landing:
        landings = self.bucket.ledger.landings[-12:]
        if not landings:
            raise NotFoundError(f"{KEY} was never stored.", url=KEY, status=404, code="NoSuchKey")
        return self.world.choices.pick(landings[::-1])

    def _scratch(self, process: Actor) -> Path:
        folder = self.world.next_folder()
        folder.mkdir()
        return folder / "copy.sqlite"

    # -- other tools ----------------------------------------------------------------------------------------------

    def _put_back(self, process: Actor) -> None:
        """Another tool puts the bytes of an older head in the place of the current one."""
        landing, ledger = self._older(), self.bucket.ledger
        if ledger.can_be_put_back(landing):
            ledger.is_erased = ledger.is_put_back = True
            self.world.log(process.name, "sees an older head put back, of", landing.commit)
            with ledger.outside():
                self.bucket.put(KEY, landing.data, metadata=landing.metadata)

    def _overwrite(self, process: Actor) -> None:
        """Another tool downloads the database, appends to it, and puts it over the head as a SQLite file."""
        world, ledger = self.world, self.bucket.ledger
        if not ledger.landings or not ledger.landings[-1].value:
            return
        before = ledger.landings[-1]
        self._names += 1
        name = f"x{self._names}"
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            connection.deserialize(materialised(before.data, self.bucket.object))
            connection.execute("INSERT INTO history (name) VALUES (?)", (name,))
            data = bytearray(connection.serialize())
        if world.choices.chance(0.5):  # a tool that counts on from what was there
            data[24:28] = data[92:96] = (number_of(before) + 1).to_bytes(4, "big")
        began = world.scheduler.tick()
        world.log(process.name, f"sees another tool append {name}, and put a plain file over", before.commit)
        self.bucket.put(KEY, bytes(data))
        world.history.append(
            Operation(name, "tool", began, world.scheduler.tick(), Outcome.OK, (before.value,), writes=True)
        )


def number_of(landing: Landing) -> int:
    """The number of a version that was stored."""
    number = landing.metadata.get("temaki-seq")
    return int.from_bytes(landing.data[24:28], "big") if number is None else int(number)


class _OldVersion:
    """A store in which the database is an older version, as the commands see it in a bucket that keeps versions."""

    honours_conditions = True

    def __init__(self, process: Actor, bucket: Bucket, landing: Landing) -> None:
        self._store, self._ledger, self.url = process.shared.store, bucket.ledger, bucket.url
        self._old = MemoryStore("kept")
        self._old.put(KEY, landing.data, metadata=landing.metadata)

    def get(
        self,
        key: str,
        *,
        if_none_match: str | None = None,
        if_match: str | None = None,
        byte_range: tuple[int, int] | None = None,
    ) -> Download | None:
        """See :meth:`temaki.store.Store.get`."""
        if key != KEY:
            try:
                return self._store.get(key, if_none_match=if_none_match, if_match=if_match, byte_range=byte_range)
            except NotFoundError:
                name = key.rpartition("/")[2]
                if name not in self._ledger.kept:
                    raise
                self._old.put(key, self._ledger.kept[name])
        return self._old.get(key, if_none_match=if_none_match, if_match=if_match, byte_range=byte_range)
