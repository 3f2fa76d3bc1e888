"""A store in front of another one: the base of those that count, delay, refuse or disturb."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Literal, Self, TypeVar

from temaki.errors import StoreError
from temaki.store import CopyingStore, Download, ObjectInfo, ReadableBody, Store

T = TypeVar("T")

Verb = Literal["get", "head", "put", "delete", "list", "copy"]
"""The methods of a store that make requests."""


class StoreWrapper:
    """Passes every request on to another store. Sub-classes override a hook, or one of the five verbs.

    The hooks are :meth:`handle_request`, :meth:`wrap_download` and :meth:`wrap_body`. A sub-class that overrides a verb
    instead calls that verb of ``self.wrapped``, or of ``super()`` if its hooks should run too.

    A wrapper has the verbs of :class:`~temaki.store.Store`, also in front of a :class:`~temaki.store.VersionedStore`.
    In front of a :class:`~temaki.store.CopyingStore` it copies, too, if its class has :attr:`copies`.

    Args:
        wrapped: The store behind it.

    Attributes:
        wrapped: The store behind it.
        copies: Whether the store behind it may copy objects that it has not seen. Only a wrapper that stores bodies as
            they are sets this to true.
    """

    copies: ClassVar[bool] = False

    def __init__(self, wrapped: Store) -> None:
        self.wrapped = wrapped

    # -- for sub-classes ------------------------------------------------------------------------------------------

    def handle_request(self, verb: Verb, key: str, request: Callable[[], T], /) -> T:  # noqa: ARG002 - for sub-classes
        """Make a request, and return its result. Called once for each request, from any thread.

        An override may do something before or after, may raise, and may call ``request`` several times or not at all.
        The request of a listing only begins it: its pages are fetched while the result is read.

        Args:
            verb: The method of the store.
            key: The object's name. For a listing, the prefix.
            request: Makes the request at the wrapped store.
        """
        return request()

    def wrap_download(self, key: str, download: Download, /) -> Download:  # noqa: ARG002 - for sub-classes
        """Return what ``get`` returns for ``download``: itself, or a :class:`DownloadWrapper` around it.

        Not called for a ``get`` that returns None.
        """
        return download

    def wrap_body(self, body: bytes | ReadableBody, /) -> bytes | ReadableBody:
        """Return what is sent for ``body``. Called before the request of a ``put`` is made."""
        return body

    # -- a store --------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """See :attr:`temaki.store.Store.url`."""
        return self.wrapped.url

    @property
    def honours_conditions(self) -> bool:
        """See :attr:`temaki.store.Store.honours_conditions`."""
        return self.wrapped.honours_conditions

    def get(
        self,
        key: str,
        *,
        if_none_match: str | None = None,
        if_match: str | None = None,
        byte_range: tuple[int, int] | None = None,
    ) -> Download | None:
        """See :meth:`temaki.store.Store.get`."""
        download = self.handle_request(
            "get",
            key,
            lambda: self.wrapped.get(key, if_none_match=if_none_match, if_match=if_match, byte_range=byte_range),
        )
        return None if download is None else self.wrap_download(key, download)

    def head(self, key: str) -> ObjectInfo:
        """See :meth:`temaki.store.Store.head`."""
        return self.handle_request("head", key, lambda: self.wrapped.head(key))

    def put(
        self,
        key: str,
        body: bytes | ReadableBody,
        *,
        metadata: Mapping[str, str] | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> str:
        """See :meth:`temaki.store.Store.put`."""
        sent = self.wrap_body(body)
        return self.handle_request(
            "put",
            key,
            lambda: self.wrapped.put(key, sent, metadata=metadata, if_match=if_match, if_none_match=if_none_match),
        )

    def delete(self, key: str) -> None:
        """See :meth:`temaki.store.Store.delete`."""
        self.handle_request("delete", key, lambda: self.wrapped.delete(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See :meth:`temaki.store.Store.list`."""
        return self.handle_request("list", prefix, lambda: self.wrapped.list(prefix))

    def can_copy(self, source: Store) -> bool:
        """See :meth:`temaki.store.CopyingStore.can_copy`."""
        return self.copies and isinstance(self.wrapped, CopyingStore) and self.wrapped.can_copy(unwrapped(source))

    def copy(
        self,
        source: Store,
        info: ObjectInfo,
        key: str,
        *,
        metadata: Mapping[str, str] | None = None,
        if_none_match: bool = False,
    ) -> str:
        """See :meth:`temaki.store.CopyingStore.copy`."""
        behind, wrapped = unwrapped(source), self.wrapped
        if not (self.copies and isinstance(wrapped, CopyingStore)):
            raise StoreError(f"{self.url} cannot copy objects by itself.", url=self.url, code="NotImplemented")
        return self.handle_request(
            "copy",
            key,
            lambda: wrapped.copy(behind, info, key, metadata=metadata, if_none_match=if_none_match),
        )


def unwrapped(store: Store) -> Store:
    """The store whose objects are those of ``store``, byte for byte."""
    while isinstance(store, StoreWrapper) and store.copies:
        store = store.wrapped
    return store


class DownloadWrapper:
    """Passes everything on to another download. Sub-classes override :meth:`read`.

    Args:
        wrapped: The download behind it.

    Attributes:
        wrapped: The download behind it.
        info: The object that the bytes belong to.
        length: How many bytes ``read`` will give in all.
    """

    def __init__(self, wrapped: Download) -> None:
        self.wrapped = wrapped
        self.info, self.length = wrapped.info, wrapped.length

    def read(self, size: int, /) -> bytes:
        """See :meth:`temaki.store.Download.read`."""
        return self.wrapped.read(size)

    def __enter__(self) -> Self:
        self.wrapped.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.wrapped.__exit__(*exc)
