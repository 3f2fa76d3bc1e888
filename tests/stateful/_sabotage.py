"""The mechanisms that keep the promises, and for each a patch that switches it off.

Also a pytest plugin: with ``-p tests.stateful._sabotage`` and ``TEMAKI_SABOTAGE=<name>`` the tests run without it.
"""

from __future__ import annotations

import inspect
import itertools
import os
import textwrap
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NoReturn
from unittest import mock

from temaki.engine.commit import Commit
from temaki.engine.engine import Engine, session_of
from temaki.engine.flights import Flights
from temaki.engine.pull import Puller
from temaki.engine.session import EngineSession
from temaki.errors import PreconditionFailedError
from temaki.formats import file
from temaki.formats.pages import checksum, claim, compact, compose, gone, maintain, pull, segment, upkeep
from temaki.formats.pages.claim import Claim
from temaki.formats.pages.compose import Uploads
from temaki.formats.pages.head import Head
from temaki.formats.pages.manifest import decode, encode
from temaki.formats.pages.names import folder, key_of
from temaki.formats.pages.whole import Whole
from temaki.orm.seed.ledger import Ledger
from temaki.orm.starting import Start
from temaki.remote import publish, transfer
from temaki.remote.publish import Publication
from temaki.remote.swap import Proof, RefusedError, Swap
from temaki.replica import generation
from temaki.replica.connection import Connection
from temaki.replica.folder import Folder
from temaki.replica.generation import Generation
from temaki.replica.image import Image
from temaki.replica.replica import Replica
from temaki.replica.writer import WriterLock
from temaki.store import ObjectInfo
from temaki.stores.memory import MemoryStore
from temaki.testing.simulation import caretaker
from temaki.testing.simulation.limits import GRACE
from temaki.version import FORMAT_KEY, PAGES_FORMAT, Published, read_version

Patches = list[Any]
_put = MemoryStore.put


def _conditions_dropped(*names: str, lease: bool = False) -> Patches:
    """A store that ignores some conditions; on the database, or on the lease's record."""

    def put(self: MemoryStore, key: str, body: Any, **more: Any) -> str:
        if key.endswith(".lease") is lease:
            for name in names:
                more.pop(name, None)
        return _put(self, key, body, **more)

    return [mock.patch.object(MemoryStore, "put", put)]


def _rewritten(function: Callable[..., Any], *changes: tuple[str, str]) -> Callable[..., Any]:
    """A function with other words in it."""
    text = textwrap.dedent(inspect.getsource(function))
    for old, new in changes:
        assert old in text, f"{function.__qualname__} has changed, and the sabotage has to follow it: {old}"
        text = text.replace(old, new)
    names: dict[str, Any] = {}
    exec(text, function.__globals__, names)
    changed: Callable[..., Any] = names[function.__name__]
    return changed


