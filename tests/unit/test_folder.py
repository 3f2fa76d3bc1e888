"""`temaki.replica.folder`: what is kept between processes, what of it is believed, and whose it is."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest

from temaki.errors import WorkingCopyError
from temaki.replica import folder as module
from temaki.replica.folder import Folder

URL = "s3://bucket/app.sqlite"
VERSION = {"etag": "e", "sequence": 3}


@pytest.fixture(autouse=True)
def boot(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The machine's boot, which a test can change; also where this machine has no id for it."""
    boots: list[str | None] = ["this-boot"]
    monkeypatch.setattr(module, "_boot_id", lambda: boots[-1])
    return boots


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's folder for temporary files."""
    path = tmp_path / "tmp"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


def leave_clean(cache_dir: Path) -> Path:
    """What an earlier process left, which ended cleanly; the file."""
    folder = Folder(URL, cache_dir)
    path = folder.next_path()
    path.write_bytes(b"database")
    folder.record(path, VERSION)
    release(folder)
    return path


def release(folder: Folder) -> None:
    """What the end of its process does, if it is killed."""
    folder.die()


class TestCleanRecord:
    """A file is believed only with a positive mark."""

    def test_is_believed(self, tmp_path: Path) -> None:
        """File and version come back, whatever else was left there is removed, and new names are new."""
        path = leave_clean(tmp_path)
        (path.parent / "9.sqlite").touch()
        (path.parent / "9.sqlite-wal").touch()
        folder = Folder(URL, tmp_path)
        assert folder.reuse() == (path, VERSION)
        assert sorted(entry.name for entry in path.parent.iterdir()) == [path.name, "clean.json", "owner.lock"]
        names = {folder.next_path() for _ in range(20)}
        assert len(names) == 20
        assert path not in names

    def test_another_url_has_another_folder(self, tmp_path: Path) -> None:
        """Nothing of one database is taken for another's."""
        leave_clean(tmp_path)
        assert Folder("s3://bucket/other.sqlite", tmp_path).reuse() is None

    def test_withdrawn_is_not_believed(self, tmp_path: Path) -> None:
        """The file without its record is thrown away."""
        path = leave_clean(tmp_path)
        folder = Folder(URL, tmp_path)
        folder.forget()
        folder.forget()
        assert (folder.reuse(), path.exists()) == (None, False)

    @pytest.mark.parametrize(
        "damage",
        [
            {"boot": "another-boot"},
            {"boot": None},
            {"size": 7},
            {"file": "8.sqlite"},
            {"format": 1},
            {"version": None},
            {"version": []},
            {"file": None},
            {"file": "../../elsewhere.sqlite"},
            {"file": "owner.lock/.."},
        ],
    )
    def test_record_that_does_not_fit_is_not_believed(self, tmp_path: Path, damage: dict[str, Any]) -> None:
        """Another boot, another size, another file, another format: all of it is thrown away."""
        path = leave_clean(tmp_path)
        (tmp_path / "elsewhere.sqlite").write_bytes(b"database")
        record = path.with_name("clean.json")
        record.write_text(json.dumps(json.loads(record.read_text()) | damage))
        assert Folder(URL, tmp_path).reuse() is None
        assert not path.exists()
        assert (tmp_path / "elsewhere.sqlite").exists()

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff"])
    def test_record_that_is_none_is_not_believed(self, tmp_path: Path, text: str) -> None:
        """Torn or scribbled over."""
        path = leave_clean(tmp_path)
        path.with_name("clean.json").write_bytes(text.encode("latin1"))
        assert Folder(URL, tmp_path).reuse() is None

    def test_link_is_not_followed(self, tmp_path: Path) -> None:
        """In place of the file."""
        path = leave_clean(tmp_path)
        (tmp_path / "there").write_bytes(b"database")
        path.unlink()
        path.symlink_to("../there")
        assert path.lstat().st_size == len("database")
        assert Folder(URL, tmp_path).reuse() is None
        assert ((tmp_path / "there").exists(), path.is_symlink()) == (True, False)

    def test_machine_without_boot_id_believes_nothing(self, tmp_path: Path, boot: list[str | None]) -> None:
        """Nothing is flushed, so a power cut must not go unnoticed."""
        boot.append(None)
        leave_clean(tmp_path)
        assert Folder(URL, tmp_path).reuse() is None

    def test_full_disk_only_costs_a_download(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A record that cannot be written is no error."""
        folder = Folder(URL, tmp_path)
        path = folder.next_path()
        path.touch()
        (folder.path / "clean.json.new").mkdir()
        folder.record(path, VERSION)
        assert not (folder.path / "clean.json").exists()


class TestOwnership:
    """One process at a time, and one user."""

    def test_second_process_gets_a_private_folder(self, tmp_path: Path) -> None:
        """It takes nothing over and leaves nothing, and the first one's record is not touched."""
        path = leave_clean(tmp_path)
        first = Folder(URL, tmp_path)
        second = Folder(URL, tmp_path)
        assert second.path != first.path
        assert second.path.parent == first.path.parent
        assert (second.reuse(), first.reuse()) == (None, (path, VERSION))
        own = second.next_path()
        own.touch()
        second.record(own, VERSION)
        second.forget()
        private = second.path
        del second
        assert (private.exists(), first.reuse()) == (False, (path, VERSION))

    def test_only_its_user_can_look(self, tmp_path: Path, temporary: Path) -> None:
        """0700, also where the folder was there with other permissions."""
        kept = Folder(URL, tmp_path / "a" / "b")
        assert [stat.S_IMODE(path.stat().st_mode) for path in (kept.path, kept.path.parent)] == [0o700, 0o700]
        assert stat.S_IMODE(Folder(URL, None).path.stat().st_mode) == 0o700
        kept.path.chmod(0o755)
        release(kept)
        assert stat.S_IMODE(Folder(URL, tmp_path / "a" / "b").path.stat().st_mode) == 0o700

    def test_link_in_its_place_is_refused(self, tmp_path: Path) -> None:
        """Anyone could have put one there: names derive from a hash. The message names folder and remedy."""
        path = leave_clean(tmp_path).parent
        path.rename(tmp_path / "real")
        path.symlink_to(tmp_path / "real")
        with pytest.raises(WorkingCopyError, match=r"not a folder that belongs to this user.*set cache_dir") as caught:
            Folder(URL, tmp_path)
        assert URL in str(caught.value)

    def test_unusable_cache_dir_is_named(self, tmp_path: Path) -> None:
        """A file where a folder should be."""
        (tmp_path / "file").touch()
        with pytest.raises(WorkingCopyError, match="file") as caught:
            Folder(URL, tmp_path / "file")
        assert caught.value.path == str(tmp_path / "file")


class TestPrivateFolders:
    """Without ``cache_dir`` nothing stays."""

    def test_removed_with_its_owner(self, temporary: Path) -> None:
        """With all that is in it."""
        folder = Folder(URL, None)
        folder.next_path().touch()
        assert len(list(temporary.iterdir())) == 1
        assert "bucket" not in folder.path.name
        del folder
        assert not list(temporary.iterdir())

    def test_what_a_killed_process_left_is_swept(self, temporary: Path) -> None:
        """The next one to come removes it; never that of a process that lives, nor what is not temaki's."""
        living, killed = Folder(URL, None), Folder(URL, None)
        release(killed)
        for name in ("temaki-other", f"temaki-{os.getuid()}-unlocked"):
            (temporary / name).mkdir()
            (temporary / name / "file").touch()
        (temporary / f"temaki-{os.getuid()}-link").symlink_to(living.path)
        newcomer = Folder(URL, None)
        assert (living.path.exists(), killed.path.exists(), newcomer.path.exists()) == (True, False, True)
        assert len(list(temporary.iterdir())) == 5
