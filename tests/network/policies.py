"""What a test can let become of requests. See :mod:`tests.network.faults` for a network that is bad at random."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from tests.network.relay import Exchange

Answer = bytes | Callable[[socket.socket], None]
"""What to send before the connection is closed; or what to do with the connection."""


class Answers:
    """Gives one answer after the other, and the last one again and again. The server never hears of a request."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self._lock = threading.Lock()

    def __call__(self, exchange: Exchange) -> None:
        """Answer, and end the connection."""
        with self._lock:
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if callable(answer):
            answer(exchange.socket)
            exchange.end()
        else:
            exchange.answer(answer)


class Refuse:
    """Answers what the server is not to answer.

    Args:
        decide: The answer instead of the server's; None passes the request on. May change the request's headers.
    """

    def __init__(self, decide: Callable[[Exchange], bytes | None]) -> None:
        self._decide = decide

    def __call__(self, exchange: Exchange) -> None:
        """Answer and end the connection, or pass the request on."""
        answer = self._decide(exchange)
        if answer is None:
            exchange.pass_on()
        else:
            exchange.answer(answer)


class Hold:
    """Holds one request until its client gives up, and drops it. The server never hears of it.

    Args:
        which: True for the request to hold. Not asked again afterwards.

    Attributes:
        held: Set as soon as the request is held.
    """

    def __init__(self, which: Callable[[Exchange], bool]) -> None:
        self._which = which
        self._lock = threading.Lock()
        self.held = threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        """Hold the request, or pass it on."""
        with self._lock:
            holds = not self.held.is_set() and self._which(exchange)
            if holds:
                self.held.set()
        if holds:
            exchange.wait_until_given_up()
            exchange.end()
        else:
            exchange.pass_on()


class LoseReply:
    """Lets the next request with this method reach the server, and resets its connection instead of the reply."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._once = threading.Lock()

    def __call__(self, exchange: Exchange) -> None:
        """Lose the reply, or pass the request on."""
        if exchange.method == self._method and self._once.acquire(blocking=False):
            exchange.lose_reply()
        else:
            exchange.pass_on()
