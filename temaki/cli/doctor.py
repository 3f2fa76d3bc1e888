"""``doctor``: find out whether a configuration can work, and what to do if it cannot."""

from __future__ import annotations

from typing import Annotated

import typer

from temaki.cli.checks import Examination
from temaki.cli.options import AsJson, Url
from temaki.cli.target import Target
from temaki.cli.terminal import FOUND, terminal


def doctor(
    url: Url = None,
    *,
    races: Annotated[bool, typer.Option("--races", help="Let writers race for one object, many times.")] = False,
    requests: Annotated[int, typer.Option(min=1, metavar="N", help="How many requests of each kind to time.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Check this configuration: credentials, bucket, permissions, conditional writes, clock, latency.

    Writes to keys of its own beside the database, and deletes them. Exits with 1 if something does not work.

    Example: temaki doctor s3://my-bucket/app.sqlite --races
    """
    with terminal(as_json=as_json) as out:
        diagnosis = Examination(Target(url, checks_options=False), requests=requests, races=races).run()
        out.show(diagnosis)
        if not diagnosis.works:
            raise typer.Exit(FOUND)
