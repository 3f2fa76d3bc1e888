"""Runs the ``temaki`` command in processes that are forked from one that has imported everything.

Starting Python and importing boto3 takes ten times as long as most commands. Run it as a script, with the number of a
socket. Each message on it is a JSON object with ``arguments``, ``folder`` and ``env``, and carries the three standard
files. The answers are the child's id, and then its exit status as :func:`os.waitpid` gives it.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import tempfile

PRELOADED = ("temaki.cli.app", "temaki.formats.pages.compact", "temaki.formats.pages.format", "pony.orm", "boto3")
"""What the commands import, sooner or later."""


def serve(orders: socket.socket) -> list[str] | None:
    """Fork a child for each message. Returns in each child, with its arguments; and None when the socket ends."""
    while True:
        message, files, _, _ = socket.recv_fds(orders, 1 << 20, 3)
        if not message:
            return None
        order = json.loads(message)
        child = os.fork()
        if not child:
            orders.close()
            for number, file in enumerate(files):
                os.dup2(file, number)
                os.close(file)
            os.environ.clear()
            os.environ.update(order["env"])
            os.chdir(order["folder"])
            tempfile.tempdir = None
            return list(order["arguments"])
        for file in files:
            os.close(file)
        orders.sendall(b"%d\n" % child)
        orders.sendall(b"%d\n" % os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for module in PRELOADED:
        importlib.import_module(module)
    arguments = serve(socket.socket(fileno=int(sys.argv[1])))
    if arguments is not None:
        from temaki.cli import main

        sys.argv = ["temaki", *arguments]
        main()
