"""A store that runs a test's own code at the moments that matter."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from temaki.store import Store
from temaki.stores.wrapper import StoreWrapper, Verb
from tests.threads import PATIENCE

T = TypeVar("T")
Hook = Callable[[], object]


class HookedStore(StoreWrapper):
    """Passes everything on to ``store``. Hooks run once each, in the thread that makes the request.

    Args:
        store: The bucket.
        key: Only requests for this key meet hooks.

    Attributes:
        before: By verb, what runs before the next requests are carried out. What it raises, the request raises.
        after: By verb, what runs after they were carried out, before their answer is given.
    """

    def __init__(self, store: Store, key: str = "app.sqlite") -> None:
        super().__init__(store)
        self._key = key
        self.before: dict[str, list[Hook]] = {}
        self.after: dict[str, list[Hook]] = {}

    def _run(self, hooks: dict[str, list[Hook]], verb: str, key: str) -> None:
        if key == self._key and hooks.get(verb):
            hooks[verb].pop(0)()

    def handle_request(self, verb: Verb, key: str, request: Callable[[], T], /) -> T:
        """See :meth:`temaki.testing.StoreWrapper.handle_request`."""
        self._run(self.before, verb, key)
        answer = request()
        self._run(self.after, verb, key)
        return answer


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
