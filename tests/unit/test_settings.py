"""Settings: which source wins, what each of them may say, and errors that name the setting and its origin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from temaki import Database
from temaki.config.settings import Settings, make_strategy, resolve, strategy_options, working_folder
from temaki.errors import ConfigurationError

URL = "s3://bucket/app.sqlite"


class Plain:
    """A strategy without options."""


class Cached:
    """A strategy with one option, which its own ``__init__`` bounds."""

    def __init__(self, *, max_age: float = 0.0) -> None:
        if max_age < 0:
            raise ValueError("max_age must be 0 or more")
        self.max_age = max_age


class Rich:
    """A strategy with options of several types."""

    def __init__(
        self,
        *,
        tries: Annotated[int, msgspec.Meta(ge=1)] = 1,
        mode: Literal["fast", "safe"] = "fast",
        eager: bool = False,
        names: list[str] | None = None,
        clock: Any = None,
        label: str = "",
    ) -> None:
        """Keep nothing: only the parameters count."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder without any TOML file."""
    return tmp_path


def write(folder: Path, *, pyproject: str | None = None, temaki: str | None = None) -> None:
    """Put TOML files into a working folder."""
    for name, text in (("pyproject.toml", pyproject), ("temaki.toml", temaki)):
        if text is not None:
            (folder / name).write_text(text, encoding="utf-8")


def refused(
    folder: Path, arguments: dict[str, object] | None = None, environ: dict[str, str] | None = None
) -> ConfigurationError:
    """Resolve settings that cannot work, and give the error."""
    with pytest.raises(ConfigurationError) as caught:
        resolve(arguments or {}, environ=environ or {}, folder=folder)
    return caught.value


def options_refused(cls: type, settings: Settings) -> str:
    """Convert options that cannot work, and give the message."""
    with pytest.raises(ConfigurationError) as caught:
        strategy_options(cls, settings.options)
    return str(caught.value)


# -- which source wins --------------------------------------------------------------------------------------------


def test_a_url_alone_is_enough(folder: Path) -> None:
    """With nothing but a URL all other settings have their documented defaults."""
    settings = resolve({"url": URL}, environ={}, folder=folder)
    assert settings == Settings(url=URL, origins={"url": "url= of bind_s3"})
    assert (settings.strategy, settings.cache_dir, settings.timeout) == ("etag-cached", None, 60.0)


def test_arguments_beat_the_environment_which_beats_toml(folder: Path) -> None:
    """Each setting is taken from the strongest source that has it, each by itself."""
    write(folder, temaki='url = "s3://t/t"\nstrategy = "toml"\ntimeout = 3\ncache_dir = "toml"')
    environ = {"TEMAKI_URL": "s3://e/e", "TEMAKI_STRATEGY": "env", "TEMAKI_TIMEOUT": "2"}
    settings = resolve({"url": "s3://a/a"}, environ=environ, folder=folder)
    assert (settings.url, settings.strategy, settings.timeout) == ("s3://a/a", "env", 2.0)
    assert settings.cache_dir == folder / "toml"
    assert settings.origins == {
        "url": "url= of bind_s3",
        "strategy": "environment variable TEMAKI_STRATEGY",
        "timeout": "environment variable TEMAKI_TIMEOUT",
        "cache_dir": "cache_dir in temaki.toml",
    }


def test_options_have_the_same_order_of_sources(folder: Path) -> None:
    """An option, too, is taken from the strongest source that has it."""
    write(folder, temaki="max_age = 3")
    for arguments, environ, expected in (
        ({"max_age": 1}, {"TEMAKI_MAX_AGE": "2"}, 1.0),
        ({}, {"TEMAKI_MAX_AGE": "2"}, 2.0),
        ({}, {}, 3.0),
    ):
        settings = resolve({"url": URL, **arguments}, environ=environ, folder=folder)
        assert strategy_options(Cached, settings.options) == {"max_age": expected}


