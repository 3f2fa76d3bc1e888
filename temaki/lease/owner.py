"""Who has the lease: a process, and how another one on the same machine finds out that it is gone.

A process id says little: another machine or another container has one of the same number, and on the same machine it is
given to another process one day. So a record also names the boot of the machine, the namespaces in which the process
id and the start time were read, and the start time of the process. Only where all of these are the reader's own can the
reader's system tell whether that process still exists. Everywhere else, and where a system does not tell, nobody is
gone: then the lease runs out by itself.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that wrote a record.

    Attributes:
        host: The machine's name.
        pid: The process id on that machine.
        token: Random text that tells two processes apart, whatever their names are.
        boot: Id of the machine's boot; None if the system does not say.
        namespaces: Namespaces in which ``pid`` and ``started`` are meant; None if the system does not say.
        started: Start of the process, in the system's own unit; None if the system does not say.
    """

    host: str
    pid: int
    token: str
    boot: str | None = None
    namespaces: str | None = None
    started: int | None = None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @classmethod
    def here(cls, token: str) -> Owner:
        """This process at this moment. Facts from an earlier moment may be true of its clones, too."""
        host, pid = socket.gethostname(), os.getpid()
        with suppress(OSError, ValueError, IndexError):  # no Linux, or a /proc of another namespace
            boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            status = _status("self")
            if status.pid == pid:
                return cls(host, pid, token, boot, _namespaces(), status.started)
        return cls(host, pid, token)

    def is_gone(self) -> bool:
        """Whether the process has certainly ended. False if this process cannot tell."""
        me = Owner.here(self.token)
        if None in {self.boot, self.namespaces, self.started} or self.pid <= 0:
            return False
        if (self.host, self.boot, self.namespaces) != (me.host, me.boot, me.namespaces):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            pass  # there, and somebody else's; or no number that a process has
        try:
            status = _status(str(self.pid))
        except (OSError, ValueError, IndexError):
            return False  # hidden from this user (/proc mounted with hidepid), or ending at this moment
        return status.started != self.started or status.is_dead


class _Status(NamedTuple):
    pid: int
    started: int  # clock ticks since the boot
    is_dead: bool  # ended, and not yet waited for by its parent


def _status(process: str) -> _Status:
    """The state of a process by /proc: proc_pid_stat(5)."""
    text = (_PROC / process / "stat").read_text(encoding="utf-8", errors="replace")
    name_ends = text.rindex(")")  # the name may have spaces and brackets in it
    fields = text[name_ends + 1 :].split()  # from the third on
    state, threads, started = fields[0], int(fields[17]), int(fields[19])
    # A process whose first thread has ended looks like that, too, while its other threads go on.
    return _Status(int(text.split(maxsplit=1)[0]), started, state in {"Z", "X"} and threads <= 1)


def _namespaces() -> str:
    """The namespaces of this process's id and start time: pid_namespaces(7), time_namespaces(7)."""
    found = [os.readlink(_PROC / "self/ns/pid")]
    with suppress(FileNotFoundError):  # Linux before 5.6
        found.append(os.readlink(_PROC / "self/ns/time"))
    return " ".join(found)
