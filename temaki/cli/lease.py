"""``lease show`` and ``lease break``: show who holds the lease of ``lease-locked``, and evict the holder."""

from __future__ import annotations

from dataclasses import replace

import typer

from temaki.cli.options import AsJson, Url, Yes
from temaki.cli.plain_help import PlainCommand, PlainGroup
from temaki.cli.results import LeaseResult
from temaki.cli.tables import moment
from temaki.cli.target import Target, as_lease
from temaki.cli.terminal import Terminal, terminal
from temaki.lease.operator import Operator
from temaki.lease.record import SUFFIX, LeaseObject, LeaseRecord

lease = typer.Typer(
    cls=PlainGroup,
    no_args_is_help=True,
    help="The lease of the strategy lease-locked: show who holds it, or evict the holder.",
)


@lease.command(cls=PlainCommand)
def show(url: Url = None, *, as_json: AsJson = False) -> None:
    """Show who holds the lease.

    Example: temaki lease show s3://my-bucket/app.sqlite
    """
    with terminal(as_json=as_json) as out:
        target = Target(url)
        state = target.lease()
        if not state.generation and target.current_or_none() is None:
            out.note(f"There is no database at {target.url} (yet). Check the URL.")
        out.show(LeaseResult(url=target.url, lease=state))


@lease.command("break", cls=PlainCommand)
def break_(url: Url = None, *, yes: Yes = False, as_json: AsJson = False) -> None:
    """Evict the holder of the lease, after asking.

    The evicted process finds out when it renews the lease, within a third of its ttl, or when another process stores a
    commit. It stores nothing of what it has begun. A dead process needs no eviction: its lease expires by itself.

    Example: temaki lease break s3://my-bucket/app.sqlite
    """
    with terminal(as_json=as_json) as out:
        out.show(evict(Target(url), out, yes=yes))


def evict(target: Target, out: Terminal, *, yes: bool) -> LeaseResult:
    """Evict the holder of the lease, as :func:`break_` does.

    Args:
        target: The database.
        out: The terminal, for the question.
        yes: Whether to go on without asking.

    Raises:
        LeaseLostError: The lease has changed hands since the command read it. Nothing was done.
        LeaseRecordError: The object in the lease's place is no lease.
    """
    seen = target.lease_object().read()
    if seen is None or not seen.record.held:
        out.note("Nobody holds the lease.")
        return LeaseResult(url=target.url, lease=as_lease(None if seen is None else seen.record))
    state = as_lease(seen.record)
    out.confirm(
        f"Evict {state.holder} from the lease on {target.url}? It has held it since {moment(state.since)} UTC "
        f"({state.purpose}, generation {state.generation}). It finds out within {seen.record.ttl / 3:.1f} s, and what "
        "it is writing then is refused.",
        yes=yes,
    )
    out.so_far = f"See whether {state.holder} was evicted: temaki lease show {target.url}"
    return LeaseResult(url=target.url, lease=as_lease(_break(target, seen.record)), evicted=state.holder)


def _break(target: Target, shown: LeaseRecord) -> LeaseRecord:
    """Evict the holder that was shown, and nobody else."""
    record = LeaseObject(target.store, target.key + SUFFIX, replace(target.retrying, timeout=shown.ttl / 3))
    return Operator(record, url=target.url, clock=target.clock).break_(shown)