def test_arguments_that_are_none_were_not_given(folder: Path) -> None:
    """``bind_s3`` passes None for what its caller left out: weaker sources then count."""
    arguments = {"url": None, "strategy": None, "cache_dir": None, "timeout": None}
    settings = resolve(arguments, environ={"TEMAKI_URL": URL}, folder=folder)
    assert settings.url == URL


def test_empty_environment_variables_count_as_unset(folder: Path) -> None:
    """``TEMAKI_X=`` in a shell or a container file unsets: it neither wins nor fails."""
    write(folder, temaki=f'url = "{URL}"')
    environ = {"TEMAKI_URL": "", "TEMAKI_STRATEGY": " ", "TEMAKI_NO_SUCH_THING": "", "TEMAKI_KEY": ""}
    settings = resolve({}, environ=environ, folder=folder)
    assert settings == Settings(url=URL, origins={"url": "url in temaki.toml"})


# -- the URL ------------------------------------------------------------------------------------------------------


def test_aws_bucket_and_temaki_key_make_a_url(folder: Path) -> None:
    """The names that the PHP Temaki reads name an object on S3."""
    settings = resolve({}, environ={"AWS_BUCKET": "my-bucket", "TEMAKI_KEY": "a/b.sqlite"}, folder=folder)
    assert settings.url == "s3://my-bucket/a/b.sqlite"


def test_aws_bucket_alone_never_binds(folder: Path) -> None:
    """AWS_BUCKET may be there for another program: alone it is an error that asks for TEMAKI_KEY."""
    assert "set TEMAKI_KEY" in str(refused(folder, environ={"AWS_BUCKET": "my-bucket"}))


def test_aws_bucket_alone_does_not_stand_in_the_way(folder: Path) -> None:
    """Where another source names the database, a lone AWS_BUCKET is none of temaki's business, however odd."""
    write(folder, temaki=f'url = "{URL}"')
    assert resolve({}, environ={"AWS_BUCKET": "not a bucket"}, folder=folder).url == URL


def test_a_url_argument_beats_bucket_and_key(folder: Path) -> None:
    """Bucket and key are a URL from the environment: weaker than an argument, and then not even looked at."""
    environ = {"AWS_BUCKET": "not a bucket", "TEMAKI_KEY": "/k"}
    assert resolve({"url": URL}, environ=environ, folder=folder).url == URL


def test_bucket_and_key_beat_toml(folder: Path) -> None:
    """Bucket and key come from the environment, which is stronger than a file."""
    write(folder, temaki=f'url = "{URL}"')
    settings = resolve({}, environ={"AWS_BUCKET": "other", "TEMAKI_KEY": "k"}, folder=folder)
    assert settings.url == "s3://other/k"


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"TEMAKI_KEY": "k"}, "AWS_BUCKET is not"),
        ({"TEMAKI_URL": URL, "TEMAKI_KEY": "k", "AWS_BUCKET": "bucket"}, "given twice"),
        ({"AWS_BUCKET": "s3://bucket", "TEMAKI_KEY": "k"}, "AWS_BUCKET: expected a bucket's name alone"),
        ({"AWS_BUCKET": "bucket/folder", "TEMAKI_KEY": "k"}, "got 'bucket/folder'"),
        ({"AWS_BUCKET": "ab", "TEMAKI_KEY": "k"}, "got 'ab'"),
        ({"AWS_BUCKET": "bucket", "TEMAKI_KEY": "/k"}, "without a leading '/'"),
        ({"AWS_BUCKET": "bucket", "TEMAKI_KEY": "s3://bucket/k"}, "use TEMAKI_URL"),
        ({}, "set TEMAKI_URL"),
    ],
)
def test_a_database_that_is_not_named_clearly_is_refused(folder: Path, environ: dict[str, str], named: str) -> None:
    """A missing, double or malformed name of the database is an error that says what to set."""
    assert named in str(refused(folder, environ=environ))


# -- temaki's own settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), True, "5", [5]])
def test_an_impossible_timeout_is_refused(folder: Path, timeout: object) -> None:
    """The error names the setting, its origin, what is allowed and what was given."""
    message = str(refused(folder, {"url": URL, "timeout": timeout}))
    assert message == f"timeout= of bind_s3: expected seconds, a number greater than 0; got {timeout!r}."


