"""Settings: argument > configure() > environment > scalekit.toml > default, each with a clear error."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from scalekit import settings
from scalekit.errors import ConfigurationError
from scalekit.settings import KNOWN, configure, lookup, namespace_of

NAME, VARIABLE = "limit_queue_timeout", "SCALEKIT_LIMIT_QUEUE_TIMEOUT"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty place: no file, no variable, nothing configured."""
    for name in KNOWN:
        monkeypatch.delenv(f"SCALEKIT_{name.upper()}", raising=False)
    monkeypatch.delenv("SCALEKIT_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    settings.reset()
    yield tmp_path
    settings.reset()


def test_defaults() -> None:
    """Without a word from anybody, the documented defaults hold, in their final form."""
    assert {name: lookup(name) for name in KNOWN} == {
        "disable": False,
        "namespace": None,
        "cache_max_entries": 10_000,
        "cache_max_bytes": 64_000_000,
        "cache_max_stream_bytes": 8_000_000,
        "cache_throttle": 30.0,
        "cache_flight_timeout": 600.0,
        "disk_dir": None,
        "disk_max_bytes": 1_000_000_000,
        "require_scope": False,
        "limit_max_queue": 10_000,
        "limit_queue_timeout": 300.0,
        "retry_attempts": 3,
        "retry_max_retry_after": 120.0,
    }


def test_precedence(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each place is stronger than the one below it."""
    (place / "scalekit.toml").write_text('[limit]\nqueue_timeout = "1m"\n')
    settings.reset()
    assert lookup(NAME) == 60.0
    monkeypatch.setenv(VARIABLE, "2m")
    settings.reset()
    assert lookup(NAME) == 120.0
    configure(limit_queue_timeout="3m")
    assert lookup(NAME) == 180.0
    assert lookup(NAME, "4m") == 240.0


def test_configure_after_a_lookup() -> None:
    """A setting that was looked up already changes with the next configure(); None leaves it."""
    assert lookup("retry_attempts") == 3
    configure(retry_attempts=7)
    assert lookup("retry_attempts") == 7
    configure(retry_attempts=None, disable=True)
    assert lookup("retry_attempts") == 7
    assert lookup("disable") is True


def test_configure_takes_all_or_nothing() -> None:
    """A configure() with one bad setting changes none."""
    with pytest.raises(ConfigurationError, match=r'cache_max_bytes=\'64mb\'.*write "64MB"'):
        configure(retry_attempts=9, cache_max_bytes="64mb")
    assert lookup("retry_attempts") == 3


def test_configure_offers_every_setting() -> None:
    """The keywords of configure() are the settings, no more and no less."""
    parameters = inspect.signature(configure).parameters.values()
    assert [p.name for p in parameters if p.kind is p.KEYWORD_ONLY] == list(KNOWN)


def test_unknown_names() -> None:
    """A name that no setting has is an error with the nearest one."""
    wrong: dict[str, Any] = {"limit_queue_timout": 3}
    with pytest.raises(ConfigurationError, match="did you mean 'limit_queue_timeout'"):
        configure(**wrong)
    with pytest.raises(ConfigurationError, match="did you mean 'retry_attempts'"):
        lookup("retry_attempt")


def test_unknown_names_in_the_file(place: Path) -> None:
    """So is one in scalekit.toml, and the error says where it stands."""
    (place / "scalekit.toml").write_text("[limit]\nmax_que = 3\n")
    with pytest.raises(
        ConfigurationError, match=r"scalekit\.toml, \[limit\] max_que: .*did you mean 'limit_max_queue'"
    ):
        lookup("retry_attempts")


def test_unknown_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SCALEKIT_ variable that is no setting belongs to somebody else."""
    monkeypatch.setenv("SCALEKIT_CLIENT_ID", "of the other scalekit")
    assert lookup("retry_attempts") == 3


def test_bad_values_say_where_they_are_from(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad value names the variable or the file and line of thought it came from."""
    monkeypatch.setenv(VARIABLE, "10 sec")
    with pytest.raises(ConfigurationError, match=rf'write "10s".*environment variable {VARIABLE}'):
        lookup(NAME)
    (place / "scalekit.toml").write_text("[retry]\nattempts = 0\n")
    with pytest.raises(ConfigurationError, match=r"retry_attempts=0 .*scalekit\.toml, \[retry\] attempts"):
        lookup("retry_attempts")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (NAME, "300", 300.0),
        (NAME, "0.5", 0.5),
        (NAME, "", 300.0),
        ("disable", "1", True),
        ("disable", "off", False),
        ("retry_attempts", "5", 5),
        ("cache_max_bytes", "1GB", 10**9),
        ("namespace", "42", "42"),
    ],
)
def test_texts_of_the_environment(monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: Any) -> None:
    """The environment has only text: numbers and flags are read from it, and empty is as good as absent."""
    monkeypatch.setenv(f"SCALEKIT_{name.upper()}", text)
    assert lookup(name) == expected
    assert type(lookup(name)) is type(expected)


def test_flags_are_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is neither yes nor no is an error."""
    monkeypatch.setenv("SCALEKIT_DISABLE", "maybe")
    with pytest.raises(ConfigurationError, match=r"disable='maybe'.*SCALEKIT_DISABLE"):
        lookup("disable")


def test_the_file_is_found_above(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """scalekit.toml of a parent directory counts; both of its forms do."""
    (place / "scalekit.toml").write_text('limit_queue_timeout = 7\ndisable = true\n[cache]\nmax_bytes = "1MB"\n')
    inner = place / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert (lookup(NAME), lookup("disable"), lookup("cache_max_bytes")) == (7.0, True, 1_000_000)


def test_the_file_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SCALEKIT_CONFIG names the file, and must name one."""
    other = place / "production.toml"
    other.write_text("retry_attempts = 6\n")
    monkeypatch.setenv("SCALEKIT_CONFIG", str(other))
    assert lookup("retry_attempts") == 6
    monkeypatch.setenv("SCALEKIT_CONFIG", str(place / "nowhere.toml"))
    settings.reset()
    with pytest.raises(ConfigurationError, match=r"SCALEKIT_CONFIG='.*nowhere\.toml' is not a file"):
        lookup("retry_attempts")


@pytest.mark.parametrize("text", ["retry_attempts = ", "retry_attempts = 3\n[retry]\nattempts = 4\n"])
def test_a_broken_file(place: Path, text: str) -> None:
    """A file that is no TOML, or says one thing twice, is an error that names it."""
    (place / "scalekit.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"scalekit\.toml"):
        lookup("retry_attempts")


def test_read_once(place: Path) -> None:
    """The file is read once: a change of it is seen by the next process."""
    (place / "scalekit.toml").write_text("retry_attempts = 6\n")
    assert lookup("retry_attempts") == 6
    (place / "scalekit.toml").write_text("retry_attempts = 8\n")
    configure(disable=False)
    assert lookup("retry_attempts") == 6


def test_a_vanished_directory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose working directory was deleted has the defaults."""
    gone = place / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert lookup("retry_attempts") == 3


def test_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The namespace follows the function: its package, the script's stem, `python -m`'s package; or what was set."""
    assert namespace_of("shop.search.rank") == "shop"
    main = ModuleType("__main__")
    monkeypatch.setitem(__import__("sys").modules, "__main__", main)
    assert namespace_of("__main__") == "__main__"
    main.__file__ = "/srv/jobs/nightly.py"
    assert namespace_of("__main__") == "nightly"
    main.__spec__ = __import__("importlib.util").util.spec_from_loader("shop.__main__", loader=None)
    assert namespace_of("__main__") == "shop"
    configure(namespace="blue")
    assert namespace_of("shop.search") == "blue"


def test_every_setting_is_documented() -> None:
    """Each setting says in one line what it is for, and its default is one that its own parser accepts."""
    for name, setting in KNOWN.items():
        assert setting.text
        assert "\n" not in setting.text
        assert setting.default is None or setting.parse(setting.default, name) is not None
