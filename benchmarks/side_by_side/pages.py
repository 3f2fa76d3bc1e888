"""A database in the format ``pages``, past the proxy: made, changed by another one, and read as its page says."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from temaki import Database, db_session
from temaki.clock import SystemClock
from temaki.formats.choice import by_number
from temaki.formats.format import WholeTask
from temaki.remote.remote import Remote, new_commit
from temaki.replica.image import Image
from temaki.stores.urls import open_store
from temaki.version import PAGES_FORMAT

if TYPE_CHECKING:
    from collections.abc import Callable

_FORMAT: Final = Path(__file__).parents[2] / "docs" / "reference" / "pages-format.md"
_BLOCK: Final = re.compile(r"```python\n(.*?)```", re.DOTALL)


class Elsewhere:
    """Another process that uses the database, on a connection that nobody counts.

    Args:
        client: For the bucket.
        bucket: Its name.
        key: The database's key in it.
    """

    def __init__(self, client: Any, bucket: str, key: str) -> None:
        self._client, self._bucket, self._key, self._url = client, bucket, key, f"s3://{bucket}/{key}"
        self._db: Database | None = None

    def make(self, file: Path) -> None:
        """Store a plain SQLite file as the first version."""
        store, key = open_store(self._url, client=self._client)
        remote = Remote(store, key, url=self._url, clock=SystemClock(), timeout=60)
        form, commit = by_number(PAGES_FORMAT), new_commit()
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            body = form.store_whole(WholeTask(Image.of_file(descriptor, 1), None, commit, 1, remote.source))
            remote.publish(
                body.content,
                body.size,
                None,
                sequence=1,
                commit_id=commit,
                metadata=body.metadata,
                written_as=form.number,
                rebuild=body.rebuild,
            )
        finally:
            os.close(descriptor)

    def rename(self, name: str) -> None:
        """Give row 1 another name, in one commit."""
        if self._db is None:
            self._db = Database()
            self._db.bind_s3(self._url, client=self._client, strategy="etag-cached", compact="manual")
        with db_session:
            self._db.execute("UPDATE item SET name = $name WHERE id = 1", {"name": name})

    def save(self, path: Path) -> None:
        """Write what is stored into a plain SQLite file: with the program of the page about the format."""
        folder = Path(f"{path}.pages")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._download(self._key, path)
        for found in self._client.list_objects_v2(Bucket=self._bucket, Prefix=f"{self._key}.pages/").get(
            "Contents", ()
        ):
            self._download(found["Key"], folder / found["Key"].rpartition("/")[2])
        path.write_bytes(_reader()(path))

    def _download(self, key: str, path: Path) -> None:
        with path.open("wb") as file:
            shutil.copyfileobj(self._client.get_object(Bucket=self._bucket, Key=key)["Body"], file)

    def close(self) -> None:
        """Let go of everything."""
        if self._db is not None:
            self._db.unbind()


def _reader() -> Callable[[Path], bytes]:
    block = _BLOCK.search(_FORMAT.read_text(encoding="utf-8"))
    assert block is not None
    names: dict[str, Any] = {"__name__": "block"}
    exec(compile(block[1], str(_FORMAT), "exec"), names)
    read: Callable[[Path], bytes] = names["read"]
    return read
