"""always-download: every session fetches the whole object."""

from temaki.strategy import Session, Strategy


class AlwaysDownload(Strategy):
    """Fetches all of the object at the start of each session, unconditionally, and swaps at its end.

    For stores whose conditional GET cannot be relied on. Costs the database's size per session; everywhere else
    :class:`~temaki_strategies.EtagCached` does the same for one small request.
    """

    def pull(self, session: Session) -> None:
        """One GET of everything."""
        session.wait_turn()
        session.download()

    def begin(self, session: Session) -> None:
        """Let another session through that was refused too often."""
        session.give_way()
