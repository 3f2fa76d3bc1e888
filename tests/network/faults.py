"""A bad network, at random: it loses, cuts, stalls and delays what goes through a relay."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from enum import Enum, auto

from tests.network.messages import passed_on
from tests.network.relay import Exchange


class Fault(Enum):
    """What can become of a request and its reply."""

    RESET = auto()
    """The connection is reset. The server never hears of the request."""
    LOST_REPLY = auto()
    """The request is carried out; instead of the reply comes a reset."""
    CUT = auto()
    """The reply ends anywhere in its head or its body: by a reset, or in good order, and half a head looks whole."""
    STALL = auto()
    """The reply stops anywhere, its first byte included, until the client gives up."""
    LATE = auto()
    """The request is held back until the client has given up, and reaches the server some time after that."""
    GATEWAY = auto()
    """The request is carried out, and the client gets the proxy's own page: 504."""
    DELAY = auto()
    """Everything is well, after a while."""


class Faults:
    """A policy whose sequence of faults comes from the seed.

    Which request gets which fault is up to the order in which requests of several processes arrive.

    Args:
        rates: Probability of each fault for a request.
        seed: Of the sequence.
        delay: Longest delay of a request, and of a late one after its client has given up; in seconds.
    """

    def __init__(self, rates: Mapping[Fault, float], *, seed: int = 0, delay: float = 0.2) -> None:
        self._rates = dict(rates)
        self._delay = delay
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._count: Counter[Fault | None] = Counter()

    def __call__(self, exchange: Exchange) -> None:
        """Choose a fault, and let the request suffer it."""
        with self._lock:
            fault = self._choose()
            rng = random.Random(self._rng.random())
            self._count[fault] += 1
        exchange.fault = fault
        self._suffer(exchange, fault, rng)

    def count(self) -> Counter[Fault | None]:
        """How often each fault came up."""
        with self._lock:
            return self._count.copy()

    def _choose(self) -> Fault | None:
        moment = self._rng.random()
        for fault, rate in self._rates.items():
            moment -= rate
            if moment < 0:
                return fault
        return None

    def _suffer(self, exchange: Exchange, fault: Fault | None, rng: random.Random) -> None:
        match fault:
            case None:
                exchange.pass_on()
            case Fault.RESET:
                exchange.reset()
            case Fault.LOST_REPLY:
                exchange.lose_reply()
            case Fault.CUT | Fault.STALL:
                _cut(exchange, rng, stalls=fault is Fault.STALL)
            case Fault.LATE:
                exchange.wait_until_given_up()
                time.sleep(rng.uniform(0, self._delay))
                exchange.lose_reply()
            case Fault.GATEWAY:
                _answer_as_gateway(exchange)
            case Fault.DELAY:
                time.sleep(rng.uniform(0, self._delay))
                exchange.pass_on()


def _cut(exchange: Exchange, rng: random.Random, *, stalls: bool) -> None:
    reply = exchange.forward()
    if reply is None:
        exchange.reset()
        return
    # As often in the head, where small replies have all their bytes, as anywhere.
    end = min(len(reply), 200) if rng.random() < 0.5 else len(reply)
    exchange.reply(reply[: rng.randrange(end)])
    if stalls:
        exchange.wait_until_given_up()
    if rng.random() < 0.5:
        exchange.end()
    else:
        exchange.reset()


def _answer_as_gateway(exchange: Exchange) -> None:
    if exchange.forward() is None:
        exchange.reset()
        return
    page = b"<html><h1>504 Gateway Time-out</h1></html>"
    exchange.reply(passed_on(exchange.method, 504, "Gateway Time-out", {"Content-Type": "text/html"}, page))
