"""The systems: what each is called, installed from, run by, and asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

KIB, MIB = 1 << 10, 1 << 20
EVERYTHING: Final = frozenset({"read", "read-after", "commit", "commit-100", "first", "writers", "readers"})
OWN: Final = ("temaki",)
"""The packages of a system that is this tree's."""
READS: Final = frozenset({"read", "read-after", "first"})


@dataclass(frozen=True)
class Entry:
    """One system, in one configuration.

    Attributes:
        name: For people.
        module: In ``systems/``.
        packages: What to install into its environment; none: Python alone.
        python: The oldest that it runs on.
        options: For the module.
        workloads: What it can do.
        largest: Bytes of database up to which it is asked.
        scattered: Its database is one object for each page.
        in_pages: Its database is in temaki's format ``pages``.
        why_not: What is left out, and why.
        note: How it is used.
    """

    name: str
    module: str
    packages: tuple[str, ...] = ()
    python: tuple[int, int] = (3, 11)
    options: dict[str, str] = field(default_factory=dict)
    workloads: frozenset[str] = EVERYTHING
    largest: int = 1 << 40
    scattered: bool = False
    in_pages: bool = False
    why_not: str = ""
    note: str = ""


def _temaki(name: str, workloads: frozenset[str] = EVERYTHING, *, in_pages: bool = False, **options: str) -> Entry:
    label = " ".join([name, *(f"{key}={value}" for key, value in options.items()), *(["in pages"] if in_pages else [])])
    return Entry(
        f"temaki {label}",
        "temaki_orm",
        OWN,
        options={"strategy": name, **options},
        workloads=workloads,
        in_pages=in_pages,
        note="The format `pages`. Another one's commit is another temaki's." if in_pages else "",
    )


ENTRIES: Final = (
    Entry("local SQLite", "local", note="The floor: a file on this machine that all processes share. No S3."),
    Entry(
        "boto3, requests alone",
        "sdk",
        ("boto3",),
        workloads=EVERYTHING - {"writers", "readers"},
        why_not="It keeps no database, so there is nothing to count up.",
        note="What the SDK alone costs: a conditional GET for a read, whose body is read in pieces and dropped; "
        "that and a conditional PUT for a commit.",
    ),
    _temaki("etag-cached"),
    _temaki("etag-cached", in_pages=True),
    _temaki("lease-locked"),
    _temaki("lease-locked", frozenset({"writers"}), hold="0.5"),
    _temaki("always-download"),
    _temaki("read-only", READS | {"readers"}),
    Entry(
        "by hand, one GET, one PUT",
        "by_hand",
        ("boto3",),
        note="What sqlite-s3 and Temaki for PHP do, in Python with boto3: download, work, upload if changed.",
    ),
    Entry(
        "by hand, boto3 transfers",
        "by_hand",
        ("boto3",),
        options={"transfers": "yes"},
        note="The same with boto3's download_file and upload_file: a HEAD, then 8 MB parts on up to ten connections.",
    ),
    Entry(
        "django-s3-sqlite",
        "django_s3",
        ("django-s3-sqlite", "boto3"),
        note="boto3 is not among its requirements and is installed beside it. It asks S3 once per process: later "
        "sessions of a warm process make no request and read what was there at its start.",
    ),
    Entry(
        "buckethead",
        "buckethead_db",
        ("buckethead",),
        python=(3, 13),
        note="A `with` block for each session: only its start restores, and only its end is sure to store. It is "
        "made for one process that keeps the block open.",
    ),
    Entry(
        "sqlite-s3vfs",
        "s3vfs",
        ("sqlite-s3vfs",),
        workloads=READS | {"commit", "commit-100"},
        largest=10 * MIB,
        scattered=True,
        why_not="It has no locks; its README has callers see to it that nothing overlaps with a write. Beyond 10 MB "
        "the database would be tens of thousands of objects.",
    ),
    Entry(
        "s3sqlite", "s3sqlite_vfs", ("s3sqlite",), workloads=READS | {"readers"}, why_not="It only reads, by design."
    ),
)
