"""What an operator sees of a lease that a test uses."""

from __future__ import annotations

from temaki.lease.lease import Lease
from temaki.lease.operator import Operator


def operator(lease: Lease) -> Operator:
    """Somebody who uses ``temaki lease`` on the same record."""
    return Operator(lease._record, url=lease.url, clock=lease._clock, purpose=lease._purpose)