def test_an_impossible_timeout_from_the_environment_names_the_variable(folder: Path) -> None:
    """Text that is no number is reported with the variable's name."""
    message = str(refused(folder, {"url": URL}, {"TEMAKI_TIMEOUT": "soon"}))
    assert "environment variable TEMAKI_TIMEOUT" in message
    assert "'soon'" in message


def test_a_number_as_text_in_toml_is_refused(folder: Path) -> None:
    """TOML has numbers: text instead of one is a mistake, not a spelling."""
    write(folder, temaki='timeout = "5"')
    assert "timeout in temaki.toml" in str(refused(folder, {"url": URL}))


def test_cache_dir_is_expanded_and_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``~`` is the home folder, a relative folder starts at the working folder, a Path is as good as text."""
    monkeypatch.setenv("HOME", "/home/someone")
    for given, expected in (
        ("~/cache", Path("/home/someone/cache")),
        ("cache", folder / "cache"),
        (Path("/var/cache"), Path("/var/cache")),
    ):
        assert resolve({"url": URL, "cache_dir": given}, environ={}, folder=folder).cache_dir == expected


@pytest.mark.parametrize("cache_dir", ["", 3, b"bytes", "~no-such-user-of-this-machine/x"])
def test_an_impossible_cache_dir_is_refused(folder: Path, cache_dir: object) -> None:
    """What names no folder is refused, with the setting's name."""
    assert str(refused(folder, {"url": URL, "cache_dir": cache_dir})).startswith("cache_dir= of bind_s3: ")


@pytest.mark.parametrize("url", ["", 3, Path("/x")])
def test_a_url_is_text(folder: Path, url: object) -> None:
    """An empty URL, or something that is none, is refused and shown."""
    message = str(refused(folder, {"url": url}))
    assert message.startswith("url= of bind_s3: expected a URL")
    assert repr(url) in message


def test_a_strategy_class_is_refused(folder: Path) -> None:
    """The class instead of an instance is a likely slip: the error shows the parentheses."""
    assert "Pass Cached()" in str(refused(folder, {"url": URL, "strategy": Cached}))


def test_a_strategy_from_toml_is_a_name(folder: Path) -> None:
    """Only an argument can be an instance."""
    write(folder, temaki="strategy = 3")
    assert "strategy in temaki.toml: expected the name" in str(refused(folder, {"url": URL}))


# -- the strategy's options ---------------------------------------------------------------------------------------


def test_an_instance_has_its_options_already(folder: Path) -> None:
    """Options beside an instance cannot reach it: an error, and not silence."""
    instance = Cached(max_age=1)
    assert resolve({"url": URL, "strategy": instance}, environ={}, folder=folder).strategy is instance
    message = str(refused(folder, {"url": URL, "strategy": instance, "max_age": 5}))
    assert message.startswith("max_age= of bind_s3")
    assert "Cached(…)" in message


def test_an_instance_ignores_weaker_options(folder: Path) -> None:
    """Options in the environment were meant for the strategy that the instance replaces."""
    arguments = {"url": URL, "strategy": Cached(max_age=1)}
    settings = resolve(arguments, environ={"TEMAKI_MAX_AGE": "9", "TEMAKI_TTL": "3"}, folder=folder)
    assert settings.options == {}


def test_options_of_a_weaker_source_may_be_for_another_strategy(folder: Path) -> None:
    """Who chose the strategy decides: weaker sources' options count where known and are ignored where not."""
    write(folder, temaki='strategy = "lease-locked"\nttl = 30\nmax_age = 7')
    settings = resolve({"url": URL, "strategy": "etag-cached"}, environ={"TEMAKI_HOLD": "1"}, folder=folder)
    assert strategy_options(Cached, settings.options) == {"max_age": 7.0}


