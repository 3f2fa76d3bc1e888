"""Stores by scheme: what a distribution registers as an entry point of ``temaki.stores``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from temaki import Database
from temaki.config import plugins
from temaki.errors import ConfigurationError
from temaki.stores import canonical_url, open_store, parse_url
from temaki.stores.memory import MemoryStore
from temaki.stores.urls import _SCHEMES
from tests.installed import Install, installer

MODULE = """
from temaki.store import StoreOpener
from temaki.stores.memory import MemoryStore

class Rows(StoreOpener):
    example = "rows://table/app.sqlite"
    takes_client = True
    clients = []

    def split(self, rest):
        bucket, key = super().split(rest)
        if not bucket.isalpha():
            raise ValueError(f"{bucket!r} is no name of a table")
        return bucket.lower(), key

    def open(self, location, *, client=None):
        self.clients.append(client)
        return MemoryStore.named(location.bucket)

class Plain(StoreOpener):
    def open(self, location, *, client=None):
        return MemoryStore.named(location.bucket)

class Unfinished(StoreOpener): ...

class Other: ...
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution that registers openers."""
    yield installer(tmp_path, monkeypatch, module=MODULE, group="temaki.stores")
    MemoryStore.forget("schemes")


def refused(url: str, **arguments: object) -> str:
    """Open a URL that cannot be opened, and give the error's message."""
    with pytest.raises(ConfigurationError) as caught:
        open_store(url, **arguments)
    return str(caught.value)


@pytest.mark.parametrize("scheme", ["s3", "file", "memory"])
def test_the_built_in_schemes_are_registered(install: Install, scheme: str) -> None:
    """They come through the same door as anyone else's: a second distribution that claims one is a conflict."""
    install("sushi", f"{scheme} = sushi_module:Rows")
    message = refused(f"{scheme}://bucket/key")
    assert f"scheme '{scheme}' is registered twice, as" in message
    assert "sushi_module:Rows of distribution sushi" in message
    assert "of distribution temaki" in message


def test_a_third_partys_scheme_works_in_bind_s3(install: Install) -> None:
    """Installing a distribution with an entry point is all it takes; the URL is canonical, and the client arrives."""
    install("sushi", "rows = sushi_module:Rows")
    client = object()
    store, key = open_store("ROWS://Schemes/a/b.sqlite", client=client)
    assert (store, key) == (MemoryStore.named("schemes"), "a/b.sqlite")
    assert canonical_url("ROWS://Schemes/a/b.sqlite") == "rows://schemes/a/b.sqlite"
    location = parse_url("rows://schemes/key")
    assert (location.scheme, location.bucket, location.key) == ("rows", "schemes", "key")
    from sushi_module import Rows  # type: ignore[import-not-found]

    assert Rows.clients == [client]
    db = Database()
    db.bind_s3("rows://Schemes/app.sqlite")
    assert db.provider.engine.url == "rows://schemes/app.sqlite"


def test_a_scheme_without_options_takes_the_defaults(install: Install) -> None:
    """An opener needs one method: bucket and key are then parted by the first slash, and there is no client."""
    install("sushi", "plain = sushi_module:Plain")
    store, key = open_store("plain://schemes/a/b")
    assert (store, key) == (MemoryStore.named("schemes"), "a/b")
    assert "takes no client" in refused("plain://schemes/key", client=object())
    for url, reason in (
        ("plain://schemes", "no '/' and no key"),
        ("plain://schemes/", "no key after"),
        ("plain:///key", "no bucket"),
        ("plain://schemes/folder/", "ends in '/'"),
    ):
        message = refused(url)
        assert reason in message
        assert message.endswith("A right one: plain://bucket/key")


def test_what_an_opener_refuses_is_said_in_its_words(install: Install) -> None:
    """The message names the URL, has the opener's reason and its example."""
    install("sushi", "rows = sushi_module:Rows")
    assert refused("rows://7/app.sqlite") == (
        "'rows://7/app.sqlite' is no URL of a database: '7' is no name of a table. A right one: rows://table/app.sqlite"
    )


@pytest.mark.parametrize(
    "url",
    [
        "rows://user:hunter2@table/key",
        "rows://table/key?password=hunter2",
        "rows://table/key#hunter2",
        "rows://hunter2@7/key",
    ],
)
def test_secrets_never_come_to_an_opener(install: Install, url: str) -> None:
    """No scheme has credentials, a query or a fragment in its URLs, and none of it is repeated."""
    install("sushi", "rows = sushi_module:Rows")
    assert "hunter2" not in refused(url)


def test_an_unknown_scheme_lists_those_available_and_the_nearest(install: Install) -> None:
    """A typo costs one look at the message; examples are of all schemes, a third party's included."""
    install("sushi", "rows = sushi_module:Rows\nbroken = sushi_no_module:Rows")
    message = refused("row://table/app.sqlite")
    assert (
        "temaki does not know the scheme 'row'. Did you mean 'rows'? Available: broken, file, memory, rows" in message
    )
    assert message.partition("A right one: ")[2].split(" or ") == [
        "s3://my-bucket/app.sqlite",
        "file:///srv/data/app.sqlite",
        "memory://tests/app.sqlite",
        "rows://table/app.sqlite",
    ]


def test_a_scheme_claimed_twice_is_refused(install: Install) -> None:
    """Which one would win is an accident of the path: the error names both distributions, and the URL."""
    install("sushi", "rows = sushi_module:Rows")
    install("maki", "rows = maki_module:Rows")
    message = refused("rows://table/key")
    assert message.startswith("'rows://table/key': scheme 'rows' is registered twice, as ")
    assert "sushi_module:Rows of distribution sushi" in message
    assert "maki_module:Rows of distribution maki" in message


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("sushi_no_module:Rows", "cannot be imported: ModuleNotFoundError"),
        ("sushi_module:Missing", "cannot be imported: AttributeError"),
        ("sushi_module:Other", "is no subclass of temaki.store.StoreOpener"),
        ("sushi_module:Unfinished", "cannot be made: Can't instantiate abstract class Unfinished"),
    ],
)
def test_what_is_no_opener_is_named(install: Install, target: str, reason: str) -> None:
    """A module that is missing, an object of another kind, a class without its method: the error says which."""
    install("sushi", f"rows = {target}")
    message = refused("rows://table/key")
    assert reason in message
    assert message.startswith("Scheme 'rows'")


@pytest.mark.parametrize("scheme", ["s3", "file", "memory"])
def test_the_built_in_schemes_need_no_metadata(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """In a deployment package that was stripped of ``*.dist-info``, a URL of temaki's own stores still works."""
    monkeypatch.setattr(plugins, "_read_directly", tuple)
    monkeypatch.setattr(plugins, "_ask_importlib", lambda _group: iter(()))
    assert parse_url(f"{scheme}:///bucket/key" if scheme == "file" else f"{scheme}://bucket/key").key == "key"
    assert _SCHEMES.available() == ["file", "memory", "s3"]


def test_what_is_known_without_metadata_is_what_is_registered() -> None:
    """The two lists of built-in schemes are the same."""
    registered = {point.name: point.target for point in plugins._ask_importlib("temaki.stores")}
    assert registered == _SCHEMES.without_metadata
