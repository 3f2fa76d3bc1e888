"""What a suite needs: a store under test, and how hard to try it."""

from __future__ import annotations

import secrets
from typing import ClassVar

import pytest

from temaki.store import Store

KEYS = [
    "plain",
    "with space and  two",
    "plus+and%20percent%",
    "a/deeper/one.sqlite",
    "ünïcödé-日本-🍣",
    "quotes'\"&<>=;,:@$!*()[]{}|^~`",
    "back\\slash",
    "question?mark#hash",
    "-dash",
    "dots..in.it",
]
"""Names that are easily damaged on their way through URLs, headers, XML and file systems."""


class Suite:
    """The fixtures and settings that all suites share. See :class:`temaki.testing.StoreTests`."""

    listed: ClassVar[int] = 1005
    threads: ClassVar[int] = 8
    rounds: ClassVar[int] = 5
    odd_keys: ClassVar[list[str]] = KEYS
    honours_copy_conditions: ClassVar[bool] = True

    @pytest.fixture
    def store(self) -> Store:
        """The store under test."""
        message = "Give the subclass of StoreTests a fixture named 'store'."
        raise NotImplementedError(message)

    @pytest.fixture
    def missing_bucket_store(self) -> Store:
        """A store for a bucket that does not exist."""
        pytest.skip("no missing_bucket_store")

    @pytest.fixture
    def denied_store(self) -> Store:
        """A store with wrong credentials, for a bucket that exists."""
        pytest.skip("no denied_store")

    @pytest.fixture
    def key(self) -> str:
        """A name that no other test uses."""
        return f"{secrets.token_hex(6)}/app.sqlite"