def test_options_beside_or_above_the_choice_of_strategy_are_never_ignored(folder: Path) -> None:
    """An unknown option of the source that chose the strategy, or of a stronger one, is an error."""
    write(folder, temaki='strategy = "etag-cached"\nttl = 30')
    assert "ttl in temaki.toml" in options_refused(Cached, resolve({"url": URL}, environ={}, folder=folder))
    write(folder, temaki='strategy = "etag-cached"')
    settings = resolve({"url": URL}, environ={"TEMAKI_TTL": "30"}, folder=folder)
    assert "TEMAKI_TTL" in options_refused(Cached, settings)


@pytest.mark.parametrize(
    ("arguments", "environ", "toml", "start", "near"),
    [
        ({"max_agee": 5}, {}, "", "max_agee= of bind_s3: ", "Did you mean max_age= of bind_s3?"),
        (
            {},
            {"TEMAKI_MAX_AGEE": "5"},
            "",
            "environment variable TEMAKI_MAX_AGEE: ",
            "Did you mean environment variable TEMAKI_MAX_AGE?",
        ),
        ({}, {}, "max_agee = 5", "max_agee in temaki.toml: ", "Did you mean max_age in temaki.toml?"),
        ({"cachedir": "x"}, {}, "", "cachedir= of bind_s3: ", "Did you mean cache_dir= of bind_s3?"),
    ],
)
def test_an_unknown_option_is_named_with_its_origin_and_the_nearest(
    folder: Path, arguments: dict[str, object], environ: dict[str, str], toml: str, start: str, near: str
) -> None:
    """A typo never passes in silence: the error has the origin, the nearest name and all names."""
    write(folder, temaki=toml)
    message = options_refused(Cached, resolve({"url": URL, **arguments}, environ=environ, folder=folder))
    assert message.startswith(start)
    assert near in message
    assert (
        "Its options: max_age. Settings of every strategy: url, strategy, format, cache_dir, compact, timeout, "
        "allow_stale_seeds." in message
    )


def test_a_strategy_without_options_says_so(folder: Path) -> None:
    """The list of allowed options is not just left out where it is empty."""
    settings = resolve({"url": URL, "max_age": 5}, environ={}, folder=folder)
    assert "Its options: none." in options_refused(Plain, settings)


def test_text_and_toml_are_converted_to_the_annotated_types(folder: Path) -> None:
    """The environment has only text: it is read as what the strategy asks for."""
    write(folder, temaki='names = ["a", "b"]\nmode = "safe"')
    environ = {"TEMAKI_TRIES": "3", "TEMAKI_EAGER": "true", "TEMAKI_LABEL": "5"}
    options = strategy_options(Rich, resolve({"url": URL}, environ=environ, folder=folder).options)
    assert options == {"tries": 3, "eager": True, "label": "5", "names": ["a", "b"], "mode": "safe"}


def test_arguments_are_not_converted_from_text(folder: Path) -> None:
    """In Python a number is written as one; whole numbers serve as floats, and objects pass as they are."""
    clock = object()
    settings = resolve({"url": URL, "clock": clock, "names": None}, environ={}, folder=folder)
    assert strategy_options(Rich, settings.options) == {"clock": clock, "names": None}
    options = strategy_options(Cached, resolve({"url": URL, "max_age": 5}, environ={}, folder=folder).options)
    assert repr(options) == "{'max_age': 5.0}"
    message = options_refused(Cached, resolve({"url": URL, "max_age": "5"}, environ={}, folder=folder))
    assert message == "max_age= of bind_s3: expected float; got '5'."


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("tries", "0", "int >= 1"),
        ("tries", "x", "int"),
        ("mode", "slow", '"fast" or "safe"'),
        ("eager", "?", "bool"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(folder: Path, name: str, text: str, allowed: str) -> None:
    """The error names the variable, what is allowed (bounds and choices included) and what was given."""
    variable = f"TEMAKI_{name.upper()}"
    message = options_refused(Rich, resolve({"url": URL}, environ={variable: text}, folder=folder))
    assert message == f"environment variable {variable}: expected {allowed}; got {text!r}."


def test_what_the_strategy_itself_refuses_is_reported_with_its_origin(folder: Path) -> None:
    """A bound that only ``__init__`` knows is reported like any other, and chained."""
    settings = resolve({"url": URL}, environ={"TEMAKI_MAX_AGE": "-1"}, folder=folder)
    with pytest.raises(ConfigurationError, match="max_age must be 0 or more") as caught:
        make_strategy(Cached, settings.options)
    assert "environment variable TEMAKI_MAX_AGE is -1.0" in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)


