"""A store that runs a test's own code at the moments that matter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping

from temaki.store import Download, ObjectInfo, ReadableBody, Store
from tests.threads import PATIENCE

Hook = Callable[[], object]


class HookedStore:
    """Passes everything on to ``store``. Hooks run once each, in the thread that makes the request.

    Args:
        store: The bucket.
        key: Only requests for this key meet hooks.

    Attributes:
        before: By verb, what runs before the next requests are carried out. What it raises, the request raises.
        after: By verb, what runs after they were carried out, before their answer is given.
    """

    def __init__(self, store: Store, key: str = "app.sqlite") -> None:
        self._store = store
        self._key = key
        self.before: dict[str, list[Hook]] = {}
        self.after: dict[str, list[Hook]] = {}

    @property
    def url(self) -> str:
        """The bucket's URL."""
        return self._store.url

    @property
    def honours_conditions(self) -> bool:
        """As the store says."""
        return self._store.honours_conditions

    def _run(self, hooks: dict[str, list[Hook]], verb: str, key: str) -> None:
        if key == self._key and hooks.get(verb):
            hooks[verb].pop(0)()

    def get(
        self,
        key: str,
        *,
        if_none_match: str | None = None,
        if_match: str | None = None,
        byte_range: tuple[int, int] | None = None,
    ) -> Download | None:
        """See :meth:`temaki.store.Store.get`."""
        self._run(self.before, "get", key)
        answer = self._store.get(key, if_none_match=if_none_match, if_match=if_match, byte_range=byte_range)
        self._run(self.after, "get", key)
        return answer

    def head(self, key: str) -> ObjectInfo:
        """See :meth:`temaki.store.Store.head`."""
        self._run(self.before, "head", key)
        answer = self._store.head(key)
        self._run(self.after, "head", key)
        return answer

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
        self._run(self.before, "put", key)
        answer = self._store.put(key, body, metadata=metadata, if_match=if_match, if_none_match=if_none_match)
        self._run(self.after, "put", key)
        return answer

    def delete(self, key: str) -> None:
        """See :meth:`temaki.store.Store.delete`."""
        self._store.delete(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See :meth:`temaki.store.Store.list`."""
        return self._store.list(prefix)


class Gate:
    """A hook that holds its request until the test opens it."""

    def __init__(self) -> None:
        self._arrived, self._opened = threading.Event(), threading.Event()

    def __call__(self) -> None:
        """Wait here."""
        self._arrived.set()
        assert self._opened.wait(PATIENCE), "the test never opened the gate"

    def wait(self) -> None:
        """Until a request has arrived here."""
        assert self._arrived.wait(PATIENCE), "no request came to the gate"

    def open(self) -> None:
        """Let it go on."""
        self._opened.set()


def failing(error: BaseException) -> Hook:
    """A hook that raises."""

    def fail() -> None:
        raise error

    return fail
