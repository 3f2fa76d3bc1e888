"""What ``temaki status`` and ``temaki doctor`` say of a database in pages."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pony.orm import Required, db_session

from temaki import Database
from temaki.cli.findings import Findings
from temaki.cli.folder_checks import FolderChecks
from temaki.cli.look import look
from temaki.cli.target import Target
from temaki.cli.terminal import Terminal
from temaki.formats.pages.head import Head
from temaki.formats.pages.manifest import decode
from temaki.store import LifecycleRule, LifecycleStore
from temaki.stores import open_store
from temaki.stores.memory import MemoryStore
from temaki.stores.s3.store import S3Store
from temaki.testing import Server
from temaki.testing.counting import CountingStore
from tests.integration._command import USERS, Commands
from tests.network.messages import s3_error
from tests.network.policies import Refuse
from tests.network.relay import Exchange, Relay
from tests.threads import in_thread
from tests.unit.test_pages_cycle import limits


def head_of(url: str) -> Head:
    """The stored head."""
    store, key = open_store(url)
    download = store.get(key)
    assert download is not None
    with download:
        return decode(download.read(1 << 22))


def make(url: str, rows: int = 600) -> None:
    """A database in pages with a base, segments, a tail and condemned objects."""
    db = Database()

    class Row(db.Entity):  # type: ignore[name-defined]
        body = Required(str)

    db.bind_s3(url, format="pages")
    db.generate_mapping(create_tables=True)
    with db_session:
        for _ in range(rows):
            Row(body=os.urandom(400).hex())
    with limits(TAIL_LIMIT=8 << 10, TAIL_KEEP=2 << 10, UNIT=4 << 10, FAN=4):
        for number in range(40):
            with db_session:
                Row.get(id=1 + number * 14).body = os.urandom(400).hex()
    with db_session:
        Row.get(id=1).body = "the newest page, which stays in the head"
    db.unbind()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a database in pages, in a folder."""
    (tmp_path / "bucket").mkdir()
    url = f"file://{tmp_path}/bucket/app.sqlite"
    in_thread(lambda: make(url))
    return url


@pytest.fixture
def temaki(tmp_path: Path) -> Commands:
    """Commands."""
    return Commands(tmp_path, {})


def test_status_shows_what_a_database_in_pages_consists_of(temaki: Commands, url: str) -> None:
    """Base, segments, tail, condemned, and the cost of a full pull: the numbers that the head and a pull give."""
    head = head_of(url)
    assert head.live
    assert head.tail
    assert head.condemned
    found = temaki("status", url, "--json").json("status")
    assert (found["format"], found["page_size"], found["pages"]) == ("pages", head.page_size, head.page_count)
    assert found["version"]["size"] == head.size
    assert found["tables"] == [{"name": "Row", "rows": 600}]
    layout = found["layout"]
    assert layout["base"] == {"sequence": head.base.sequence, "size": head.base.size}
    assert layout["segments"] == {"number": len(head.segments), "size": sum(one.size for one in head.segments)}
    assert layout["tail"] == {"number": len(head.tail), "size": sum(len(one.image) for one in head.tail)}
    assert (layout["since"], layout["condemned"], layout["claimed"]) == (head.since, len(head.condemned), None)
    text = temaki("status", url).out
    for part in ("pages", f"of version {head.base.sequence}", f"{len(head.condemned)} objects", "after temaki compact"):
        assert part in text


def test_status_tells_what_a_full_pull_costs(url: str) -> None:
    """Exactly as many requests and bytes as the pull makes that ``status`` itself makes for the tables."""
    target = Target(url)
    counting = CountingStore(target.store)
    target.store = counting
    target.remote = target.remote_on(counting)
    found = look(target, Terminal(as_json=True), quick=False)
    assert found.layout is not None
    gets = [call for call in counting.calls if call.verb == "get" and not call.key.endswith(".lease")]
    assert found.layout.full_pull.requests == len(gets)
    store, key = open_store(url)
    fetched = sum(store.head(call.key).size for call in gets)
    assert found.layout.full_pull.size == fetched
    assert found.layout.full_pull.ratio == pytest.approx(fetched / found.version.size, abs=0.001)
    assert found.layout.compacted.requests == 2
    assert found.layout.compacted.size == store.head(key).size + found.version.size