def test_make_strategy_passes_the_options_on(folder: Path) -> None:
    """The instance has the converted options."""
    settings = resolve({"url": URL}, environ={"TEMAKI_MAX_AGE": "2"}, folder=folder)
    assert make_strategy(Cached, settings.options).max_age == 2.0


def test_an_option_without_default_is_asked_for(folder: Path) -> None:
    """The error says how to give it."""

    class Needy:
        def __init__(self, *, table: str) -> None: ...

    message = options_refused(Needy, resolve({"url": URL}, environ={}, folder=folder))
    assert "Needy needs table" in message
    assert "TEMAKI_TABLE" in message


def test_an_option_with_the_name_of_a_setting_of_temakis_own_is_refused(folder: Path) -> None:
    """It could never be set, and its author should learn that at once."""

    class Clashing:
        def __init__(self, *, timeout: float = 1.0) -> None: ...

    message = options_refused(Clashing, resolve({"url": URL}, environ={}, folder=folder))
    assert "'timeout'" in message


# -- TOML files ---------------------------------------------------------------------------------------------------


def test_pyproject_has_a_table_for_temaki(folder: Path) -> None:
    """``[tool.temaki]`` has the same keys as temaki.toml, and errors name the table."""
    write(folder, pyproject=f'[tool.temaki]\nurl = "{URL}"\nmax_agee = 5')
    settings = resolve({}, environ={}, folder=folder)
    assert settings.url == URL
    assert options_refused(Cached, settings).startswith("max_agee in [tool.temaki] of pyproject.toml: ")


def test_the_settings_stand_in_one_file(folder: Path) -> None:
    """With two files nobody knows which one counts: refused. A pyproject.toml without the table is none of ours."""
    write(folder, temaki=f'url = "{URL}"', pyproject='[project]\ndependencies = ["temaki"]')
    assert resolve({}, environ={}, folder=folder).url == URL
    write(folder, pyproject="[tool.temaki]\ntimeout = 1")
    assert "both temaki.toml and [tool.temaki]" in str(refused(folder))


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"temaki": "url ="}, "no valid TOML"),
        ({"pyproject": "[tool.temaki]\nurl ="}, "no valid TOML"),
        ({"temaki": "[tool.temaki]\nurl = 'x'"}, "at top level"),
        ({"pyproject": "tool.temaki = 3"}, "expected a table"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(folder: Path, files: dict[str, str], named: str) -> None:
    """A file that means temaki and cannot be read as such is an error with its path, never skipped."""
    write(folder, **files)
    message = str(refused(folder, {"url": URL}))
    assert named in message
    assert str(folder) in message


def test_a_file_that_cannot_be_opened_is_named(folder: Path) -> None:
    """Settings that are there and cannot be read are not the same as no settings."""
    (folder / "temaki.toml").mkdir()
    assert "cannot be read" in str(refused(folder, {"url": URL}))


def test_a_broken_pyproject_that_does_not_mention_temaki_is_left_alone(folder: Path) -> None:
    """Other people's files are not temaki's to judge."""
    write(folder, pyproject="[tool.other\n")
    assert resolve({"url": URL}, environ={}, folder=folder).url == URL


@pytest.mark.parametrize(
    ("written", "meant"), [("ulr", "url"), ("uri", "url"), ("URL", "url"), ("urll", "url"), ("keys", "key")]
)
def test_a_misspelt_url_is_named_and_not_just_missing(folder: Path, written: str, meant: str) -> None:
    """A slip in the setting that names the database is named, with the setting that was meant."""
    write(folder, temaki=f'{written} = "{URL}"\nacquire_timeout = 3')
    message = str(refused(folder))
    assert message.startswith(f"{written} in temaki.toml: ")
    assert f"Did you mean {meant} in temaki.toml?" in message


def test_a_misspelt_url_in_the_environment_is_named(folder: Path) -> None:
    """The same for variables."""
    message = str(refused(folder, environ={"TEMAKI_ULR": URL}))
    assert "Did you mean environment variable TEMAKI_URL?" in message


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("timeuot", "timeout"),
        ("cache-dir", "cache_dir"),
        ("Timeout", "timeout"),
        ("cachedir", "cache_dir"),
        ("max_agee", "max_age"),
        ("MAX_AGE", "max_age"),
    ],
)
def test_a_misspelt_key_is_named_whoever_chose_the_strategy(folder: Path, written: str, meant: str) -> None:
    """A stronger source that chooses the strategy does not turn a slip in a file into silence."""
    write(folder, temaki=f"{written} = 5")
    message = options_refused(Cached, resolve({"url": URL, "strategy": "etag-cached"}, environ={}, folder=folder))
    assert message.startswith(f"{written} in temaki.toml: ")
    assert f"Did you mean {meant} in temaki.toml?" in message


