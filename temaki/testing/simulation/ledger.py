"""A bucket that remembers all that was ever stored, and checks each change of it at once.

The clients' histories show what clients saw. The ledger shows what the store has, whoever is looking:

* whatever is stored is a sound database, by a reader that shares nothing with temaki's;
* nothing that the current head names is ever missing, or is condemned;
* a version with the id of the one that it replaces has the same content: maintenance changes nothing;
* a commit lands once, on the version whose content it has read;
* a name is used for one content only, and no object is deleted before a head has condemned it for long enough.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from temaki.store import ReadableBody
from temaki.stores.memory import MemoryStore
from temaki.stores.rules import read_body
from temaki.testing.histories import Operation, Outcome, Value
from temaki.testing.simulation.network import FOLDER, KEY
from temaki.testing.simulation.scheduler import Scheduler, Violation
from temaki.testing.simulation.stored import DamageError, digest_of, manifest_of, materialised, names_of, value_of

_COMMIT: Final = "temaki-commit"
_START: Final = 1_750_000_000.0


@dataclass(frozen=True, slots=True)
class Landing:
    """A version that was stored, or was stored anew by maintenance.

    Attributes:
        tick: Time of the event, as in a history.
        moment: The store's time, in seconds.
        commit: Id of the commit; for a file of another tool, its ETag.
        data: The object's bytes.
        metadata: The object's metadata.
        value: What the clients have written to it.
        digest: Fingerprint of the whole database.
    """

    tick: int
    moment: float
    commit: str
    data: bytes
    metadata: Mapping[str, str]
    value: Value
    digest: str


class _Clock:
    """The store's clock, which shows the schedule's time."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def monotonic(self) -> float:
        return self._scheduler.now

    def time(self) -> float:
        return _START + self._scheduler.now

    def sleep(self, seconds: float) -> None:
        raise AssertionError(f"a store does not sleep, as for {seconds} s")