def test_a_quick_status_needs_the_head_alone(url: str) -> None:
    """It shows the same, without the tables, and asks for nothing in the folder."""
    target = Target(url)
    full = look(target, Terminal(as_json=True), quick=False)
    counting = CountingStore(target.store)
    target.store = counting
    target.remote = target.remote_on(counting)
    quick = look(target, Terminal(as_json=True), quick=True)
    assert (quick.layout, quick.version, quick.tables) == (full.layout, full.version, None)
    assert [(call.verb, call.key) for call in counting.calls] == [
        ("get", "app.sqlite"),
        ("head", "app.sqlite"),
        ("get", "app.sqlite.lease"),
    ]


# -- doctor -----------------------------------------------------------------------------------------------------------


class Bucket:
    """A bucket at moto with a database in pages, and commands that reach it on a way on which things can go wrong."""

    def __init__(self, moto: Server, way: Relay, folder: Path) -> None:
        self.name, self.client, self.way = moto.bucket(), moto.client(), way
        self.client.put_bucket_versioning(Bucket=self.name, VersioningConfiguration={"Status": "Enabled"})
        environ = {**moto.environment, "AWS_ENDPOINT_URL_S3": way.endpoint, "TEMAKI_FORMAT": "pages"}
        self.temaki, self.url = Commands(folder, environ), f"s3://{self.name}/app.sqlite"

    def push(self, form: str = "pages") -> None:
        """Make the database."""
        self.temaki.env["TEMAKI_FORMAT"] = form
        self.temaki.file("app.sqlite", *USERS)
        assert self.temaki("push", self.url, "app.sqlite").code == 0

    def rules(self, *rules: dict[str, Any]) -> None:
        """The bucket's lifecycle rules."""
        filled = [{"ID": f"rule {number}", "Status": "Enabled", **rule} for number, rule in enumerate(rules)]
        self.client.put_bucket_lifecycle_configuration(
            Bucket=self.name,
            LifecycleConfiguration={"Rules": filled},  # type: ignore[typeddict-item]
        )

    def doctor(self) -> dict[str, Any]:
        """Findings by check; and that nothing was left in the bucket."""
        before = self.keys()
        found = self.temaki("doctor", self.url, "--requests", "1", "--json")
        diagnosis = found.json("doctor")
        findings = diagnosis["findings"]
        assert found.code == int(not diagnosis["works"])
        assert self.keys() == before
        return {one["check"]: one for one in findings}

    def keys(self) -> set[str]:
        """What is in the bucket."""
        return {one["Key"] for one in self.client.list_objects_v2(Bucket=self.name).get("Contents", ())}


@pytest.fixture
def bucket(moto: Server, tmp_path: Path) -> Iterator[Bucket]:
    """See there."""
    with Relay(moto.endpoint) as way:
        yield Bucket(moto, way, tmp_path)


@pytest.mark.parametrize("exists", [True, False])
def test_doctor_looks_into_the_folder(bucket: Bucket, exists: bool) -> None:
    """For a database in pages, and for one that is to be made in pages; every check is passed, nothing is left."""
    if exists:
        bucket.push()
    found = bucket.doctor()
    assert found["pages"]["state"] == "ok"
    assert "app.sqlite.pages/" in found["pages"]["found"]
    assert found["lifecycle"]["state"] == "ok"
    assert found.get("objects", {"state": None})["state"] == ("ok" if exists else None)
    assert "app.sqlite.pages/" in found["versioning"]["advice"]
    if exists:
        assert "in pages" in found["database"]["found"]