def test_a_misspelt_general_key_beside_an_instance_is_named(folder: Path) -> None:
    """An instance ignores other strategies' options, and not a misspelt setting of temaki's own."""
    write(folder, pyproject="[tool.temaki]\ntimeuot = 5\nacquire_timeout = 3")
    message = str(refused(folder, {"url": URL, "strategy": Cached(max_age=1)}))
    assert "Did you mean timeout in [tool.temaki] of pyproject.toml?" in message
    write(folder, pyproject="[tool.temaki]\nacquire_timeout = 3")
    assert resolve({"url": URL, "strategy": Cached(max_age=1)}, environ={}, folder=folder).options == {}


def test_a_table_of_its_own_in_temaki_toml_is_refused(folder: Path) -> None:
    """``[temaki]`` in temaki.toml is a likely slip, and says where the settings stand."""
    write(folder, temaki=f'[temaki]\nurl = "{URL}"')
    assert "at top level, without [temaki]" in str(refused(folder))


def test_a_byte_order_mark_is_no_part_of_the_settings(folder: Path) -> None:
    """Some editors put one at the beginning of a file."""
    (folder / "temaki.toml").write_bytes(b"\xef\xbb\xbf" + f'url = "{URL}"'.encode())
    assert resolve({}, environ={}, folder=folder).url == URL


def test_a_file_that_is_not_utf_8_is_named(folder: Path) -> None:
    """Latin-1 is no TOML: the error names the file and the encoding."""
    (folder / "pyproject.toml").write_bytes("[tool.temaki]\n# größe\n".encode("latin-1"))
    message = str(refused(folder, {"url": URL}))
    assert str(folder / "pyproject.toml") in message
    assert "UTF-8" in message


def test_a_file_that_is_nested_too_deeply_is_named(folder: Path) -> None:
    """What the parser gives up on is no valid TOML either, and no raw error."""
    write(folder, temaki="a = " + "[" * 100_000)
    assert "no valid TOML" in str(refused(folder, {"url": URL}))


@pytest.fixture
def removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder that was removed under the process, as a deployment does."""
    gone = tmp_path / "release"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()


@pytest.mark.usefixtures("removed")
def test_no_working_folder_is_needed_where_all_is_said() -> None:
    """A removed folder holds no settings: what arguments and environment say is enough."""
    settings = resolve(
        {"url": URL, "cache_dir": "/var/cache"}, environ={"TEMAKI_TIMEOUT": "5"}, folder=working_folder()
    )
    assert (settings.url, settings.timeout, settings.cache_dir) == (URL, 5.0, Path("/var/cache"))


@pytest.mark.usefixtures("removed")
def test_what_needs_the_working_folder_says_so() -> None:
    """A relative cache_dir has nowhere to start, and a database that nothing names is not named."""
    message = str(refused(working_folder(), {"url": URL, "cache_dir": "cache"}))
    assert message.startswith("cache_dir= of bind_s3: ")
    assert "absolute" in message
    assert "No database is named" in str(refused(working_folder()))


@pytest.mark.usefixtures("removed")
def test_bind_s3_needs_no_working_folder() -> None:
    """The promise, where users meet it."""
    db = Database()
    db.bind_s3("memory://no-working-folder/app.sqlite")
    db.generate_mapping()
    db.disconnect()


def test_a_closed_folder_has_no_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``sudo -u app`` in root's home: what is said in arguments works, and what is missing is explained."""
    monkeypatch.setattr("temaki.config.settings.os.access", lambda path, mode: False)
    write(folder, temaki="url = broken")
    assert resolve({"url": URL}, environ={}, folder=folder).url == URL
    assert f"Files in {folder} were not read" in str(refused(folder))


