"""The strategy read-only: for readers that have, or should have, no permission to write."""

from typing import ClassVar

from temaki_strategies.etag_cached import EtagCached


class ReadOnly(EtagCached):
    """Reads as :class:`~temaki_strategies.EtagCached` does, and never writes. GET permission is enough.

    Sessions take no lock, not even with ``immediate=True`` or ``db.execute("select …")``. A write raises
    ``ReadOnlyError``.

    Args:
        max_age: Seconds for which a session may start without asking the store.
    """

    writes: ClassVar[bool] = False
