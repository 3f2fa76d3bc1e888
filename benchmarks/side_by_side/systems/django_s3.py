"""django-s3-sqlite, with a request's signals around each session.

It keeps its copy at ``/tmp/<key>``. Each process gets a folder of its own there, as each Lambda instance would: a mount
namespace in which that folder is another one.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import TypeVar

import django
from django.conf import settings
from django.core import signals
from django.db import models, transaction

from benchmarks.side_by_side.systems.system import Config

T = TypeVar("T")

_CLONE_NEWNS, _MS_REC, _MS_PRIVATE, _MS_BIND = 0x20000, 0x4000, 0x40000, 0x1000


def own_folder(folder: str, at: str) -> None:
    """From now on ``at`` is ``folder``, for this process only. Needs Linux and root."""
    libc = ctypes.CDLL(None, use_errno=True)
    os.makedirs(at, exist_ok=True)
    for result in (
        libc.unshare(_CLONE_NEWNS),
        libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None),
        libc.mount(folder.encode(), at.encode(), None, _MS_BIND, None),
    ):
        if result:
            raise OSError(ctypes.get_errno(), "needs a mount namespace of its own, for its file in /tmp")


class Django:
    """As the README has it: an engine, and Django's own handling of connections."""

    def __init__(self, config: Config) -> None:
        own_folder(config["folder"], f"/tmp/{config['key'].rpartition('/')[0]}")
        settings.configure(
            DATABASES={
                "default": {"ENGINE": "django_s3_sqlite", "NAME": config["key"], "BUCKET": config["bucket"]},
            },
            INSTALLED_APPS=["django_s3_sqlite"],
            DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        )
        django.setup()

        class Item(models.Model):  # noqa: DJ008 - never shown
            name = models.TextField()
            count = models.IntegerField()

            class Meta:
                app_label = "bench"
                db_table = "item"

        self._items = Item.objects

    def read(self) -> tuple[str, int]:
        """One request."""

        def work() -> tuple[str, int]:
            item = self._items.get(pk=1)
            return item.name, item.count

        return self._request(work)

    def commit(self, rows: int, name: str) -> None:
        """One request."""

        def work() -> None:
            with transaction.atomic():
                for item in self._items.filter(pk__gt=1, pk__lte=rows + 1):
                    item.name = name
                    item.save()

        self._request(work)

    def increment(self) -> int:
        """One request."""

        def work() -> int:
            with transaction.atomic():
                item = self._items.get(pk=1)
                item.count += 1
                item.save()
                count: int = item.count
                return count

        return self._request(work)

    @staticmethod
    def _request(work: Callable[[], T]) -> T:
        signals.request_started.send(sender=Django)
        try:
            return work()
        finally:
            signals.request_finished.send(sender=Django)


make = Django
