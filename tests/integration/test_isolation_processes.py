"""Processes of an application without ``retry``, under ``isolation="pony"``: none of their sessions fails."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from temaki.testing import Server
from tests.integration._children import Place, in_both_formats

PROGRAM = "_isolation.py"
SESSIONS = 60


def _save(place: Place, url: str, env: Mapping[str, str], workers: int, **options: str) -> tuple[list[str], int]:
    """So many sessions in all, each on its worker's own row; those that failed, and how many are stored."""
    place.run(PROGRAM, "create", url, workers, env=env)
    children = [
        place.start(PROGRAM, "save", url, number, SESSIONS // workers, options, env=env) for number in range(workers)
    ]
    for child in children:
        child.hear("ready")
    for child in children:
        child.tell()
    results = [child.result(patience=120) for child in children]
    rows = place.run(PROGRAM, "stored", url, env=env)
    failed = [error for result in results for error in result["failed"]]
    assert [code for code, _ in rows] == [result["returned"] for result in results], "each returned code is stored"
    return failed, sum(saves for _, saves in rows)


@in_both_formats
@pytest.mark.parametrize("workers", [2, 4])
def test_every_session_is_stored(place: Place, workers: int) -> None:
    """60 of 60, as on plain SQLite."""
    assert _save(place, place.url, {}, workers, isolation="pony") == ([], SESSIONS)


@pytest.mark.server
@pytest.mark.parametrize("workers", [2, 4])
def test_every_session_is_stored_on_seaweedfs(place: Place, seaweedfs: Server, workers: int) -> None:
    """The same on a real server."""
    url = f"s3://{seaweedfs.bucket()}/app.sqlite"
    assert _save(place, url, seaweedfs.environment, workers, isolation="pony") == ([], SESSIONS)


def test_the_default_refuses_some(place: Place) -> None:
    """Without the option the same sessions do meet each other: the tests above are not about nothing."""
    failed, saved = _save(place, place.url, {}, 4, isolation="snapshot")
    assert failed
    assert saved == SESSIONS - len(failed)
    assert all("ConflictError" in error or "CommitException" in error for error in failed)
