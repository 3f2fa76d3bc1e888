"""What a sync strategy is: when to pull, what to do before writing, how to push.

The built-in ones are in the package ``temaki_strategies``; a third party's is a subclass of :class:`Strategy`, named
by an entry point in the group ``temaki.strategies`` or passed to ``bind_s3`` as an instance.
:class:`temaki.testing.StrategyTests` is the suite that every one of them has to pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from temaki.engine.session import Session

__all__ = ["Session", "Strategy"]


class Strategy(ABC):
    """How the working copy and the stored object are kept in step.

    One instance serves one bound ``Database``; its methods are called from many threads. The keyword-only parameters
    of ``__init__`` are its options, by which it is configured from ``bind_s3``, the environment and TOML; they need
    annotations.

    None of the methods can break the five promises by accident: temaki pins the snapshot, checks the generation, and
    the upload is a compare-and-swap whatever a strategy does. What it decides is freshness, waiting and cost.

    Attributes:
        writes: False for a strategy that never writes: its sessions need no lock and every write is refused.
    """

    writes: ClassVar[bool] = True

    @abstractmethod
    def pull(self, session: Session) -> None:
        """The session's first touch of the database: bring the working copy up to date, or decide that it is.

        Called again if a commit of another thread is refused at this very moment, which leaves no working copy.

        Raises:
            TemakiError: The session cannot begin.
        """

    def begin(self, session: Session) -> None:  # noqa: B027
        """Before the session's BEGIN IMMEDIATE: may wait, may refuse. Called again for each transaction in it.

        Raises:
            TemakiError: The session cannot write.
        """

    def push(self, session: Session) -> None:
        """After SQLite's own COMMIT, and only if it changed something: publish it, or raise.

        Readers of this process wait meanwhile.

        Raises:
            TemakiError: Nothing was stored, or :class:`~temaki.errors.CommitUnknownError`.
        """
        session.publish()

    def end(self, session: Session) -> None:  # noqa: B027
        """The session is over, however it ended. May be called again; must not raise."""
