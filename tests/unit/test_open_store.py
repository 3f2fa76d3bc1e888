"""From a URL to a store and a key, or to a message that helps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from temaki.errors import ConfigurationError
from temaki.stores import canonical_url, open_store, parse_url
from temaki.stores.directory import DirectoryStore
from temaki.stores.memory import MemoryStore
from temaki.stores.s3.store import S3Store
from temaki.testing.stores import fetch


def test_s3() -> None:
    """``s3://bucket/key``: the key is all after the bucket, as it stands; the client is handed on."""
    client = object()
    store, key = open_store("s3://my-bucket/apps/my app%20+é.sqlite", client=client)
    assert isinstance(store, S3Store)
    assert (store.url, store.bucket, key) == ("s3://my-bucket", "my-bucket", "apps/my app%20+é.sqlite")
    assert store._given is client


def test_file(tmp_path: Path) -> None:
    """``file:///folder/key``: the last part is the key, the rest the folder, percent-decoded."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    store, key = open_store(f"file://{tmp_path}/a%20folder/app%23.sqlite")
    assert isinstance(store, DirectoryStore)
    assert (store.folder, key) == (folder, "app#.sqlite")
    store.put(key, b"1")
    assert (folder / "app#.sqlite").read_bytes() == b"1"


def test_memory() -> None:
    """``memory://name/key``: one name is one store in all the process."""
    MemoryStore.forget("open-store")
    first, key = open_store("memory://open-store/app.sqlite")
    first.put(key, b"1")
    second, _ = open_store("memory://open-store/other")
    assert second is first
    assert fetch(second, "app.sqlite") == b"1"


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("s3://bucket/a/b.sqlite", "s3://bucket/a/b.sqlite"),
        ("S3://bucket/Key", "s3://bucket/Key"),
        ("memory://x/y", "memory://x/y"),
        ("file:///a/b c.sqlite", "file:///a/b%20c.sqlite"),
        ("file:///a/b%20c.sqlite", "file:///a/b%20c.sqlite"),
        ("file:///a/%62.sqlite", "file:///a/b.sqlite"),
        ("file://localhost/a/b", "file:///a/b"),
        ("FILE:///a/./x/..//b", "file:///a/b"),
        ("file:////a/b", "file:///a/b"),
    ],
)
def test_one_database_has_one_url(url: str, canonical: str) -> None:
    """However a URL is written, its canonical form is the same, and means the same."""
    assert canonical_url(url) == canonical
    assert parse_url(canonical) == parse_url(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "empty"),
        ("   ", "empty"),
        (None, "not a string"),
        (b"s3://bucket/key", "not a string"),
        (Path("/a/b"), "not a string"),
        ("/srv/app.sqlite", "no scheme"),
        ("bucket/key", "no scheme"),
        ("s3:bucket/key", "no scheme"),
        ("https://bucket.s3.amazonaws.com/key", "scheme 'https'"),
        ("s3://", "no bucket"),
        ("s3:///key", "no bucket"),
        ("s3://bucket", "no key"),
        ("s3://bucket/", "no key"),
        ("s3://bucket/folder/", "ends in '/'"),
        ("s3://bucket/key?versionId=1", "query"),
        ("s3://bucket/key#part", "fragment"),
        ("s3://bucket:9000/key", "credentials or a port"),
        ("s3://b/key", "no name of a bucket"),
        ("s3://my bucket/key", "no name of a bucket"),
        ("s3://bu..cket/key", "no name of a bucket"),
        ("s3://192.168.1.1/key", "no name of a bucket"),
        ("s3://bucket/key\n", "control characters"),
        (" s3://bucket/key", "no scheme"),
        ("memory://name", "no key"),
        ("memory:///key", "no bucket"),
        ("file://data/app.sqlite", "not absolute"),
        ("file://./app.sqlite", "not absolute"),
        ("file:app.sqlite", "no scheme"),
        ("file:///", "no key"),
        ("file://", "no key"),
        ("file:///folder/", "no key"),
        ("file:///folder/..", "no key"),
        ("file:///folder/%ff", "not UTF-8"),
        ("file:///folder/a%00b", "NUL"),
        ("file:///folder/.temaki", "beside it"),
        ("file:///folder/.temaki/x", "beside it"),
    ],
)
def test_what_is_wrong_is_said(url: object, reason: str) -> None:
    """A malformed URL is named, with what is wrong and how a right one looks."""
    with pytest.raises(ConfigurationError, match=reason) as caught:
        open_store(url)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "A right one: " in message
    example = message.rpartition("A right one: ")[2].split(" or ")[0]
    assert canonical_url(example) == example
    if isinstance(url, str) and url.strip() and "?" not in url and "#" not in url:
        assert repr(url) in message


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:hunter2@bucket/key",
        "s3://hunter2@bucket/key",
        "s3://key:hun/ter2@bucket/key?password=hunter2#hunter2",
        "https://user:hunter2@host/key",
        "s3://bucket/key?X-Amz-Signature=hunter2",
        "file://user:hunter2@host/a/b",
        "user:hunter2@bucket/key",
    ],
)
def test_secrets_are_not_repeated(url: str) -> None:
    """Credentials in a URL are refused, and do not come back in the message or in the error's attributes."""
    with pytest.raises(ConfigurationError) as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value)
    assert "hun/ter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.facts)


def test_a_client_is_for_s3() -> None:
    """A client that would be ignored is an error."""
    with pytest.raises(ConfigurationError, match="client"):
        open_store("memory://x/y", client=object())


def test_boto3_is_imported_late() -> None:
    """Opening stores imports no boto3, not even for S3; opening others does not even import temaki's S3 module."""
    code = """
import sys
from temaki.stores import open_store
open_store("memory://x/y")
open_store("file:///x/y")
assert "temaki.stores.s3.store" not in sys.modules
open_store("s3://bucket/key")
assert "temaki.stores.s3.store" in sys.modules
assert not {"boto3", "botocore", "urllib3"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
