"""Many processes start at once, on an empty bucket and with new rows: one uploads, all come up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from temaki.stores import open_store
from temaki.testing import Server
from tests.integration._children import Place, in_both_formats

PROGRAM = "_seeding.py"


def start(place: Place, url: str, versions: list[str], env: Mapping[str, str] | None = None) -> list[Any]:
    """Processes with these versions of the rows, at once."""
    children = [place.start(PROGRAM, "start", url, version, env=env) for version in versions]
    for child in children:
        child.hear("ready")
    for child in children:
        child.tell()
    return [child.result() for child in children]


def uploads(results: list[Any]) -> list[int]:
    """How many each process has made."""
    return sorted(result["uploads"] for result in results)


def rows_of(results: list[Any]) -> set[Any]:
    """What they found, all of them."""
    return {(*result["versions"], result["rows"]) for result in results}


def assert_one_uploads(place: Place, url: str, processes: int, env: Mapping[str, str] | None = None) -> None:
    """Twenty first starts; then a deployment, in which old code still starts beside new."""
    first = start(place, url, ["v1"] * processes, env)
    assert uploads(first) == [0] * (processes - 1) + [1]
    assert rows_of(first) == {("v1", 50)}
    deployment = start(place, url, ["v1", "v2"] * (processes // 2), env)
    assert uploads(deployment) == [0] * (processes - 1) + [1]
    assert all(result["rows"] == 50 for result in deployment)
    after = start(place, url, ["v1", "v2"], env)
    assert uploads(after) == [0, 0]
    assert rows_of(after) == {("v2", 50)}


@pytest.mark.slow
@in_both_formats
def test_twenty_starts_on_a_folder(place: Place) -> None:
    """On an empty bucket, and with the rows of a running system changed: one upload each."""
    assert_one_uploads(place, place.url, 20)
    store, key = open_store(place.url)
    assert store.head(key).metadata["temaki-seq"] == "2"


@pytest.mark.slow
@pytest.mark.server
def test_twenty_starts_on_moto(place: Place, moto: Server) -> None:
    """The same through boto3."""
    assert_one_uploads(place, f"s3://{moto.bucket()}/app.sqlite", 20, moto.environment)