class _Anything(int):
    """A number that equals every other one."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


def _off(owner: Any, name: str, result: Any = None) -> Patches:
    return [mock.patch.object(owner, name, return_value=result)]


def _no_check_after_begin() -> Patches:
    def check_current(self: Engine, connection: Connection) -> None:
        session_of(connection).writing = True

    return [mock.patch.object(Engine, "check_current", check_current)]


def _no_check_at_commit() -> Patches:
    publish_changes = Commit._publish

    def unchecked(self: Commit, *args: Any) -> Published:
        with mock.patch.object(self._replica, "is_current", return_value=True):
            return publish_changes(self, *args)

    return [mock.patch.object(Commit, "_publish", unchecked)]


def _every_refusal_final() -> Patches:
    """A refusal is a conflict, whatever the object is by now."""

    def after(self: Swap[Any], refusal: PreconditionFailedError) -> NoReturn:
        self._in_doubt = False
        raise RefusedError(None) from refusal

    return [mock.patch.object(Swap, "_after", after)]


def _head_alone() -> Patches:
    """A refusal is compared with the current version only, not with those before it."""

    def proves(self: Publication, info: ObjectInfo) -> Proof:
        current = publish._as_version(info)
        if current is not None and current.commit == self._version.commit:
            return Proof.OURS
        return Proof.UNCHANGED if self._base is not None and current == self._base else Proof.DISPROVED

    return [mock.patch.object(Publication, "_proves", proves)]


def _unlocked_acknowledgement() -> Patches:
    publish_changes = Commit._publish

    def unlocked(self: Commit, *args: Any) -> Published:
        self._replica.files.release()
        self._replica.committing.release()
        try:
            return publish_changes(self, *args)
        finally:
            self._replica.committing.acquire()
            self._replica.files.acquire()

    return [mock.patch.object(Commit, "_publish", unlocked)]


def _unlocked_pin() -> Patches:
    def pin(self: Engine, connection: Connection) -> bool:
        generation = session_of(connection).generation
        if generation is None or generation.abandoned:
            return False
        connection.pin()
        return True

    return [mock.patch.object(Engine, "pin", pin)]


def _short_bodies() -> Patches:
    def copy(download: Any, target: Any, start: int, stop: int, _stopped: object = None) -> None:
        while start < stop and (data := download.read(stop - start)):
            target.write(data, start)
            start += len(data)

    return [mock.patch.object(transfer, "copy", copy)]


def _no_guard() -> Patches:
    open_guard = Generation._open_guard

    def closed(self: Generation) -> Connection:
        guard = open_guard(self)
        guard.close()
        return guard

    return [mock.patch.object(Generation, "_open_guard", closed)]


def _never_known() -> Patches:
    return [mock.patch.object(Replica, "known", property(lambda _: False, lambda _, __: None), create=True)]


def _adopted_when_superseded() -> Patches:
    acknowledge = Commit._acknowledge

    def adopt(self: Commit, published: Published, *args: Any) -> None:
        acknowledge(self, replace(published, superseded=False), *args)

    return [mock.patch.object(Commit, "_acknowledge", adopt)]


def _mark_stays() -> Patches:
    acknowledge = Generation.acknowledge

    def keep(self: Generation, *args: Any) -> None:
        mark = self._mark
        acknowledge(self, *args)
        self._mark = mark

    return [mock.patch.object(Generation, "acknowledge", keep)]


def _no_second_count() -> Patches:
    class Agreeing(int):
        def __ne__(self, other: object) -> bool:
            return False

        __hash__ = int.__hash__

    return [mock.patch.object(Connection, "frames", return_value=Agreeing())]


def _always_recorded() -> Patches:
    def settle(self: Replica, generation: Generation) -> None:
        if generation.version is not None and generation is self.current:
            assert self._folder is not None
            self._folder.record(generation.path, generation.version.to_json())

    return [mock.patch.object(Replica, "settle", settle)]


def _late_joiners() -> Patches:
    def join(self: Flights) -> Any:
        with self._lock:
            if self._flying is not None:
                return self._flying
        return join_next(self)

    join_next = Flights._join_next
    return [mock.patch.object(Flights, "_join_next", join)]


def _automatic_checkpoints() -> Patches:
    run = Connection._run

    def other(self: Connection, sql: str) -> None:
        run(self, sql.replace("wal_autocheckpoint = 0", "wal_autocheckpoint = 1"))

    return [mock.patch.object(Connection, "_run", other)]


def _one_sequence() -> Patches:
    rewritten = Image._rewritten_header
    return [mock.patch.object(Image, "_rewritten_header", lambda self, _: rewritten(self, 1))]


def _fresh_when_answered() -> Patches:
    revalidate = Puller._pull_once

    def pull_once(self: Puller, *, conditional: bool) -> bool:
        before = self._validated
        done = revalidate(self, conditional=conditional)
        if self._validated is not before:
            self._validated = self.moment()
        return done

    return [mock.patch.object(Puller, "_pull_once", pull_once)]


def _same_generation_only() -> Patches:
    def is_still(self: Replica, generation: Generation | None, at: object) -> bool:
        return self.current is generation

    return [mock.patch.object(Replica, "_is_still", is_still)]


def _no_fence() -> Patches:
    publish_ = EngineSession.publish
    return [mock.patch.object(EngineSession, "publish", lambda self, **_: publish_(self))]


def _seeded_afterwards() -> Patches:
    create = Start._create_and_seed

    def create_then_seed(self: Start, **more: Any) -> None:
        create(Start(self.db, None), **more)
        if self.seeder is not None:
            self._seed_alone()

    return [mock.patch.object(Start, "_create_and_seed", create_then_seed)]


SIMULATED: Mapping[str, Callable[[], Patches]] = {
    "If-Match on upload": lambda: _conditions_dropped("if_match"),
    "If-None-Match on creation": lambda: _conditions_dropped("if_none_match"),
    "generation check after BEGIN IMMEDIATE": _no_check_after_begin,
    "both generation checks": lambda: _off(Replica, "is_current", True),
    "lineage": _head_alone,
    "same commit id": _every_refusal_final,
    "pin under the lock": _unlocked_pin,
    "snapshot pin": lambda: _off(Connection, "pin"),
    "lock held until acknowledged": _unlocked_acknowledgement,
    "discarding after a refusal": lambda: _off(Replica, "abandon"),
    "length of a body": _short_bodies,
    "header and size of a body": lambda: [
        mock.patch.object(file, "_checked_version", lambda info, _first, _url: read_version(info))
    ],
    "a database once known is not empty": _never_known,
    "guard connection": _no_guard,
    "writer lock": lambda: [*_off(WriterLock, "acquire"), *_off(WriterLock, "release")],
    "query_only outside of writes": lambda: _off(Connection, "forbid_writes"),
    "generations outlive their sessions": lambda: [
        mock.patch.object(Replica, "_leave_behind", lambda _, generation: generation.dispose())
    ],
    "recorded as clean only when complete": _always_recorded,
    "joining only requests that are yet to be sent": _late_joiners,
    "cursors closed with their transaction": lambda: _off(Connection, "end_cursors"),
}
"""Without these the simulation finds damage, within its normal budget."""

DEEP: Mapping[str, tuple[int, ...]] = {
    "snapshot pin": (483,),
    "lineage": (2732,),
    "recorded as clean only when complete": (2151,),
    "a database once known is not empty": (240,),
    "claim of a fold": (220,),
    "pin and proof of a fold": (328,),
}
"""Seeds to begin with, where the damage is rare: it saves a minute. When the schedules change, the search is from 0."""


def _uploads_kept() -> Patches:
    """A commit that is built anew names what it has uploaded before, whatever the collection number is."""

    def begin(self: Uploads, collection: int) -> None:
        self.collection = collection

    return [mock.patch.object(Uploads, "begin", begin)]


def _number_stays() -> Patches:
    make = maintain._Plan.head

    def head(self: maintain._Plan) -> Head:
        return replace(make(self), collection=self._now.head.collection)

    return [mock.patch.object(maintain._Plan, "head", head)]


def _no_grace() -> Patches:
    plan = maintain._Plan.__init__

    def init(self: maintain._Plan, source: Any, now: Any, listed: Any, _grace: int) -> None:
        plan(self, source, now, listed, 0)

    return [mock.patch.object(maintain._Plan, "__init__", init)]


def _by_upload_age() -> Patches:
    """What nobody names is deleted at once if it was uploaded long ago, instead of being condemned first."""
    collect = maintain.collect

    def other(source: Any, **more: Any) -> maintain.Collected:
        listed = list(source.store.list(folder(source.key)))
        now = claim.current(source)
        if now is not None:
            named = {key_of(source.key, name) for name in now.head.named}
            for info in listed:
                if info.key not in named and now.now - info.last_modified.timestamp() >= GRACE:
                    source.store.delete(info.key)
        return collect(source, **more)

    return [mock.patch.object(module, "collect", other) for module in (caretaker, compact, upkeep)]


def _collected_under_a_file() -> Patches:
    collect = maintain.collect

    def other(source: Any, **more: Any) -> maintain.Collected:
        if source.store.head(source.key).metadata.get(FORMAT_KEY) != PAGES_FORMAT:
            for info in list(source.store.list(folder(source.key))):
                source.store.delete(info.key)
        return collect(source, **more)

    return [mock.patch.object(module, "collect", other) for module in (caretaker, compact, upkeep)]


def _claim_not_named() -> Patches:
    def named(self: Head) -> frozenset[str]:
        return frozenset({self.base.name, *(segment.name for segment in self.segments), *self.gone})

    return [mock.patch.object(Head, "named", property(named))]


def _any_claim() -> Patches:
    """A fold or merge swaps the head, whoever has claimed it or replaced it meanwhile."""
    end = _rewritten(
        Claim.end,
        ("now is None or not _has(now.head, self.name)", "now is None"),
        (" if now.continues(self.head) else None", ""),
    )
    return [mock.patch.object(Claim, "end", end)]


def _checksum_of_catch_ups() -> Patches:
    return [mock.patch.object(pull, "plus", return_value=_Anything())]


def _since_stays() -> Patches:
    def reaches(self: Head, sequence: int, page_size: int) -> bool:
        return self.page_size == page_size and sequence <= self.sequence

    return [mock.patch.object(Head, "reaches", reaches), *_checksum_of_catch_ups()]


def _names_again() -> Patches:
    counter = itertools.count()

    def new_name(kind: str) -> str:
        return f"{kind}-{next(counter) % 6:030x}"

    return [mock.patch.object(module, "new_name", new_name) for module in (claim, compose, gone, maintain)]


def _unconditional_maintenance() -> Patches:
    swap = _rewritten(claim.swap, (", if_match=before.info.etag", ""))
    return [mock.patch.object(module, "swap", swap) for module in (claim, maintain)]


def _tail_dropped() -> Patches:
    """A fold takes the tail for a part of the new base, although commits have come in meanwhile."""
    condemn = claim.condemn

    def other(source: Any, head: Head, *args: Any) -> Head:
        return replace(condemn(source, head, *args), tail=())

    return [mock.patch.object(maintain, "condemn", other)]


def _no_pin_no_proof() -> Patches:
    """A fold reads the working copy while others write to it, and proves nothing."""
    return [*_no_proof(), *_off(Connection, "pin")]


def _no_proof() -> Patches:
    return _off(maintain, "_require")


def _found_is_adopted() -> Patches:
    """A commit that was found by a look is taken for what was sent."""
    acknowledge = Commit._acknowledge

    def adopted(self: Commit, published: Published, *more: Any) -> None:
        acknowledge(self, replace(published, found=False), *more)

    return [mock.patch.object(Commit, "_acknowledge", adopted)]


def _equal_heads() -> Patches:
    swap = _rewritten(claim.swap, ("edition=before.head.edition + 1", "edition=0"))
    return [mock.patch.object(module, "swap", swap) for module in (claim, maintain)]


def _old_base_again() -> Patches:
    """A restored version names the base that it replaces."""
    make = Whole._instead_of

    def instead_of(self: Whole, old: Head, ahead: float) -> bytes:
        head = decode(make(self, old, ahead))
        condemned = tuple(one for one in head.condemned if one.name != old.base.name)
        return encode(replace(head, base=replace(head.base, name=old.base.name), condemned=condemned))

    return [mock.patch.object(Whole, "_instead_of", instead_of)]


def _page_1_as_it_is() -> Patches:
    def as_it_is(number: int, page: bytes) -> bytes:
        return page

    return [mock.patch.object(module, "canonical", as_it_is) for module in (compose, pull, checksum)]


def _inflated_without_a_bound() -> Patches:
    def unpack(image: bytes, page_size: int) -> bytes:
        return zlib.decompress(image) if len(image) != page_size else image

    return [mock.patch.object(module, "unpack", unpack) for module in (pull, segment)]


PAGES: Mapping[str, Callable[[], Patches]] = {
    "collection number of a commit built anew": _uploads_kept,
    "collection number rises with orphans": _number_stays,
    "time of grace": _no_grace,
    "condemned before deleted": _by_upload_age,
    "no collection under a file": _collected_under_a_file,
    "claimed name as a named one": _claim_not_named,
    "claim of a fold": _any_claim,
    "reach of a catch-up": _since_stays,
    "names used once": _names_again,
    "If-Match of maintenance": _unconditional_maintenance,
    "tail beside a new base": _tail_dropped,
    "pin and proof of a fold": _no_pin_no_proof,
}
"""As ``SIMULATED``, for what keeps the format ``pages``: found where it takes part in every schedule."""

_CONFLICTS = "tests/integration/test_orm_conflicts.py"
NAMED: Mapping[str, tuple[Callable[[], Patches], str]] = {
    "generation check at commit": (
        _no_check_at_commit,
        f"{_CONFLICTS}::TestCheckAtCommit::test_newer_version_pulled_while_writing",
    ),
    "superseded versions are not adopted": (
        _adopted_when_superseded,
        f"{_CONFLICTS}::test_superseded_commit_is_not_built_on",
    ),
    "version at which a pull was asked": (
        _same_generation_only,
        "tests/unit/test_replica.py -k test_answer_older_than_this_process_s_own_commits_is_dropped",
    ),
    "clean record withdrawn before a commit": (
        lambda: _off(Folder, "forget"),
        "tests/unit/test_replica.py -k test_withdrawn_before_a_local_commit",
    ),
    "acknowledged mark": (
        _mark_stays,
        "tests/unit/test_generation.py -k test_acknowledged_commit_is_checkpointed",
    ),
    "names compared with descriptors": (
        lambda: _off(Generation, "is_intact", True),
        "tests/integration/test_vanishing.py -k test_between_sessions",
    ),
    "files compared with what was left": (
        lambda: _off(Generation, "require_intact"),
        "tests/integration/test_vanishing.py -k test_while_it_is_uploaded",
    ),
    "nothing is nothing by the connection's own word": (
        _no_second_count,
        "tests/unit/test_generation.py -k test_commit_that_went_elsewhere",
    ),
    "files unchanged while they are uploaded": (
        lambda: _off(Image, "_require_unchanged"),
        "tests/integration/test_vanishing.py -k test_while_it_is_uploaded",
    ),
    "no automatic checkpoints": (
        _automatic_checkpoints,
        "tests/unit/test_generation.py -k test_large_commit_checkpoints_nothing",
    ),
    "a base in the lineage as proof": (
        lambda: _off(Publication, "_disproved_by", True),
        "tests/unit/test_remote_publish.py -k test_lineage_too_short",
    ),
    "proof of a fold": (_no_proof, "tests/unit/test_compaction.py -k test_pages_that_are_not_the_version"),
    "checksum of a catch-up": (_checksum_of_catch_ups, "tests/unit/test_pages_format.py -k test_another_history"),
    "head of a commit that was found": (
        _found_is_adopted,
        "tests/unit/test_pages_format.py -k test_a_commit_that_a_look_has_found",
    ),
    "bytes of its own for each head": (_equal_heads, "tests/unit/test_pages_maintain.py -k test_no_etag_comes_back"),
    "new base for a restored version": (_old_base_again, "tests/unit/test_pages_whole.py"),
    "page 1 in its canonical form": (
        _page_1_as_it_is,
        "tests/unit/test_pages_cycle.py tests/unit/test_pages_format.py",
    ),
    "bound of an inflated page": (_inflated_without_a_bound, "tests/unit/test_pages_segment.py -k test_a_bomb"),
    "number of a schema": (
        lambda: [mock.patch.object(generation, "SCHEMA_COOKIE", slice(0, 0))],
        "tests/unit/test_pages_take_back.py -k test_another_schema",
    ),
    "sequence in the header": (_one_sequence, "tests/integration/test_bad_objects.py tests/unit/test_wal.py"),
    "age from when the request was sent": (
        _fresh_when_answered,
        "tests/unit/test_pull.py -k test_age_counts_from_when_the_request_was_sent",
    ),
    "compare-and-swap of the lease": (
        lambda: _conditions_dropped("if_match", "if_none_match", lease=True),
        "tests/stateful/test_lease_schedules.py -k test_at_most_one_holder_and_progress",
    ),
    "generation of the lease as a fence": (_no_fence, "tests/unit/test_lease_locked.py"),
    "rows in the transaction of their tables": (
        _seeded_afterwards,
        "tests/integration/test_seed.py -k test_tables_and_rows_are_one_upload",
    ),
    "fingerprint in the transaction of the rows": (
        lambda: _off(Ledger, "record"),
        "tests/integration/test_seed.py -k test_changed_rows_are_one_upload",
    ),
}
"""Without these a named test fails. The simulation does not find them, or not soon: another mechanism stands behind
them (mostly the swap), they save work only, or no schedule gets there (a lineage of 2 KB).
"""


@contextmanager
def sabotaged(name: str) -> Iterator[None]:
    """Without one mechanism."""
    make = {**SIMULATED, **PAGES}.get(name) or NAMED[name][0]
    with ExitStack() as stack:
        for patch in make():
            stack.enter_context(patch)
        yield


_whole_run = ExitStack()


def pytest_configure() -> None:
    """As a plugin: for the whole run."""
    name = os.environ.get("TEMAKI_SABOTAGE")
    if name:
        _whole_run.enter_context(sabotaged(name))
