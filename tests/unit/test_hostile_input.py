"""Whatever bytes and texts come from outside: the documented errors and no others, no hang, and never a write."""

from __future__ import annotations

import json
import os
import random
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from temaki.config.settings import resolve
from temaki.errors import ConfigurationError, CorruptDatabaseError, LeaseRecordError, StoreError
from temaki.formats.choice import open_stored
from temaki.lease.record import LeaseObject
from temaki.remote.retry import RetryPolicy
from temaki.replica.header import FormatError, read_header
from temaki.replica.image import Image
from temaki.replica.wal import Mark, scan
from temaki.store import ObjectInfo
from temaki.stores.memory import MemoryStore
from temaki.stores.urls import parse_url
from temaki.testing.clock import ManualClock
from temaki.version import MetadataError, Version, next_version, read_version
from tests.versions import KEY, database, make_remote

COUNT = int(os.environ.get("HOSTILE_EXAMPLES", "100"))
fuzzed = settings(max_examples=COUNT, deadline=None, suppress_health_check=[HealthCheck.too_slow])

GOOD = database(7, 3)
METADATA = dict(next_version(None, commit="0" * 24, sequence=3, size=len(GOOD), extra={}).metadata)
RECORD: dict[str, Any] = {
    "format": 1,
    "held": True,
    "owner": {"host": "vm", "pid": 1, "token": "t"},
    "generation": 7,
    "ttl": 30.0,
    "purpose": "write",
    "since": 1.75e9,
    "write": "w",
}
json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """Good bytes, with some replaced, cut out, or put in."""
    raw = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)) | st.integers(0, min(120, len(raw))))
        until = at + draw(st.integers(0, 40))
        raw[at:until] = draw(st.binary(max_size=40))
    return bytes(raw[: draw(st.just(len(raw)) | st.integers(0, len(raw)))])


class TestBytes:
    """Of a WAL, and of an object that should be a database."""

    @fuzzed
    @given(st.binary(max_size=400) | damaged(GOOD[:200]))
    def test_header(self, raw: bytes) -> None:
        """A header that is accepted describes a database that there can be."""
        try:
            header = read_header(raw)
        except FormatError:
            return
        assert header.page_size >= 512
        assert header.page_count >= 0

    @fuzzed
    @given(
        raw=st.binary(max_size=300) | st.binary(max_size=300).map(b"\x37\x7f\x06\x82\0\x2d\xe2\x18\0\0\x02\0".__add__),
        index=st.binary(max_size=140) | st.binary(max_size=48).map(lambda half: half * 2),
        salts=st.just(b"") | st.binary(min_size=8, max_size=8),
        frames=st.integers(0, 1 << 40),
    )
    def test_wal(self, raw: bytes, index: bytes, salts: bytes, frames: int) -> None:
        """Without a wal-index that is whole nothing is known of a WAL; and the file stays as it was."""
        with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as index_file:
            file.write(raw)
            file.flush()
            index_file.write(index)
            index_file.flush()
            with pytest.raises(FormatError):
                scan(file.fileno(), index_file.fileno(), Mark(salts, frames if salts else 0))
            assert os.pread(file.fileno(), 1000, 0) == raw

    @fuzzed
    @given(main=damaged(GOOD), pages=st.integers(0, 9), page_size=st.sampled_from([512, 4096]))
    def test_image(self, main: bytes, pages: int, page_size: int) -> None:
        """An image of a damaged file is refused or has the size that it says; no zeros in place of what is missing."""
        with tempfile.TemporaryFile() as file:
            file.write(main)
            file.flush()
            try:
                image = Image(file.fileno(), -1, {}, page_count=pages, page_size=page_size, sequence=1)
                assert len(image.read()) == len(image)
            except (FormatError, OSError):
                pass

    @fuzzed
    @example(body=GOOD + b"slack", keep_metadata=False)
    @given(body=st.binary(max_size=300) | damaged(GOOD), keep_metadata=st.booleans())
    def test_object(self, body: bytes, keep_metadata: bool) -> None:
        """What is fetched is verified; what is not good leaves no file, and stays in the store as it is."""
        bucket = MemoryStore()
        etag = bucket.put(KEY, body, metadata=METADATA if keep_metadata else None)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "1.sqlite"
            try:
                fetched = make_remote(bucket).fetch(open_stored)
                assert fetched is not None
                with fetched:
                    fetched.save(path)
            except (CorruptDatabaseError, StoreError):
                assert not path.exists()
            else:
                header = read_header(body[:100])
                size = header.page_count * header.page_size if header.size_is_valid else len(body)
                saved = path.read_bytes()
                assert len(saved) == size  # the rest belongs to no database
                assert saved[20:] == body[20:size]  # bytes 18 and 19 say how SQLite is to open it
        assert bucket.head(KEY).etag == etag


