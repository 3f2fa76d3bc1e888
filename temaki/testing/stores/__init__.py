"""What a store has to keep: a suite to run over each of them, temaki's own and anyone else's.

One module has the tests of one subject; :class:`StoreTests` is all of them.
"""

from __future__ import annotations

from temaki.testing.stores.base import KEYS
from temaki.testing.stores.bodies import Bodies
from temaki.testing.stores.conditions import Conditions
from temaki.testing.stores.copies import Copies
from temaki.testing.stores.listings import Listings
from temaki.testing.stores.metadata import Metadata
from temaki.testing.stores.objects import Objects
from temaki.testing.stores.races import Races
from temaki.testing.stores.ranges import Ranges
from temaki.testing.stores.refusals import Refusals
from temaki.testing.stores.tools import fetch, read_all
from temaki.testing.threads import in_parallel

__all__ = ["KEYS", "StoreTests", "fetch", "in_parallel", "read_all"]


class StoreTests(Objects, Metadata, Conditions, Ranges, Bodies, Listings, Races, Refusals, Copies):
    """Subclass it, and give it a fixture ``store``: an empty bucket, or one that others use under other keys.

    For the promises about what goes wrong, override ``missing_bucket_store`` (a store for a bucket that does not
    exist) and ``denied_store`` (one with wrong credentials). Without them, those tests are skipped.

    Attributes:
        listed: How many objects the long listing has: more than the 1000 that S3 puts on a page; 0 skips it.
        threads: How many threads race.
        rounds: How many times each of them does. Small for servers on which contended writes are slow.
        odd_keys: Names of objects that have to work.
        honours_copy_conditions: Whether the store's own copies honour conditions. temaki finds out before it makes a
            copy whose condition matters, and sends the bytes itself if they do not.
    """
