"""The strategy etag-cached, the default: one conditional GET per session."""

from temaki.errors import ConfigurationError
from temaki.strategy import Session, Strategy


class EtagCached(Strategy):
    """Asks the store whether the object's ETag has changed, and downloads only if it has. Swaps at the end.

    Args:
        max_age: Seconds for which a session may start without asking the store. 0 always asks. More than 0 relaxes the
            first promise for reads: a session may start from a version that is at most this old. A commit that was
            built on an old version is still refused.

    Raises:
        ConfigurationError: ``max_age`` is negative.
    """

    def __init__(self, *, max_age: float = 0.0) -> None:
        if not max_age >= 0:
            raise ConfigurationError(f"max_age must be a number of seconds, 0 or more; got {max_age!r}.")
        self.max_age = max_age

    def pull(self, session: Session) -> None:
        """Make one conditional GET, shared with threads that ask at once; none within ``max_age``."""
        session.wait_turn()
        session.revalidate(max_age=0.0 if session.conflicts else self.max_age)

    def begin(self, session: Session) -> None:
        """Wait for a session that was refused too often. If it waited, make sure that this one's data is current."""
        if session.give_way():
            session.require_current()