class TestFacts:
    """Metadata, and records of JSON."""

    @fuzzed
    @given(st.dictionaries(st.sampled_from(sorted(METADATA)) | st.text(max_size=9), st.text(max_size=60), max_size=6))
    def test_metadata(self, changes: dict[str, str]) -> None:
        """A version, or an error of its own."""
        info = ObjectInfo(key=KEY, etag="e", size=8192, metadata={**METADATA, **changes})
        try:
            version = read_version(info)
        except MetadataError:
            return
        assert version.lineage[0] == version.commit
        assert version.lease_generation >= 0

    @fuzzed
    @given(st.dictionaries(st.sampled_from([*Version("e", "c" * 8, 1, ("c" * 8,), True, 1).to_json()]), json_values))
    def test_clean_record(self, changes: dict[str, Any]) -> None:
        """What another program left in the cache folder is a version, or nothing."""
        facts = {**Version("e", "c" * 8, 1, ("c" * 8,), True, 1).to_json(), **changes}
        version = Version.from_json(facts)
        assert version is None or (version.lineage[0] == version.commit and version.etag)

    @fuzzed
    @given(
        st.binary(max_size=200)
        | json_values.map(lambda value: json.dumps(value).encode())
        | st.dictionaries(st.sampled_from(sorted(RECORD)), json_values).map(
            lambda changes: json.dumps({**RECORD, **changes}).encode()
        )
        | damaged(json.dumps(RECORD).encode())
    )
    @example(b"[" * 5000)
    def test_lease_record(self, raw: bytes) -> None:
        """A record, or an error that says that it is none; it is left as it is."""
        bucket = MemoryStore()
        etag = bucket.put("lease", raw)
        try:
            seen = LeaseObject(bucket, "lease", RetryPolicy(ManualClock(), random.Random(1), timeout=1)).read()
        except LeaseRecordError:
            pass
        else:
            assert seen is not None
            assert 0 < seen.record.ttl < float("inf")
        assert bucket.head("lease").etag == etag


class TestTexts:
    """What people configure."""

    @fuzzed
    @given(
        st.text(max_size=60)
        | st.tuples(
            st.sampled_from(["s3", "file", "memory", "S3", "http", ""]),
            st.sampled_from(["://", ":///", ":", "//"]),
            st.text(max_size=30),
        ).map("".join)
    )
    def test_url(self, text: str) -> None:
        """A place, or a ``ConfigurationError``."""
        with suppress(ConfigurationError):
            parse_url(text)

    @fuzzed
    @given(
        st.text(max_size=200)
        | st.dictionaries(
            st.sampled_from(["url", "strategy", "timeout", "cache_dir", "max_age", "ttl"]), json_values
        ).map(lambda facts: "\n".join(f"{name} = {json.dumps(value)}" for name, value in facts.items()))
    )
    def test_toml(self, text: str) -> None:
        """Settings, or a ``ConfigurationError``."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "temaki.toml").write_text(text, encoding="utf-8", errors="surrogatepass")
            with suppress(ConfigurationError):
                resolve({"url": "memory://m/k"}, environ={}, folder=folder)

    @fuzzed
    @given(st.dictionaries(st.sampled_from(["TEMAKI_URL", "TEMAKI_KEY", "AWS_BUCKET", "TEMAKI_TIMEOUT"]), st.text()))
    def test_environment(self, environ: dict[str, str]) -> None:
        """The same from the environment."""
        with tempfile.TemporaryDirectory() as folder, suppress(ConfigurationError):
            resolve({}, environ=environ, folder=folder)
