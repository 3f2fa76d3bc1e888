"""A store that runs a test's own code at the moments that matter."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from temaki.errors import AccessDeniedError, StoreUnavailableError
from temaki.store import Store
from temaki.stores.wrapper import StoreWrapper, Verb
from tests.threads import PATIENCE

KEY = "app.sqlite"

T = TypeVar("T")
Hook = Callable[[], object]
Around = Callable[[Callable[[], Any]], Any]
"""A hook that gets the request, decides what becomes of it, and returns the answer."""


class HookedStore(StoreWrapper):
    """Passes everything on to ``store``. Hooks run once each, in the thread that makes the request.

    Args:
        store: The bucket.
        key: Only requests for this key meet hooks.

    Attributes:
        before: By verb, what runs before the next requests are carried out. What it raises, the request raises.
        after: By verb, what runs after they were carried out, before their answer is given.
        around: By verb, what the next requests are handed to.
    """

    def __init__(self, store: Store, key: str = KEY) -> None:
        super().__init__(store)
        self._key = key
        self.before: dict[str, list[Hook]] = {}
        self.after: dict[str, list[Hook]] = {}
        self.around: dict[str, list[Around]] = {}

    def _run(self, hooks: dict[str, list[Hook]], verb: str, key: str) -> None:
        if key == self._key and hooks.get(verb):
            hooks[verb].pop(0)()

    def handle_request(self, verb: Verb, key: str, request: Callable[[], T], /) -> T:
        """See :meth:`temaki.testing.StoreWrapper.handle_request`."""
        self._run(self.before, verb, key)
        around = self.around.get(verb) if key == self._key else None
        answer: T = around.pop(0)(request) if around else request()
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


def failing(error: BaseException) -> Callable[..., Any]:
    """A hook of any kind that raises."""

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise error

    return fail


def denied() -> AccessDeniedError:
    """What a store says to a writer without permission."""
    return AccessDeniedError("no PutObject", url=KEY, status=403, code="AccessDenied")


def lose_answers(store: HookedStore) -> None:
    """Let the next upload land, and lose its answer and every one after it: a commit that is not known."""
    lost = StoreUnavailableError("lost", url=KEY, ambiguous=True)
    store.after["put"] = [failing(lost)]
    store.before["head"] = [failing(lost)] * 1000
