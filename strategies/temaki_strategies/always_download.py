"""The strategy always-download: every session downloads the whole object."""

from temaki.strategy import Session, Strategy


class AlwaysDownload(Strategy):
    """Downloads the whole object at the start of each session, and swaps at its end.

    For stores whose conditional GET does not work. Each session costs a download of the whole database. With every
    other store, :class:`~temaki_strategies.EtagCached` does the same with one small request.
    """

    def pull(self, session: Session) -> None:
        """Download the whole object with one GET."""
        session.wait_turn()
        session.download()

    def begin(self, session: Session) -> None:
        """Wait for a session that was refused too often."""
        session.give_way()
