"""What may be given as the body of a put."""

from __future__ import annotations

import io
import secrets

import pytest

from temaki.errors import PreconditionFailedError
from temaki.store import Store
from temaki.testing.stores.base import Suite
from temaki.testing.stores.tools import fetch


class Bodies(Suite):
    """What may be given as the body of a put."""

    def test_a_file_is_read_from_its_start(self, store: Store, key: str) -> None:
        """A body that was left at its end is uploaded whole."""
        body = io.BytesIO()
        body.write(b"some contents" * 1_000)
        store.put(key, body)
        assert fetch(store, key) == b"some contents" * 1_000

    def test_a_body_can_be_sent_again(self, store: Store, key: str) -> None:
        """The same body serves for several requests; that is how a put is repeated."""
        body = io.BytesIO(b"x" * 100_000)
        etag = store.put(key, body, if_none_match=True)
        with pytest.raises(PreconditionFailedError):
            store.put(key, body, if_none_match=True)
        store.put(key, body, if_match=etag)
        assert fetch(store, key) == b"x" * 100_000

    def test_a_body_whose_reads_are_short(self, store: Store, key: str) -> None:
        """A body may give less than it was asked for without being at its end."""
        data = secrets.token_bytes(5_000)
        store.put(key, _ShortReads(data))
        assert fetch(store, key) == data


class _ShortReads(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(700, size) if size is not None and size > 0 else size)
