"""The network between the processes and the bucket that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from temaki.errors import NotFoundError, StoreError
from temaki.store import Download, ObjectInfo, ReadableBody
from temaki.stores.rules import read_body
from temaki.stores.wrapper import Verb
from temaki.testing.faulty import ONLY_WHEN_TOLD, Fault, FaultyStore
from temaki.testing.simulation.scheduler import Crash, running

if TYPE_CHECKING:
    from temaki.testing.simulation.roles import Actor

T = TypeVar("T")

KEY: Final = "app.sqlite"
FOLDER: Final = f"{KEY}.pages/"
_WAYS: Final = (0.0, 0.0, 0.0, 0.01, 0.1, 0.6)  # seconds that a request or an answer travels
_FAULTS: Final[dict[Verb, tuple[Fault, ...]]] = {
    "put": (Fault.LOST_REPLY, Fault.LATE_LANDING, Fault.CONFLICT_409, Fault.FAIL_BEFORE, Fault.REFUSED),
    "get": (Fault.TRUNCATED, Fault.LOST_REPLY, Fault.REFUSED),
    "head": (Fault.LOST_REPLY, Fault.REFUSED),
    "delete": (Fault.LOST_REPLY, Fault.LATE_LANDING, Fault.FAIL_BEFORE, Fault.REFUSED),
    "list": (Fault.LOST_REPLY, Fault.REFUSED),
}


class Wire:
    """The connection of a process to the bucket: a :class:`~temaki.store.Store`.

    Requests and answers take time, and may be lost. A request that was on its way when the process died may land
    afterwards.
    """

    honours_conditions = True

    def __init__(self, process: Actor) -> None:
        self._process = process
        self._world = process.world
        self._faulty = FaultyStore(process.world.bucket, seed=process.number)
        self.url = process.world.bucket.url

    @property
    def late(self) -> int:
        """Number of late requests that have not landed yet."""
        return self._faulty.late

    def land(self) -> int:
        """Let the late requests land now. Returns the number of those that had an effect."""
        return self._faulty.land_late()

    def get(
        self,
        key: str,
        *,
        if_none_match: str | None = None,
        if_match: str | None = None,
        byte_range: tuple[int, int] | None = None,
    ) -> Download | None:
        """See :meth:`temaki.store.Store.get`."""

        def request() -> Download | None:
            return self._faulty.get(key, if_none_match=if_none_match, if_match=if_match, byte_range=byte_range)

        download = self._request("get", key, request)
        if download is not None and key == KEY and self._world.choices.chance(self._world.hostile_rate):
            return self._bad_answer(download)
        return None if download is None else _SlowDownload(download, self._process)

    def _bad_answer(self, download: Download) -> Download:
        process, kind = self._process, self._world.choices.below(3)
        process.met_bad_answer = True
        if process.has_seen and (kind == 2 or process.shared.replica.current is None):
            self._world.log(process.name, "is told that there is nothing")
            url = f"{self.url}/{KEY}"
            raise NotFoundError(f"{url} does not exist.", url=url, status=404, code="NoSuchKey")
        self._world.log(process.name, "gets a body that is not all of it")
        return _BadDownload(download, kind == 1, process)

    def head(self, key: str) -> ObjectInfo:
        """See :meth:`temaki.store.Store.head`."""
        return self._request("head", key, lambda: self._faulty.head(key))

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
        process = self._process
        process.pause(self._way())
        data = read_body(body)  # these bytes have left the process: they may land even if it dies

        def request(store: Any = self._faulty) -> str:
            etag: str = store.put(key, data, metadata=metadata, if_match=if_match, if_none_match=if_none_match)
            return etag

        try:
            return self._request("put", key, request)
        except Crash:
            if process.sent and self._world.choices.chance(0.5):
                self._world.log(process.name, "is survived by its request")
                self._faulty.fail_next("put", Fault.LATE_LANDING, late_after=ONLY_WHEN_TOLD)
                with suppress(StoreError):
                    request()
            raise
        finally:
            process.sent = False

    def delete(self, key: str) -> None:
        """See :meth:`temaki.store.Store.delete`. Nothing but an object beside the head is ever deleted."""
        assert key.startswith(FOLDER), f"{key} is deleted"
        self._request("delete", key, lambda: self._faulty.delete(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See :meth:`temaki.store.Store.list`. Nothing but the objects beside the head is ever listed."""
        assert prefix == FOLDER, f"{prefix} is listed"
        return iter(self._request("list", prefix, lambda: list(self._faulty.list(prefix))))

    def _request(self, verb: Verb, key: str, call: Callable[[], T]) -> T:
        process, world = self._process, self._world
        process.sent = verb == "put"
        process.pause(self._way())
        if process.sent and world.choices.chance(world.crash_rate):
            world.crash(process)  # this is the worst moment for a crash, so it has a probability of its own
            raise Crash
        process.sent = False
        fault = world.choices.one_of((world.fault_rate,) * len(_FAULTS[verb]))
        if fault:
            chosen = _FAULTS[verb][fault - 1]
            self._faulty.fail_next(verb, chosen, late_after=ONLY_WHEN_TOLD)
            what = chosen.name.lower().replace("_", " ")
        else:
            what = "ok"
        try:
            answer = call()
        except StoreError as error:
            if not fault:
                what = f"{error.status} {error.code}"
            raise
        else:
            if answer is None:
                what += ", not modified"
            return answer
        finally:
            world.log(process.name, verb, key, what)
            process.pause(self._way())

    def _way(self) -> float:
        return self._world.choices.pick(_WAYS)


class _SlowDownload:
    """A slow download: other tasks run between its header and its rest."""

    def __init__(self, download: Download, process: Actor) -> None:
        self._download, self._process = download, process
        self.info, self.length = download.info, download.length

    def read(self, size: int, /) -> bytes:
        task = running()
        if task is not None:
            task.step()
        return self._download.read(size)

    def __enter__(self) -> Self:
        self._download.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._download.__exit__(*exc)


class _BadDownload(_SlowDownload):
    """An answer that no store should give: it claims to be a whole object, and has nothing or only the first half."""

    def __init__(self, download: Download, half: bool, process: Actor) -> None:
        super().__init__(download, process)
        if half:
            self._left = self.length // 2
        else:
            self._left = self.length = 0
            self.info = replace(self.info, size=0)

    def read(self, size: int, /) -> bytes:
        data = super().read(min(size, self._left))
        self._left -= len(data)
        return data
