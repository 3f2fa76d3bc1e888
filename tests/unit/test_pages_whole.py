"""`formats.pages.whole`: a database file as the next version, whatever maintenance and others do meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from temaki.cli.target import Target
from temaki.errors import ConflictError, StoreUnavailableError
from temaki.formats.choice import NAMES, by_number
from temaki.formats.pages.maintain import GRACE, collect, fold
from temaki.formats.pages.names import key_of, new_name
from temaki.stores.memory import MemoryStore
from temaki.testing.strategies import KEY, Client
from temaki.version import Published
from temaki_strategies import EtagCached
from tests.hooked import HookedStore
from tests.unit.test_pages_cycle import limits
from tests.unit.test_pages_maintain import Maintained


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Databases in pages, with segments after a few commits."""
    monkeypatch.setenv("TEMAKI_FORMAT", "pages")
    with limits(TAIL_LIMIT=12 << 10, TAIL_KEEP=3 << 10):
        yield


class Operator(Maintained):
    """A database with segments that processes use; and an operator who stores a file of his own in its place.

    Attributes:
        way: The operator's requests.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.clean()
        self.way = HookedStore(self.bucket, KEY)
        self.folder = folder
        (folder / "empty").mkdir()
        self.target = Target(f"file://{folder}/empty/{KEY}")
        self.target.store = self.way
        self.target.remote = self.target.remote_on(self.way)
        self.target.remote.probe_conditions()
        self.fetch()

    def fetch(self) -> None:
        """What is stored, as a file."""
        (self.folder / "copy.sqlite").unlink(missing_ok=True)
        self.copy = self.target.fetch(self.folder)

    def store(self, form: str = "pages") -> Published:
        """The file that was fetched, as the next version."""
        return self.target.publish(self.copy.path, self.copy.version, form=by_number(NAMES[form]), store=self.way)

    def bases(self) -> set[str]:
        """Those in the folder."""
        return {name for name in self.listed() if name.startswith("base-")}

    def fence(self) -> None:
        """A collector that finds what nothing names; what is uploaded and not named yet is among it."""
        assert collect(self.source, grace=0).condemned

    def require_whole(self) -> None:
        """It is still so when everything that is condemned has been deleted."""
        super().require_whole()
        for _ in range(2):
            self.clock.advance(GRACE + 1)
            collect(self.source)
        super().require_whole()
        head = self.head()
        assert self.listed() == head.named | {one.name for one in head.condemned}


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    """See there."""
    return Operator(tmp_path)


def before_the_swap(operator: Operator, what: Callable[[], object]) -> None:
    """It happens when the base is uploaded and the head is not sent."""
    operator.way.before["put"] = [what]


def test_everything_is_new(operator: Operator) -> None:
    """The new head names nothing of the old one, which is condemned in the same swap."""
    old = operator.head()
    published = operator.store()
    head = operator.head()
    assert (head.commit, head.sequence) == (published.version.commit, old.sequence + 1)
    assert (head.segments, head.tail, head.since) == ((), (), head.sequence)
    assert not head.named & old.named
    assert {one.name for one in head.condemned} == old.named
    operator.require_whole()


class TestMaintenanceComesInBetween:
    """It is no conflict. What was uploaded is used again where no collector can have taken it for garbage."""

    def test_a_fold(self, operator: Operator, tmp_path: Path) -> None:
        """The collection number is the same, and so is the uploaded base; the base of the fold is condemned."""
        folded = tmp_path / "folded"
        before = operator.bases()
        before_the_swap(operator, lambda: fold(operator.source, folded, force=True))
        operator.store()
        head = operator.head()
        assert head.collection == 0
        made = operator.bases() - before
        assert len(made) == 2, "the fold's and ours, uploaded once"
        assert head.base.name in made
        assert made - {head.base.name} <= {one.name for one in head.condemned}
        operator.require_whole()

    def test_before_the_upload(self, operator: Operator, tmp_path: Path) -> None:
        """While the file was fetched and checked, which may take minutes."""
        fold(operator.source, tmp_path / "folded", force=True)
        folded = operator.head().named
        before = operator.bases()
        operator.store()
        head = operator.head()
        assert operator.bases() - before == {head.base.name}, "uploaded once"
        assert folded <= {one.name for one in head.condemned}
        operator.require_whole()

    @pytest.mark.parametrize("is_late", [False, True])
    def test_on_the_way_to_a_file(self, operator: Operator, tmp_path: Path, *, is_late: bool) -> None:
        """A conversion to a file lands on a folded head too."""

        def folded() -> None:
            assert fold(operator.source, tmp_path / "folded", force=True) is not None

        if is_late:
            before_the_swap(operator, folded)
        else:
            folded()
        published = operator.store("file")
        assert operator.bucket.head(KEY).metadata["temaki-commit"] == published.version.commit
        assert operator.other.increment() == operator.ours.value() == 1

    def test_a_claim(self, operator: Operator, tmp_path: Path) -> None:
        """A fold that is under way finds another version at its end, and condemns what it has uploaded."""

        def overtaken() -> None:
            operator.late.before["put"] = []
            operator.store()

        late: list[Callable[[], object]] = [lambda: None, overtaken]  # the claim, and the fold's end
        operator.late.before["put"] = late
        before = operator.bases()
        assert fold(operator.source, tmp_path / "folded", force=True) is None
        head = operator.head()
        assert head.claim is None
        (theirs,) = operator.bases() - before - {head.base.name}
        assert theirs in {one.name for one in head.condemned}
        operator.require_whole()

    def test_a_fence(self, operator: Operator) -> None:
        """The collection number has risen: the base may be condemned, so it is uploaded again under a new name."""
        before = operator.bases()
        before_the_swap(operator, operator.fence)
        operator.store()
        head = operator.head()
        assert head.collection == 1
        made = operator.bases() - before
        assert len(made) == 2
        (first,) = made - {head.base.name}
        assert first in {one.name for one in head.condemned}, "the collector has condemned it, and that stays known"
        operator.require_whole()

    def test_fence_after_fence(self, operator: Operator) -> None:
        """As often as it takes."""
        before_the_swap(operator, operator.fence)
        operator.way.before["put"] += [operator.fence, operator.fence]
        operator.store()
        assert operator.head().collection == 3
        operator.require_whole()

    def test_collected_at_once(self, operator: Operator) -> None:
        """Whatever the grace was: the first base is deleted before the swap, and nothing names it."""

        def both() -> None:
            operator.fence()
            collect(operator.source, grace=0)

        before = operator.bases()
        before_the_swap(operator, both)
        operator.store()
        assert operator.head().base.name in operator.bases() - before
        operator.require_whole()


class TestReplies:
    """A swap whose reply is lost."""

    def lose(self, operator: Operator, then: Callable[[], object] = lambda: None) -> None:
        """The next one."""

        def lost() -> None:
            then()
            raise StoreUnavailableError("no reply", url=KEY, ambiguous=True)

        operator.way.after["put"] = [lost]

    def test_it_has_landed(self, operator: Operator) -> None:
        """It is found, and counts once."""
        sequence = operator.head().sequence
        self.lose(operator)
        published = operator.store()
        assert (operator.head().commit, operator.head().sequence) == (published.version.commit, sequence + 1)
        operator.require_whole()

    def test_and_was_folded(self, operator: Operator, tmp_path: Path) -> None:
        """In other bytes it is the same version."""
        sequence = operator.head().sequence
        self.lose(operator, lambda: fold(operator.source, tmp_path / "folded", force=True))
        published = operator.store()
        assert (operator.head().commit, operator.head().sequence) == (published.version.commit, sequence + 1)
        operator.require_whole()

    def test_and_was_built_on(self, operator: Operator) -> None:
        """Somebody has committed on it: it is stored, and no longer the newest."""
        sequence = operator.head().sequence
        self.lose(operator, operator.other.increment)
        published = operator.store()
        assert published.superseded
        assert operator.head().sequence == sequence + 2
        operator.require_whole()

    def test_it_has_not_landed(self, operator: Operator) -> None:
        """It is sent again, also when a collector has come in between."""

        def refused() -> None:
            raise StoreUnavailableError("no reply", url=KEY, ambiguous=True)

        operator.way.before["put"] = [refused, operator.fence]
        operator.store()
        assert operator.head().collection == 1
        operator.require_whole()


class TestConflict:
    """Another commit came first: nothing is stored, and what was uploaded is garbage that is collected."""

    @pytest.mark.parametrize("form", ["pages", "file"])
    def test_before_the_swap(self, operator: Operator, form: str) -> None:
        """Found by the swap, in both formats."""
        before_the_swap(operator, operator.other.increment)
        with pytest.raises(ConflictError):
            operator.store(form)
        assert operator.other.value() == 1
        operator.require_whole()

    def test_before_the_upload(self, operator: Operator) -> None:
        """Found before a byte of the base is sent."""
        operator.other.increment()
        listed = operator.listed()
        with pytest.raises(ConflictError):
            operator.store()
        assert operator.listed() == listed
        operator.require_whole()

    def test_after_maintenance(self, operator: Operator) -> None:
        """Both come in between: a conflict all the same."""
        before_the_swap(operator, operator.fence)
        operator.way.before["put"].append(operator.other.increment)
        with pytest.raises(ConflictError):
            operator.store()
        assert operator.other.value() == 1
        operator.require_whole()


class TestConversion:
    """From one format to the other."""

    def test_to_a_file_and_back(self, operator: Operator) -> None:
        """Under a file nothing is collected; what the head from before has left behind is garbage afterwards."""
        old = operator.head().named
        operator.store("file")
        assert collect(operator.source, grace=0).condemned == ()
        assert old <= operator.listed()
        operator.fetch()
        before_the_swap(operator, lambda: collect(operator.source, grace=0))
        operator.store("pages")
        assert not operator.head().named & old
        operator.require_whole()

    def test_an_orphan_of_before(self, operator: Operator) -> None:
        """What a refused commit has left under the first head is condemned behind a fence, like any other."""
        orphan = new_name("seg")
        operator.bucket.put(key_of(KEY, orphan), b"of a refused commit")
        operator.store("file")
        operator.fetch()
        operator.store("pages")
        assert orphan in collect(operator.source).condemned
        assert operator.head().collection == 1
        operator.require_whole()

    def test_a_fence_of_another_life(self, operator: Operator) -> None:
        """The collection number begins anew behind a file: a commit on the first head cannot land on the new one."""
        operator.put(replace(operator.head(), collection=5))
        operator.fetch()
        operator.store("file")
        operator.fetch()
        operator.store("pages")
        assert operator.head().collection == 0
        operator.require_whole()


def test_the_first_version(tmp_path: Path) -> None:
    """In an empty bucket it creates the database, once: whoever comes second is refused, and names nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEMAKI_FORMAT", "pages")
        operator = Operator(tmp_path)
    empty = MemoryStore(clock=operator.clock)
    operator.target.store = operator.way = HookedStore(empty, KEY)
    first = by_number(NAMES["pages"])
    operator.target.publish(operator.copy.path, None, form=first, store=operator.way)
    with pytest.raises(ConflictError):
        operator.target.publish(operator.copy.path, None, form=first, store=operator.way)
    assert Client(empty, EtagCached()).map().increment() == 1
