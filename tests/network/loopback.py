"""A server on 127.0.0.1 that answers with exactly the bytes that a test wants, or does not answer."""

from __future__ import annotations

from tests.network.policies import Answer, Answers
from tests.network.relay import Relay


class Loopback(Relay):
    """A relay with no server behind it. Use it as a context manager.

    Args:
        *answers: Given one after the other, the last one again and again.
    """

    def __init__(self, *answers: Answer) -> None:
        super().__init__(policy=Answers(*answers))

    def answer(self, *answers: Answer) -> None:
        """Give these answers from now on."""
        self.policy = Answers(*answers)

    @property
    def requests(self) -> list[tuple[str, bytes]]:
        """Head and body of each request, as received."""
        return [(one.head, one.body) for one in self.served]