def test_doctor_leaves_a_database_in_one_file_alone(bucket: Bucket) -> None:
    """It has no folder; the stored database decides, whatever the setting says."""
    bucket.push("file")
    bucket.temaki.env["TEMAKI_FORMAT"] = "pages"
    found = bucket.doctor()
    assert not {"pages", "objects"} & found.keys()
    assert "in one file" in found["database"]["found"]


def _in_the_folder(method: str) -> Callable[[Exchange], bytes | None]:
    def refuse(request: Exchange) -> bytes | None:
        is_listing = "list-type" in request.path and ".pages" in request.path
        is_there = ".pages/" in request.path.partition("?")[0]
        return s3_error(403, "AccessDenied") if request.method == method and (is_listing or is_there) else None

    return refuse


def _listing_of_the_folder(request: Exchange) -> bytes | None:
    is_it = "list-type" in request.path and "pages" in request.path
    return s3_error(403, "AccessDenied") if is_it else None


@pytest.mark.parametrize(
    ("fault", "state", "permission"),
    [
        (_in_the_folder("PUT"), "failed", "s3:PutObject"),
        (_in_the_folder("GET"), "failed", "s3:GetObject"),
        (_in_the_folder("DELETE"), "warning", "s3:DeleteObject"),
        (_listing_of_the_folder, "warning", "s3:ListBucket"),
    ],
)
def test_doctor_finds_what_the_folder_lacks(
    bucket: Bucket, fault: Callable[[Exchange], bytes | None], state: str, permission: str
) -> None:
    """The key has all permissions, and the folder has not: which one, and what to grant."""
    bucket.way.policy = Refuse(fault)
    left = bucket.keys()
    found = bucket.temaki("doctor", bucket.url, "--requests", "1", "--json").json("doctor")["findings"]
    (pages,) = (one for one in found if one["check"] == "pages")
    assert pages["state"] == state
    assert permission in pages["found"]
    assert "app.sqlite.pages/* too" in pages["advice"]
    assert all(one["state"] in {"ok", "skipped"} for one in found if one["check"] in {"write", "delete", "bucket"})
    assert len(bucket.keys() - left) == (permission == "s3:DeleteObject")


def test_doctor_finds_a_missing_and_an_archived_object(bucket: Bucket) -> None:
    """It asks for one byte of each object that the head names, so that a cold start is not the first to find out."""
    bucket.push()
    base = _base(bucket)
    key = f"app.sqlite.pages/{base}"
    bucket.way.policy = Refuse(
        lambda request: s3_error(403, "InvalidObjectState") if key in request.path and request.method == "GET" else None
    )
    archived = bucket.doctor()["objects"]
    assert (archived["state"], base in archived["found"]) == ("failed", True)
    assert "restore-object" in archived["advice"]
    bucket.way.policy = Refuse(lambda _request: None)
    bucket.client.delete_object(Bucket=bucket.name, Key=key)
    missing = bucket.doctor()["objects"]
    assert (missing["state"], base in missing["found"]) == ("failed", True)
    assert "delete marker" in missing["found"]


def _base(bucket: Bucket) -> str:
    body = bucket.client.get_object(Bucket=bucket.name, Key="app.sqlite")["Body"].read()
    return decode(body).base.name


DAYS = {"NoncurrentVersionExpiration": {"NoncurrentDays": 30}}
EXPIRE: dict[str, Any] = {"Expiration": {"Days": 90}}


def test_doctor_finds_rules_that_take_away_what_is_needed(bucket: Bucket) -> None:
    """It names the rule, and says what to exempt."""
    bucket.push()
    bucket.rules({"Filter": {"Prefix": "app."}, **EXPIRE})
    found = bucket.doctor()["lifecycle"]
    assert found["state"] == "failed"
    assert "'rule 0' for app.*" in found["found"]
    assert "app.sqlite.*" in found["advice"]


class _Ruled(MemoryStore):
    """A bucket with one rule."""

    def __init__(self, rule: LifecycleRule) -> None:
        super().__init__()
        self.rule = rule

    def lifecycle(self) -> list[LifecycleRule]:
        """See :meth:`temaki.store.LifecycleStore.lifecycle`."""
        return [self.rule]


