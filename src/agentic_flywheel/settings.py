"""Typed settings, and where each value came from.

Invariant: one table (`settings_table.SETTINGS`) lists every setting with its type, default and help; files,
environment, `afw config show` and docs/configuration.md follow from it, and tests hold them together. Sources,
strongest first: argument, environment (`AFW_...`), project file (`.agentic_flywheel/config.toml`, searched upwards from
the working directory), user file (`config.toml` in the user's configuration directory), default.
"""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from agentic_flywheel.errors import SettingsError
from agentic_flywheel.settings_table import SETTINGS, Setting

PROJECT_FOLDER = ".agentic_flywheel"
CONFIG_FILE = "config.toml"

_BY_NAME = {setting.name: setting for setting in SETTINGS}
_BY_VARIABLE = {setting.variable: setting for setting in SETTINGS}
#: Variables of the same prefix that are not settings of this table.
_OTHER_VARIABLES = frozenset({"AFW_CONFIG_DIR", "AFW_CONNECT_KEY", "AFW_LOG_LEVEL", "AFW_ENV_FILE"})


class Settings(msgspec.Struct, frozen=True):
    """All settings in force, each with its origin; read with `settings["session.turns"]`.

    >>> settings = load_settings({"session.turns": 3}, environ={}, directory=Path("/"))
    >>> settings["session.turns"], settings.origin("session.turns"), settings.origin("tenant")
    (3, 'argument', 'default')
    """

    values: Mapping[str, Any]
    origins: Mapping[str, str]
    directory: Path
    config_dir: Path
    environ: Mapping[str, str]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def origin(self, name: str) -> str:
        """Where the value came from: `argument`, `environment AFW_X`, a file's path, or `default`."""
        return self.origins[name]

    def overlaid(self, arguments: Mapping[str, Any]) -> Settings:
        """These settings with some, by dotted name, given as arguments. Raises `SettingsError`."""
        values, origins = dict(self.values), dict(self.origins)
        for name, raw in arguments.items():
            values[name] = _typed(_known(name, "argument"), raw, "argument")
            origins[name] = "argument"
        return Settings(values, origins, self.directory, self.config_dir, self.environ)

    def text(self, name: str) -> str:
        """A setting that is text."""
        return str(self.values[name])

    def number(self, name: str) -> float:
        """A setting that is a number."""
        return float(self.values[name])


def user_config_dir(environ: Mapping[str, str]) -> Path:
    """`AFW_CONFIG_DIR`, else `~/.agentic_flywheel`."""
    named = environ.get("AFW_CONFIG_DIR")
    return Path(named).expanduser() if named else Path.home() / PROJECT_FOLDER


def project_folder(directory: Path) -> Path | None:
    """The nearest `.agentic_flywheel` folder from `directory` upwards, the user's own one excluded."""
    home = Path.home()
    for folder in (directory, *directory.parents):
        candidate = folder / PROJECT_FOLDER
        if folder != home and candidate.is_dir():
            return candidate
    return None


def load_settings(
    arguments: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Settings:
    """Read every source and merge them; `arguments` are given by dotted name. Raises `SettingsError`."""
    environ = dict(os.environ if environ is None else environ)
    directory = Path.cwd() if directory is None else directory
    config_dir = user_config_dir(environ)
    values: dict[str, Any] = {setting.name: setting.default for setting in SETTINGS}
    origins = dict.fromkeys(values, "default")

    def take(name: str, raw: Any, origin: str) -> None:
        values[name] = _typed(_known(name, origin), raw, origin)
        origins[name] = origin

    project = project_folder(directory)
    for folder in (config_dir, project):
        file = folder / CONFIG_FILE if folder else None
        if file is not None and file.is_file():
            for name, raw in _read_toml(file).items():
                take(name, raw, str(file))
    for variable, raw in environ.items():
        if variable.startswith("AFW_") and variable not in _OTHER_VARIABLES and raw != "":
            setting = _BY_VARIABLE.get(variable)
            if setting is None:
                raise _unknown(variable, list(_BY_VARIABLE), "environment")
            take(setting.name, raw, f"environment {variable}")
    for name, raw in (arguments or {}).items():
        if raw is not None:
            take(name, raw, "argument")
    return Settings(values, origins, directory, config_dir, environ)


def _known(name: str, origin: str) -> Setting:
    if name not in _BY_NAME:
        raise _unknown(name, list(_BY_NAME), origin)
    return _BY_NAME[name]


def _unknown(name: str, known: list[str], origin: str) -> SettingsError:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return SettingsError(
        f"unknown setting {name!r} ({origin}){hint}", setting=name, origin=origin, nearest=nearest or None
    )


def _typed(setting: Setting, raw: Any, origin: str) -> Any:
    """`raw` as the type of the setting's default; text is parsed, since the environment only has text."""
    wanted = type(setting.default)
    try:
        value = msgspec.convert(raw, wanted, strict=not isinstance(raw, str))
    except msgspec.ValidationError as error:
        raise _unfit(setting, raw, origin) from error
    if isinstance(value, float) and not math.isfinite(value):
        raise _unfit(setting, raw, origin)
    if setting.choices and value not in setting.choices:
        raise SettingsError(
            f"setting {setting.name!r} ({origin}): {value!r} is none of {', '.join(setting.choices)}",
            setting=setting.name,
            origin=origin,
        )
    if setting.minimum is not None and isinstance(value, (int, float)) and value < setting.minimum:
        raise SettingsError(
            f"setting {setting.name!r} ({origin}): {value!r} is below the least possible value {setting.minimum:g}",
            setting=setting.name,
            origin=origin,
        )
    return value


def _unfit(setting: Setting, raw: Any, origin: str) -> SettingsError:
    expected = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[type(setting.default)]
    found = type(raw).__name__ if setting.secret else repr(raw)
    return SettingsError(
        f"setting {setting.name!r} ({origin}): expected {expected}, got {found}", setting=setting.name, origin=origin
    )


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        tree = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"cannot read {file}: {error}", file=str(file)) from error
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": deep for inner, deep in value.items()}
        else:
            flat[name] = value
    return flat
