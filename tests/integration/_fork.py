"""A process that forks, at bad moments, and its children. See ``test_fork.py``."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pony.orm import commit, db_session, flush

from tests.integration._worker import Application, Forked, Gate, create, fork, hear, main, outcome_of, poll, say


def _books(app: Application) -> dict[str, Any]:
    """What the parent finds when the child is gone, and whether it can go on."""
    return {"value": app.value(), "integrity": app.check(), "next": app.increment()}


def after_binding(url: str, cache_dir: str | None) -> dict[str, Any]:
    """Nothing is open yet."""
    app = Application(url, cache_dir=cache_dir)
    child = Forked(app.increment).result()
    return {"child": child, **_books(app)}


def with_open_connection(url: str, cache_dir: str | None) -> dict[str, Any]:
    """The parent's pool has a connection; parent and children write in turn."""
    app = Application(url, cache_dir=cache_dir)
    values = [app.increment()]
    for _ in range(3):
        values += [Forked(app.increment).result(), app.increment()]
    grandchild = Forked(lambda: [app.increment(), Forked(app.increment).result(), app.increment()]).result()
    return {"child": [*values, *grandchild], **_books(app)}


def in_session(url: str, cache_dir: str | None) -> dict[str, Any]:
    """The child's commit of what the parent began is refused; the parent's own is not; a new session is fine."""
    app = Application(url, cache_dir=cache_dir)
    app.increment()

    def end_the_parents() -> list[Any]:
        refused = outcome_of(commit)
        return [refused, outcome_of(db_session.__exit__)]

    with db_session:
        app.step()
        child = Forked(end_the_parents).result()
    new = Forked(app.increment).result()
    return {"child": [child[0], new], **_books(app)}


def use_inherited_session(url: str, cache_dir: str | None, kind: str) -> dict[str, Any]:
    """The child uses what belongs to the parent's session, in every way that there is; the parent goes on."""
    options: dict[str, Any] = {"strategy": "lease-locked"} if kind == "under a lease" else {}
    app = Application(url, cache_dir=cache_dir, **options)
    app.increment()

    def use(connection: Any, cursor: Any) -> list[str]:
        uses: list[Callable[[], object]] = [
            lambda: app.Row.select()[:],
            lambda: app.db.select("count(*) from Row"),
            lambda: app.db.execute("insert into Row (id, text) values (99, 'x')"),
            lambda: connection.execute("select 1"),
            connection.cursor,
            connection.commit,
            connection.rollback,
            lambda: connection.backup(connection),
            cursor.fetchone,
            cursor.fetchmany,
            cursor.fetchall,
            lambda: cursor.execute("select 1"),
            lambda: cursor.executemany("select ?", [(1,)]),
            lambda: app.Row(id=98, text="x") and flush(),
            commit,
        ]
        outcomes = {outcome_of(use) for use in uses}
        connection.close()
        outcome_of(db_session.__exit__)  # after a commit that failed there is nothing left to say
        return sorted(outcomes)

    with db_session:
        app.step()
        connection = app.db.get_connection()
        rows = "select * from Row union all select * from Row"
        expected = connection.execute(rows).fetchall()
        cursor = connection.execute(rows)
        child = Forked(use, connection, cursor).result()
        assert cursor.fetchall() == expected, "the parent's is as it was"
    new = Forked(app.increment).result()
    return {"child": [child, new], **_books(app)}


def with_another_thread_in_commit(url: str, cache_dir: str | None) -> dict[str, Any]:
    """A thread holds all locks when the process forks. The child has sessions of its own all the same."""
    gate = Gate(url)
    app = Application(url, cache_dir=cache_dir, store=gate)
    app.increment()
    uploading, free = threading.Event(), threading.Event()

    def hold(_: str) -> None:
        uploading.set()
        assert free.wait(30)

    gate.wait = hold
    gate.points = {"before put"}
    thread = threading.Thread(target=app.increment)
    thread.start()
    assert uploading.wait(20)
    child = Forked(lambda: [app.value(), app.increment(), app.check()]).result()
    free.set()
    thread.join()
    return {"child": child, **_books(app)}


def ending_child(url: str, cache_dir: str | None, how: str) -> dict[str, Any]:
    """A child that ends with the whole teardown of an interpreter, on the connections that it inherited."""
    app = Application(url, cache_dir=cache_dir)
    app.increment()
    children = []
    for _ in range(3):
        pid = fork()
        if not pid:
            if how == "after a session":
                app.increment()
            elif how == "in the parent's session":
                db_session.__enter__()
                app.step()
            sys.exit(0)  # up through main(), and on through the end of the interpreter
        children.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        app.increment()
    return {"child": children, **_books(app)}


def in_pool(url: str, cache_dir: str | None, processes: int, times: int) -> dict[str, Any]:
    """``multiprocessing`` with its own fork, while the parent has a connection."""
    app = Application(url, cache_dir=cache_dir)
    app.increment()
    _global.append(app)
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        values = pool.map(_increment_global, range(times), chunksize=1)
    return {"child": sorted(values), **_books(app)}


_global: list[Application] = []


def _increment_global(_: int) -> int:
    return _global[0].increment()


def prefork(url: str, cache_dir: str | None, processes: int, times: int) -> dict[str, Any]:
    """As a server does: bind and warm up in the master, then fork workers that serve at once, with threads."""
    app = Application(url, cache_dir=cache_dir)
    app.value()

    def serve() -> list[int]:
        values: list[int] = []
        threads = [
            threading.Thread(target=lambda: values.extend(app.increment() for _ in range(times))) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return values

    workers = [Forked(serve) for _ in range(processes)]
    return {"child": sorted(value for worker in workers for value in worker.result()), **_books(app)}


def prefork_by_name(url: str, cache_dir: str | None, processes: int, times: int) -> dict[str, Any]:
    """The same on S3, where each process tells its name in the user agent of its requests; master last."""
    app = Application(url, cache_dir=cache_dir)
    os.environ["AWS_SDK_UA_APP_ID"] = "master"
    app.increment()

    def serve(name: str) -> list[int]:
        os.environ["AWS_SDK_UA_APP_ID"] = name  # for the client that is made here; an inherited one is the master's
        with ThreadPoolExecutor(2) as threads:
            return list(threads.map(lambda _: app.increment(), range(times)))

    workers = [Forked(serve, f"worker-{number}") for number in range(processes)]
    values = [app.increment()]
    return {"child": sorted([*values, *(value for worker in workers for value in worker.result())]), **_books(app)}


def orphan(url: str, cache_dir: str) -> None:
    """The parent is killed while its child lives, and the child goes on."""
    app = Application(url, cache_dir=cache_dir)
    app.increment()
    parent = os.getpid()
    pid = fork()
    if pid:
        say(pid)
        hear()
        return
    poll(lambda: os.getppid() != parent)
    say([app.increment(), app.check(), len(list(Path(cache_dir).iterdir()))])
    os._exit(0)


def value(url: str, cache_dir: str | None) -> int:
    """The counter, in a new process."""
    return Application(url, cache_dir=cache_dir).value()


if __name__ == "__main__":
    main(
        create,
        after_binding,
        with_open_connection,
        in_session,
        use_inherited_session,
        with_another_thread_in_commit,
        ending_child,
        in_pool,
        prefork,
        prefork_by_name,
        orphan,
        value,
    )
