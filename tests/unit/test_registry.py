"""The registry: strategies by name, from the entry points of what is installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from temaki.config import registry
from temaki.errors import ConfigurationError
from temaki.strategy import Strategy
from tests.installed import Install, installer

MODULE = """
from temaki.strategy import Strategy

class Good(Strategy):
    def pull(self, session): ...

class Outer:
    Inner = Good

class Other: ...
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution that registers strategies."""
    return installer(tmp_path, monkeypatch, module=MODULE, group=registry.GROUP)


def refused(name: str) -> ConfigurationError:
    """Load a strategy that cannot be loaded, and give the error."""
    with pytest.raises(ConfigurationError) as caught:
        registry.load(name)
    return caught.value


@pytest.mark.parametrize("name", ["always-download", "etag-cached", "read-only"])
def test_the_built_in_strategies_are_registered(name: str) -> None:
    """They come through the same door as anyone else's."""
    assert issubclass(registry.load(name), Strategy)
    assert name in registry.available()


def test_a_third_partys_strategy_is_found(install: Install) -> None:
    """Installing a distribution with an entry point is all it takes; nested objects and extras are understood."""
    install(
        "sushi", "# a comment\nmine = sushi_module:Good\nnested=sushi_module:Outer.Inner\nextra = sushi_module:Good [x]"
    )
    for name in ("mine", "nested", "extra"):
        assert registry.load(name).__name__ == "Good"
        assert name in registry.available()


def test_other_groups_are_not_ours(install: Install) -> None:
    """An entry of the same name in another group is no strategy, even where the file mentions our group too."""
    install("sushi", "mine = sushi_module:Good", group="console_scripts")
    install("maki", f"[{registry.GROUP}]\nyours = maki_module:Good\n[x.y]\nmine = maki_module:Good", group="a.b")
    assert "there is no strategy 'mine'" in str(refused("mine"))
    assert registry.load("yours").__name__ == "Good"


def test_the_first_of_one_distribution_on_the_path_counts(install: Install, tmp_path: Path) -> None:
    """A distribution that is installed twice shadows itself, as its modules do: that is no conflict."""
    install("sushi", "mine = sushi_module:Good")
    info = tmp_path / "again" / "Sushi-0.9.dist-info"
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\nmine = nowhere:Old\n", encoding="utf-8")
    sys.path.append(str(tmp_path / "again"))
    try:
        assert registry.load("mine").__name__ == "Good"
    finally:
        sys.path.remove(str(tmp_path / "again"))


def test_a_name_claimed_twice_is_refused(install: Install) -> None:
    """Which one would win is an accident of the path: the error names both distributions."""
    install("sushi", "mine = sushi_module:Good")
    install("maki", "mine = maki_module:Good")
    message = str(refused("mine"))
    assert "sushi_module:Good of distribution sushi" in message
    assert "maki_module:Good of distribution maki" in message


def test_an_unknown_name_lists_those_available_and_the_nearest() -> None:
    """A typo costs one look at the message."""
    message = str(refused("etag-cache"))
    assert message.startswith("strategy: there is no strategy 'etag-cache'. Did you mean 'etag-cached'?")
    assert "always-download, etag-cached" in message


def test_an_unknown_name_says_where_it_came_from() -> None:
    """A name out of the environment is reported with the variable."""
    with pytest.raises(ConfigurationError, match=r"^environment variable TEMAKI_STRATEGY: there is no"):
        registry.load("nothing", origin="environment variable TEMAKI_STRATEGY")


@pytest.mark.parametrize(
    ("target", "module", "cause"),
    [
        ("sushi_module:Good", "raise OSError('no fish')", OSError),
        ("sushi_module:Missing", MODULE, AttributeError),
        ("sushi_no_module:Good", MODULE, ModuleNotFoundError),
    ],
)
def test_an_entry_that_cannot_be_imported_is_named(
    install: Install, target: str, module: str, cause: type[Exception]
) -> None:
    """The error names the object and who registered it, and keeps what was raised."""
    install("sushi", f"mine = {target}", module=module)
    error = refused("mine")
    assert f"{target} of distribution sushi" in str(error)
    assert isinstance(error.__cause__, cause)


@pytest.mark.parametrize("target", ["sushi_module:Other", "sushi_module:MODULE", "sushi_module"])
def test_an_entry_that_is_no_strategy_is_named(install: Install, target: str) -> None:
    """A class of another kind, another object or a whole module is refused before it is used."""
    install("sushi", f"mine = {target}", module=MODULE + "\nMODULE = 3\n")
    message = str(refused("mine"))
    assert "of distribution sushi" in message
    assert "is no subclass of temaki.strategy.Strategy" in message


def test_a_distribution_inside_a_zip_file_is_found(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read as a folder is left to importlib.metadata."""
    folder = install("sushi", "zipped = sushi_module:Good")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(folder)])
    archive = tmp_path / "bundle.zip"
    with zipfile.ZipFile(archive, "w") as bundle:
        for path in folder.rglob("*"):
            bundle.write(path, path.relative_to(folder))
    monkeypatch.syspath_prepend(archive)
    assert registry.load("zipped").__name__ == "Good"


def test_what_is_installed_meanwhile_is_found(install: Install) -> None:
    """What was read is read again once a folder of the path has changed."""
    folder = install("sushi", "mine = sushi_module:Good")
    assert registry.load("mine").__name__ == "Good"
    later = folder / "maki-1.0.dist-info"
    later.mkdir()
    (later / "entry_points.txt").write_text(f"[{registry.GROUP}]\nmine = maki_module:Good\n", encoding="utf-8")
    assert "is registered twice" in str(refused("mine"))


def test_odd_entries_of_the_path_do_no_harm(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing folders, files and an empty entry (the working folder) may all stand on sys.path."""
    folder = install("sushi", "mine = sushi_module:Good")
    (tmp_path / "file").touch()
    (folder / "empty-1.0.dist-info").mkdir()
    monkeypatch.chdir(folder)
    entries = [entry for entry in sys.path if entry != str(folder)]
    monkeypatch.setattr(sys, "path", [str(tmp_path / "missing"), str(tmp_path / "file"), "", *entries])
    assert registry.load("mine").__name__ == "Good"


def test_without_any_metadata_the_way_out_is_an_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deployment packages are often stripped of ``*.dist-info``: the error knows that and says what to do."""
    monkeypatch.setattr(sys, "path", [])
    message = str(refused("etag-cached"))
    assert "*.dist-info" in message
    assert "temaki_strategies.EtagCached()" in message


def test_the_fast_path_does_without_importlib_metadata() -> None:
    """A cold start with a built-in strategy pays for one look into the folder, not for the import."""
    code = """
import sys
from temaki.config import registry
before = "importlib.metadata" in sys.modules
registry.load("etag-cached")
print(before, "importlib.metadata" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("False False\n", "")
