"""A forked child keeps its hands off its parent's working copy and locks, and works with a copy of its own.

Whether Python sees the fork, or it is made in C, as uWSGI does: then none of Python's hooks runs.
"""

from __future__ import annotations

from typing import Any

import pytest

from temaki.testing import Server
from tests.integration._children import Place, in_both_formats
from tests.integration._worker import COMPACTS, UNSEEN
from tests.network.relay import Relay

PROGRAM = "_fork.py"


@pytest.fixture(params=["seen", "unseen"], autouse=True)
def _forks(request: pytest.FixtureRequest, place: Place) -> None:
    """How the programs fork."""
    if request.param == "unseen":
        place.env[UNSEEN] = "yes"


@pytest.fixture(params=["private folder", "cache_dir"])
def cache(request: pytest.FixtureRequest, place: Place) -> str | None:
    """Where the parent's working copy is."""
    place.run(PROGRAM, "create", place.url)
    return str(place.cache) if request.param == "cache_dir" else None


def _run(place: Place, cache: str | None, action: str, *arguments: Any, value: int) -> Any:
    """Run an action; the parent found this value at its end, and everything is well. What the children say."""
    found = place.run(PROGRAM, action, place.url, cache, *arguments)
    assert (found["value"], found["integrity"], found["next"]) == (value, "ok", value + 1)
    assert place.stored() == value + 1
    for folder in (None, str(place.cache)):  # the next process of each kind sweeps up after those that were killed
        assert place.run(PROGRAM, "value", place.url, folder) == value + 1
    assert place.private_folders() == []
    return found["child"]


def test_after_binding(place: Place, cache: str | None) -> None:
    """A child that was forked between binding and the first session has its own working copy."""
    assert _run(place, cache, "after_binding", value=1) == 1


def test_with_an_open_connection(place: Place, cache: str | None) -> None:
    """Children and grandchildren leave the inherited connection alone; all see each other's commits."""
    assert _run(place, cache, "with_open_connection", value=10) == list(range(1, 11))


def test_in_a_session(place: Place, cache: str | None) -> None:
    """A session cannot be committed on both sides of a fork: the child is told so, the parent's commit is stored."""
    assert _run(place, cache, "in_session", value=3) == ["ConflictError", 3]


@pytest.mark.parametrize("kind", ["without a lease", "under a lease"])
def test_nothing_of_an_inherited_session_can_be_used(place: Place, cache: str | None, kind: str) -> None:
    """Queries, cursors, raw connections, flush and commit raise temaki's error; the parent's session is unharmed."""
    assert _run(place, cache, "use_inherited_session", kind, value=3) == [["ConflictError"], 3]


@in_both_formats
def test_while_another_thread_commits(place: Place, cache: str | None) -> None:
    """A child that was forked while all locks were held does not wait for a thread that it does not have."""
    assert _run(place, cache, "with_another_thread_in_commit", value=3) == [1, 2, "ok"]


@pytest.mark.parametrize(("how", "value"), [("at once", 4), ("after a session", 7), ("in the parent's session", 4)])
def test_end_of_the_child(place: Place, cache: str | None, how: str, value: int) -> None:
    """What an interpreter does at its end is done in the child to the child's own things only."""
    assert _run(place, cache, "ending_child", how, value=value) == [0, 0, 0]


def test_multiprocessing_pool(place: Place, cache: str | None) -> None:
    """A pool of forked processes: no increment is lost."""
    assert _run(place, cache, "in_pool", 4, 20, value=21) == list(range(2, 22))


@in_both_formats
def test_prefork_server(place: Place, cache: str | None) -> None:
    """Workers that were forked from a warm master, with two threads each: no increment is lost.

    In pages, the master and each worker maintain the database all the time, in a thread of their own.
    """
    if place.format == "pages":
        place.env[COMPACTS] = "yes"
    assert _run(place, cache, "prefork", 4, 4, value=32) == list(range(1, 33))


@pytest.mark.server
def test_prefork_server_on_s3(place: Place, moto: Server) -> None:
    """Forked workers share no connection with their master or with each other, and no increment is lost."""
    url = f"s3://{moto.bucket()}/app.sqlite"
    place.run(PROGRAM, "create", url, env=moto.environment)
    with Relay(moto.endpoint) as relay:
        env = {**moto.environment, "AWS_ENDPOINT_URL_S3": relay.endpoint}
        found = place.run(PROGRAM, "prefork_by_name", url, None, 3, 4, env=env)
        served = relay.served
    assert found["child"] == list(range(2, 15))
    assert (found["value"], found["integrity"], found["next"]) == (14, "ok", 15)
    processes: dict[int, set[str]] = {}
    for one in served:
        processes.setdefault(one.connection, set()).add(one.agent.rpartition("app/")[2].split()[0])
    assert set.union(*processes.values()) == {"master", "worker-0", "worker-1", "worker-2"}
    assert [users for users in processes.values() if len(users) > 1] == []
    assert len(served) > 2 * len(processes), "connections are kept and used again"


def test_child_outlives_its_parent(place: Place) -> None:
    """The parent's end, by ``kill -9``, is nothing to its child; the folder is free once both are gone."""
    place.run(PROGRAM, "create", place.url)
    parent = place.start(PROGRAM, "orphan", place.url, str(place.cache))
    assert parent.hear() > 0
    parent.process.kill()
    assert parent.hear() == [2, "ok", 2]
    assert place.run(PROGRAM, "value", place.url, str(place.cache)) == 2
    assert place.stored() == 2
    assert [entry.name for entry in place.cache.iterdir()] == [place.home().name]