# -- cold start ---------------------------------------------------------------------------------------------------


def test_binding_by_arguments_needs_no_parser(folder: Path) -> None:
    """URL, strategy and a number as arguments cost none of the imports that only some configurations need."""
    write(folder, pyproject="[project]\nname = 'application'")
    code = """
import sys
from temaki.config.settings import resolve, strategy_options
class Cached:
    def __init__(self, *, max_age: float = 0.0): ...
before = set(sys.modules)
settings = resolve({"url": "s3://b/k", "strategy": "etag-cached", "max_age": 5}, environ={}, folder=".")
assert strategy_options(Cached, settings.options) == {"max_age": 5.0}
print(sorted((set(sys.modules) - before) | ({"msgspec", "tomllib", "difflib"} & set(sys.modules))))
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("[]\n", "")


@pytest.mark.parametrize(
    ("text", "expected"), [("true", True), ("1", True), ("Yes", True), ("off", False), ("0", False)]
)
def test_a_flag_from_the_environment(folder: Path, text: str, expected: bool) -> None:
    """The words that people write there."""
    found = resolve({"url": URL}, environ={"TEMAKI_ALLOW_STALE_SEEDS": text}, folder=folder)
    assert found.allow_stale_seeds is expected
    assert resolve({"url": URL}, environ={}, folder=folder).allow_stale_seeds is False


def test_a_flag_in_toml_is_toml(folder: Path) -> None:
    """The argument is stronger; a word is no TOML boolean; an unknown word in the environment is named."""
    write(folder, temaki="allow_stale_seeds = true")
    assert resolve({"url": URL}, environ={}, folder=folder).allow_stale_seeds is True
    assert resolve({"url": URL, "allow_stale_seeds": False}, environ={}, folder=folder).allow_stale_seeds is False
    message = str(refused(folder, {"url": URL}, {"TEMAKI_ALLOW_STALE_SEEDS": "perhaps"}))
    assert message == "environment variable TEMAKI_ALLOW_STALE_SEEDS: expected true or false; got 'perhaps'."
    write(folder, temaki='allow_stale_seeds = "true"')
    assert "allow_stale_seeds in temaki.toml: expected true or false" in str(refused(folder, {"url": URL}))


CHOSEN = {"format": ("file", "pages"), "compact": ("auto", "manual")}


@pytest.mark.parametrize("name", CHOSEN)
def test_a_setting_with_two_values(folder: Path, name: str) -> None:
    """Each source can give it; without one it has its first value."""
    default, other = CHOSEN[name]
    assert getattr(resolve({"url": URL}, environ={}, folder=folder), name) == default
    assert getattr(resolve({"url": URL, name: other}, environ={}, folder=folder), name) == other
    assert getattr(resolve({"url": URL}, environ={f"TEMAKI_{name.upper()}": other}, folder=folder), name) == other
    write(folder, temaki=f'{name} = "{other}"')
    assert getattr(resolve({"url": URL}, environ={}, folder=folder), name) == other


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("value", ["Pages", "", 2, ["file"], True])
def test_a_setting_with_two_values_takes_no_other(folder: Path, name: str, value: object) -> None:
    """The error says who gave it, and what it may be."""
    message = str(refused(folder, {"url": URL, name: value}))
    assert message.startswith(f"{name}= of bind_s3: expected {CHOSEN[name][0]!r} or {CHOSEN[name][1]!r}; got {value!r}")