def rule_for(prefix: str, *, expires: bool = False, archives: bool = False, days: int | None = None) -> LifecycleRule:
    """An enabled rule."""
    return LifecycleRule("", prefix, expires=expires, archives=archives, old_versions_days=days)


@pytest.mark.parametrize(
    ("rule", "in_pages", "in_file"),
    [
        (rule_for("", expires=True), "failed", "failed"),
        (rule_for("app.sqlite", archives=True), "failed", "failed"),
        (rule_for("app.sqlite.lease", expires=True), "failed", "failed"),
        (rule_for("app.sqlite.pages/", expires=True), "failed", "ok"),
        (rule_for("app.sqlite.pages/base-", archives=True), "failed", "ok"),
        (rule_for("app.sqlite2", expires=True), "ok", "ok"),
        (rule_for("logs/", expires=True), "ok", "ok"),
        (rule_for("", days=30), "ok", "ok"),
        (rule_for("app.sqlite.pages/", days=30), "warning", "ok"),
        (rule_for("app.sqlite.pages/seg-", days=30), "warning", "ok"),
        (rule_for("logs/", days=30), "ok", "ok"),
    ],
)
def test_which_rules_take_away_what_is_needed(rule: LifecycleRule, in_pages: str, in_file: str) -> None:
    """Those that remove or archive current objects; old versions have to be kept as long as their objects."""
    target = Target("memory://ruled/app.sqlite")
    target.store = _Ruled(rule)
    for form, state in ((True, in_pages), (False, in_file)):
        findings = Findings()
        FolderChecks(target, findings).check_lifecycle(in_pages=form)
        assert [one.state for one in findings.listed] == [state]
        if state == "warning":
            assert "are kept for ever, those of app.sqlite.pages/ for 30 days" in findings.listed[0].found


def test_doctor_may_not_ask_for_the_rules(bucket: Bucket) -> None:
    """That is no fault of the configuration."""
    bucket.way.policy = Refuse(lambda request: s3_error(403, "AccessDenied") if "lifecycle" in request.path else None)
    found = bucket.doctor()["lifecycle"]
    assert (found["state"], "s3:GetLifecycleConfiguration" in found["advice"]) == ("skipped", True)


def test_rules_of_a_bucket(moto: Server) -> None:
    """As temaki sees them: those in force, without those for tagged objects. Other kinds of store have none."""
    name, client = moto.bucket(), moto.client()
    store = S3Store(name, client=client)
    assert isinstance(store, LifecycleStore)
    assert not isinstance(MemoryStore(), LifecycleStore)
    assert store.lifecycle() == []
    rules: list[dict[str, Any]] = [
        {"ID": "end", "Filter": {"Prefix": "a"}, "Expiration": {"Days": 3}, **DAYS},
        {"ID": "archive", "Filter": {"Prefix": "b"}, "Transitions": [{"Days": 30, "StorageClass": "GLACIER"}]},
        {"ID": "cold", "Filter": {"Prefix": ""}, "Transitions": [{"Days": 30, "StorageClass": "STANDARD_IA"}]},
        {"ID": "off", "Filter": {"Prefix": "a"}, **EXPIRE, "Status": "Disabled"},
        {"ID": "tagged", "Filter": {"Tag": {"Key": "old", "Value": "yes"}}, **EXPIRE},
        {"ID": "both", "Filter": {"And": {"Prefix": "c", "Tags": [{"Key": "old", "Value": "yes"}]}}, **EXPIRE},
    ]
    enabled: Any = [{"Status": "Enabled", **rule} for rule in rules]
    client.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": enabled})
    assert store.lifecycle() == [
        LifecycleRule("end", "a", expires=True, archives=False, old_versions_days=30),
        LifecycleRule("archive", "b", expires=False, archives=True, old_versions_days=None),
        LifecycleRule("cold", "", expires=False, archives=False, old_versions_days=None),
    ]
