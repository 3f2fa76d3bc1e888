"""Servers that the tests share. Each starts when the first test asks for it, and only then."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

# Before anything imports it: its assertions should say what they compared.
pytest.register_assert_rewrite("temaki.testing.stores")

from temaki.testing.servers import Server, moto_server, seaweedfs_server  # noqa: E402 - see above


def pytest_configure() -> None:
    """Whoever runs this in the background may have SIGINT ignored, and child processes would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def moto() -> Iterator[Server]:
    """A moto server: up in a second, accepts any secret."""
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[Server]:
    """A SeaweedFS server: slower to start, and a real one."""
    with seaweedfs_server() as server:
        yield server
