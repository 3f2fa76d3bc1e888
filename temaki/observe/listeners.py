"""The callbacks that an application has registered for events or requests."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from temaki.process.fork import ProcessLock

T = TypeVar("T")


class Listeners(Generic[T]):
    """Callbacks that are called one after the other. Safe to use from many threads. A forked child keeps them.

    Args:
        log: Gets the errors that callbacks raise.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._lock = ProcessLock()
        self._callbacks: tuple[Callable[[T], object], ...] = ()

    def __bool__(self) -> bool:
        """Whether there is any callback."""
        return bool(self._callbacks)

    def listen(self, callback: Callable[[T], object]) -> Callable[[], None]:
        """Call ``callback`` from now on; returns a function that ends the calls."""
        with self._lock():
            self._callbacks = (*self._callbacks, callback)

        def stop() -> None:
            with self._lock():
                self._callbacks = tuple(other for other in self._callbacks if other is not callback)

        return stop

    def call(self, value: T, failure: str, *arguments: object) -> None:
        """Call every callback with ``value``. An error in a callback is logged, and goes no further.

        Args:
            value: The event or the request.
            failure: Message for the log if a callback fails.
            arguments: Arguments of that message.
        """
        for callback in self._callbacks:
            try:
                callback(value)
            except Exception:  # noqa: BLE001 - an application's code, in the middle of a session
                self._log.exception(failure, *arguments)