class Bucket(MemoryStore):
    """A bucket with a ledger."""

    def __init__(self, scheduler: Scheduler, *, grace: int) -> None:
        super().__init__("simulation", clock=_Clock(scheduler))
        self.ledger = Ledger(self, scheduler, grace)

    def put(
        self,
        key: str,
        body: bytes | ReadableBody,
        *,
        metadata: Mapping[str, str] | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> str:
        """See :meth:`temaki.store.Store.put`."""
        data = read_body(body)
        etag = super().put(key, data, metadata=metadata, if_match=if_match, if_none_match=if_none_match)
        self.ledger.stored(key, data, dict(metadata or {}), etag)
        return etag

    def delete(self, key: str) -> None:
        """See :meth:`temaki.store.Store.delete`."""
        super().delete(key)
        self.ledger.deleted(key)

    def object(self, name: str) -> bytes:
        """The bytes of an object beside the head. Raises ``KeyError`` if it is not there."""
        return self._objects[FOLDER + name].data


class Ledger:
    """What was ever stored in a bucket.

    Args:
        bucket: The bucket.
        scheduler: Gets the violations, and counts events.
        grace: Seconds between an object's condemnation and its deletion.

    Attributes:
        landings: All versions, in order.
        kept: All objects that were ever beside the head, by name: a bucket with versioning keeps them.
        is_erased: True if somebody has brought back an older version. Then a commit that was acknowledged may be lost.
        is_put_back: True if somebody did so with the old bytes. Then a refused commit may land all the same.
    """

    def __init__(self, bucket: Bucket, scheduler: Scheduler, grace: int) -> None:
        self._bucket, self._scheduler, self._grace = bucket, scheduler, grace
        self.landings: list[Landing] = []
        self.kept: dict[str, bytes] = {}
        self.is_erased = self.is_put_back = False
        self._is_outside = False
        self._condemned: dict[str, int] = {}
        self._announced: dict[str, str] = {}
        self._commits: set[str] = set()
        self._digests: set[str] = set()

    # -- what others tell it --------------------------------------------------------------------------------------

    def announce(self, commit: str, digest: str) -> None:
        """A commit that is no client's write: it brings this content, whatever it replaces."""
        self._announced[commit] = digest

    @contextmanager
    def outside(self) -> Iterator[None]:
        """What is stored in here is another tool's: no rule holds but that it is a database."""
        self._is_outside = True
        try:
            yield
        finally:
            self._is_outside = False

    def has_seen(self, file: bytes) -> bool:
        """Whether a database file has the content of some version that was stored."""
        return digest_of(file) in self._digests

    def can_be_put_back(self, landing: Landing) -> bool:
        """Whether an older head can be put back from outside: all its objects are there, and will be for a while."""
        manifest = manifest_of(landing.data)
        if manifest is None:
            return False
        young = self._scheduler.now - landing.moment < self._grace
        return young and all(FOLDER + name in self._bucket._objects for name in names_of(manifest))  # noqa: SLF001

    # -- each change ----------------------------------------------------------------------------------------------

    def stored(self, key: str, data: bytes, metadata: Mapping[str, str], etag: str) -> None:
        """An object was stored."""
        if key == KEY:
            self._landed(data, metadata, etag)
        elif key.startswith(FOLDER):
            name = key.removeprefix(FOLDER)
            if self.kept.setdefault(name, data) != data:
                self._violation(f"{name} is used twice")

    def deleted(self, key: str) -> None:
        """An object was deleted."""
        name = key.removeprefix(FOLDER)
        now = int(_START + self._scheduler.now)
        manifest = manifest_of(self.landings[-1].data) if self.landings else None
        if manifest is not None and name in names_of(manifest):
            self._violation(f"{name} is deleted, and the head names it")
        elif name not in self._condemned:
            self._violation(f"{name} is deleted, and was never condemned")
        elif now - self._condemned[name] < self._grace:
            self._violation(f"{name} is deleted {now - self._condemned[name]} s after it was condemned")

    def _landed(self, data: bytes, metadata: Mapping[str, str], etag: str) -> None:
        commit = metadata.get(_COMMIT, f"a file with the ETag {etag}")
        before = self.landings[-1] if self.landings else None
        try:
            file = materialised(data, self._bucket.object)
        except DamageError as error:
            self._violation(f"{commit} is stored, and cannot be read: {error}")
            return
        landing = Landing(
            self._scheduler.tick(),
            self._scheduler.now,
            commit,
            data,
            metadata,
            value_of(file) if before is None or commit != before.commit else before.value,
            digest_of(file),
        )
        self.landings.append(landing)
        manifest = manifest_of(data)
        if manifest is not None:
            self._check_names(commit, manifest)
        if not self._is_outside:
            self._check_content(before, landing)
        self._commits.add(commit)
        self._digests.add(landing.digest)

    def _check_names(self, commit: str, manifest: Mapping[str, Any]) -> None:
        named = names_of(dict(manifest))
        missing = next((name for name in named if FOLDER + name not in self._bucket._objects), None)  # noqa: SLF001
        if missing is not None:
            self._violation(f"{commit} names {missing}, which is not there")
            return
        marks = list(manifest["condemned"])
        for name in manifest["gone"]:
            listed = json.loads(self._bucket.object(name).split(b"\n", 1)[1])
            marks += listed
            self._condemned[name] = max(since for _, since in listed)  # it goes with the last one
        both = named & {name for name, _ in marks}
        if both:
            self._violation(f"{commit} names and condemns {min(both)}")
        for name, since in marks:
            self._condemned[name] = min(since, self._condemned.get(name, since))

    def _check_content(self, before: Landing | None, now: Landing) -> None:
        if before is None:
            return
        if now.commit == before.commit:
            if now.digest != before.digest:
                self._violation(f"maintenance has changed the content of {now.commit}")
        elif now.commit in self._commits and not self.is_put_back:
            self._violation(f"{now.commit} landed twice")
        elif now.commit in self._announced:
            if now.digest != self._announced[now.commit]:
                self._violation(f"{now.commit} is not the version that was to be stored again")
        elif now.value[:-1] != before.value:
            self._violation(f"{now.commit} has {now.value}, and is built on another version than {before.value}")

    def _violation(self, text: str) -> None:
        self._scheduler.fail(Violation(text))

    # -- in the end -----------------------------------------------------------------------------------------------

    def judge(self, history: Sequence[Operation]) -> None:
        """Compare what clients saw with what was stored. It holds also where an older version was brought back.

        Raises:
            Violation: A client read what was never stored, or less than what it had to see; an acknowledged commit
                never landed; or a refused one did.
        """
        places = self._places()
        ended: list[int] = []
        floors: list[int] = []
        last = float("inf")
        for one in sorted(history, key=lambda one: last if one.ended is None else one.ended):
            place = self._place(one, places, ended, floors)
            is_open = one.writes and one.outcome is Outcome.UNKNOWN
            if place is not None and one.ended is not None and not is_open and not self.is_put_back:
                ended.append(one.ended)
                floors.append(max(place, floors[-1] if floors else -1))

    def _places(self) -> dict[str, int]:
        places: dict[str, int] = {}
        before: Value = ()
        for index, landing in enumerate(self.landings):
            if landing.value and landing.value[:-1] == before and landing.commit not in self._announced:
                places.setdefault(landing.value[-1], index)
            before = landing.value
        return places

    def _place(
        self, one: Operation, places: Mapping[str, int], ended: Sequence[int], floors: Sequence[int]
    ) -> int | None:
        """The number of the version that an operation has stored or read; None if it did neither."""
        own = places.get(one.name) if one.writes else None
        if own is None and one.writes and one.outcome is Outcome.OK:
            raise Violation(f"{one.name} was acknowledged, and never landed")
        if own is not None and one.outcome is Outcome.REFUSED and not self.is_put_back:
            raise Violation(f"{one.name} was refused, and landed")
        since = one.began if own is not None or one.fresh_from is None else one.fresh_from
        at = bisect_right(ended, since)
        floor = floors[at - 1] if at else -1
        if own is not None:
            if own < floor:
                raise Violation(f"{one.name} landed as version {own}, and version {floor} was seen before it began")
            return own
        if not one.reads:
            return None
        floor = max(floor, places.get(one.follows or "", -1))
        if not one.reads[0] and floor < 0:
            return -1
        for index in range(max(floor, 0), len(self.landings)):
            landing = self.landings[index]
            if landing.value == one.reads[0] and (one.ended is None or landing.tick < one.ended):
                return index
        raise Violation(f"{one.name} read {one.reads[0]}, which was not stored from version {floor} on")
