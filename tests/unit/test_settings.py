"""Settings: where each value comes from, in which order, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel.errors import SettingsError
from agentic_flywheel.settings import Settings, load_settings
from agentic_flywheel.settings_table import SETTINGS


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A user's configuration directory, and a working directory deep inside a project."""
    user, work = tmp_path / "user", tmp_path / "project" / "a" / "b"
    (tmp_path / "project" / ".agentic_flywheel").mkdir(parents=True)
    user.mkdir()
    work.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return user, work


def load(places: tuple[Path, Path], arguments: dict[str, Any] | None = None, **environ: str) -> Settings:
    user, work = places
    return load_settings(arguments, environ={"AFW_CONFIG_DIR": str(user), **environ}, directory=work)


def test_every_setting_has_a_default_of_its_type_and_a_variable_of_its_own() -> None:
    settings = load_settings(environ={}, directory=Path("/"))
    assert {s.name for s in SETTINGS} == set(settings.values)
    assert {settings.origin(s.name) for s in SETTINGS} == {"default"}
    assert len({s.variable for s in SETTINGS}) == len(SETTINGS)
    assert all(s.help.endswith(".") for s in SETTINGS)


def test_each_source_is_stronger_than_the_next(places: tuple[Path, Path]) -> None:
    user, work = places
    in_user, in_project = user / "config.toml", work.parent.parent / ".agentic_flywheel" / "config.toml"
    assert load(places)["session.turns"] == 5
    in_user.write_text("[session]\nturns = 6\n")
    assert (load(places)["session.turns"], load(places).origin("session.turns")) == (6, str(in_user))
    in_project.write_text("session.turns = 7\n")
    assert (load(places)["session.turns"], load(places).origin("session.turns")) == (7, str(in_project))
    settings = load(places, AFW_SESSION_TURNS="8")
    assert (settings["session.turns"], settings.origin("session.turns")) == (8, "environment AFW_SESSION_TURNS")
    settings = load(places, {"session.turns": 9}, AFW_SESSION_TURNS="8")
    assert (settings["session.turns"], settings.origin("session.turns")) == (9, "argument")


def test_what_is_not_given_hides_nothing(places: tuple[Path, Path]) -> None:
    settings = load(places, {"tenant": None}, AFW_TENANT="team", AFW_USER="")
    assert (settings["tenant"], settings.origin("tenant")) == ("team", "environment AFW_TENANT")
    assert settings.origin("user") == "default"


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("session.turns", "0", 0),
        ("session.verbatim", "false", False),
        ("session.verbatim", "1", True),
        ("flow.timeout_seconds", "3", 3.0),
        ("flow.timeout_seconds", 3, 3.0),
        ("ttl.jitter", "0.1", 0.1),
        ("tenant", "007", "007"),
    ],
)
def test_text_becomes_the_type_of_the_setting(places: tuple[Path, Path], name: str, raw: Any, value: Any) -> None:
    loaded = load(places, {name: raw})[name]
    assert (loaded, type(loaded)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("session.turns", "many", "a whole number"),
        ("session.turns", 2.5, "a whole number"),
        ("session.turns", True, "a whole number"),
        ("session.verbatim", "perhaps", "true or false"),
        ("ttl.jitter", "much", "a number"),
        ("tenant", 7, "text"),
        ("session.turns", -1, "least possible value 0"),
        ("ttl.technical_seconds", "0", "least possible value 1"),
        ("redis.command_timeout_seconds", float("nan"), "number"),
        ("ttl.jitter", "inf", "number"),
    ],
)
def test_values_that_cannot_be_meant(places: tuple[Path, Path], name: str, raw: Any, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected) as caught:
        load(places, {name: raw})
    assert caught.value.details["setting"] == name
    assert len(caught.value.suggestions) >= 3


def test_unknown_settings_name_the_nearest(places: tuple[Path, Path]) -> None:
    with pytest.raises(SettingsError, match=r"did you mean 'session\.turns'"):
        load(places, {"session.turn": 3})
    with pytest.raises(SettingsError, match="did you mean 'AFW_REDIS_URL'") as caught:
        load(places, AFW_REDISURL="redis://secret@host")
    assert "secret" not in str(caught.value.as_dict())
    with pytest.raises(SettingsError) as caught:
        load(places, {"zzzzzz": 3})
    assert "mean" not in caught.value.message


def test_unknown_settings_in_files_name_the_file(places: tuple[Path, Path]) -> None:
    file = places[0] / "config.toml"
    file.write_text("[session]\nturnz = 3\n")
    with pytest.raises(SettingsError, match=r"session\.turns") as caught:
        load(places)
    assert str(file) in caught.value.message


@pytest.mark.parametrize("content", [b"session.turns = ", b"= 3", b"\xff\xfe", b"[session\n"])
def test_broken_files_say_which_and_where(places: tuple[Path, Path], content: bytes) -> None:
    file = places[0] / "config.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load(places)
    assert caught.value.details["file"] == str(file)
    if content[0] < 128:
        assert "line" in caught.value.message or "end of document" in caught.value.message


def test_other_programs_variables_are_left_alone(places: tuple[Path, Path]) -> None:
    load(places, AFWX="1", HOME="/", AFW_LOG_LEVEL="debug")


def test_a_secret_is_not_repeated_in_an_error(places: tuple[Path, Path]) -> None:
    secrets = [s.name for s in SETTINGS if s.secret]
    assert secrets
    for name in secrets:
        with pytest.raises(SettingsError) as caught:
            load(places, {name: ["redis://:hunter2@host"]})
        assert "hunter2" not in str(caught.value.as_dict())
