"""etag-cached, the default: one conditional GET per session."""

from temaki.errors import ConfigurationError
from temaki.strategy import Session, Strategy


class EtagCached(Strategy):
    """Asks the store whether its ETag is still the working copy's, and fetches only if not; swaps at the end.

    Args:
        max_age: Seconds for which a session may skip that question. 0 asks always. More than 0 relaxes the first
            promise for reads: a session may then start from a version that is so many seconds old. A commit that was
            built on an old version is refused as ever.

    Raises:
        ConfigurationError: ``max_age`` is negative.
    """

    def __init__(self, *, max_age: float = 0.0) -> None:
        if not max_age >= 0:
            raise ConfigurationError(f"max_age is a number of seconds, 0 or more, not {max_age!r}.")
        self.max_age = max_age

    def pull(self, session: Session) -> None:
        """One conditional GET, shared with threads that ask at once; none within ``max_age``."""
        session.wait_turn()
        session.revalidate(max_age=0.0 if session.conflicts else self.max_age)

    def begin(self, session: Session) -> None:
        """Let another session through that was refused too often; if it was, what this one has read may be old."""
        if session.give_way():
            session.require_current()
