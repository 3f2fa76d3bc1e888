"""temaki's pytest plugin, found through its entry point: ``temaki_store``, ``temaki_bind`` and ``testing_rows``.

.. code-block:: python

    from application import db, hire

    def test_hiring(temaki_bind):
        temaki_bind(db)
        hire("Ada")

It is a package of its own because pytest imports it in every run wherever temaki is installed. Importing ``temaki``
imports Pony, so the fixtures import it only when they are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from temaki.store import Store
    from temaki.testing.binding import Binder


@pytest.fixture
def temaki_store() -> Store:
    """Give an empty bucket in memory. Override it to test on another store, such as ``DirectoryStore(tmp_path)``."""
    from temaki.stores.memory import MemoryStore

    return MemoryStore()


@pytest.fixture
def testing_rows() -> Iterator[None]:
    """Use ``testing_rows()`` of the entities that have it. Request this fixture before ``temaki_bind``."""
    from temaki.testing import use_testing_rows

    with use_testing_rows():
        yield


@pytest.fixture
def temaki_bind(temaki_store: Store) -> Iterator[Binder]:
    """Give a function that binds a ``Database`` to ``temaki_store`` for this test, maps it and creates its tables.

    See :class:`temaki.testing.binding.Binder`. After the test, the database is bound as it was before.
    """
    from temaki.testing.binding import Binder

    binder = Binder(temaki_store)
    yield binder
    binder.unbind()
