"""The keys that values are sealed with, as the settings give them.

Invariant: no key is ever shown, logged or part of an error; what is wrong is said by the source and the line. One of
the keys is the current one: it seals. All of them open.

    # id:key, the key as 32 bytes in base64; the first one is the current one unless encryption.current says otherwise
    k2:XxX...=
    k1:YyY...=
"""

from __future__ import annotations

import base64
import binascii
import re
import shlex
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from secrets import token_bytes

import msgspec

from agentic_flywheel.errors import SettingsError
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.seals import SOURCES

KEY_BYTES = 32
#: Longest wait for the command that tells the keys, in seconds.
COMMAND_SECONDS = 20.0

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_FORM = "Each line is ID:KEY, the key 32 bytes in base64: `afw keys create` writes one."


class Keyring(msgspec.Struct, frozen=True):
    """Keys by id, which one seals, and where they came from (a sentence without secrets)."""

    keys: Mapping[str, bytes]
    current: str
    origin: str

    def check(self, id_: str) -> str:
        """What tells whether two keys of one id are the same key, and nothing else of them."""
        return blake2b(b"afw-key-check", key=self.keys[id_], digest_size=8).hexdigest()


def keyring_of(settings: Settings) -> Keyring:
    """The keys that are configured; there is a source. Raises `SettingsError`."""
    named = [name for name in SOURCES if settings.text(name)]
    if len(named) > 1:
        raise SettingsError(
            f"keys come from one source, and {len(named)} are set: {', '.join(named)}",
            suggestions=("Keep one of them.",),
        )
    name = named[0]
    origin = f"{name} ({settings.origin(name)})"
    match name:
        case "encryption.keys":
            text = settings.text(name).replace(",", "\n")
        case "encryption.key_file":
            text = _file(Path(settings.text(name)).expanduser(), origin)
        case _:
            text = _command(settings.text(name), origin)
    return parsed(text, origin, current=settings.text("encryption.current"))


def parsed(text: str, origin: str, *, current: str = "") -> Keyring:
    """Keys as they are written down. Raises `SettingsError`.

    >>> sorted(parsed(f"b:{'A' * 43}=", "here").keys)
    ['b']
    """
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()  # noqa: PLW2901 - what stands around it means nothing
        if not line or line.startswith("#"):
            continue
        id_, colon, encoded = line.partition(":")
        id_ = id_.strip()
        if not colon or not _ID.fullmatch(id_):
            raise _wrong(origin, number, "it does not begin with an id of a key and a colon")
        if id_ in keys:
            raise _wrong(origin, number, f"the id {id_} is given to two keys")
        try:
            key = base64.b64decode(encoded.strip().replace("-", "+").replace("_", "/"), validate=True)
        except (binascii.Error, ValueError):
            raise _wrong(origin, number, f"the key {id_} is no base64") from None
        if len(key) != KEY_BYTES:
            raise _wrong(origin, number, f"the key {id_} has {len(key)} bytes, not {KEY_BYTES}")
        keys[id_] = key
    if not keys:
        raise SettingsError(f"{origin} holds no key", suggestions=(_FORM,), origin=origin)
    if current and current not in keys:
        raise SettingsError(
            f"encryption.current is {current!r}, and {origin} has no key of this id: {', '.join(keys)}",
            suggestions=("Name one of these, or add the key.",),
        )
    return Keyring(keys, current or next(iter(keys)), origin)


def new_key(id_: str) -> str:
    """A fresh key, as one line of a file. Raises `SettingsError` for an id that cannot be one."""
    if not _ID.fullmatch(id_):
        raise SettingsError(
            f"{id_!r} cannot be the id of a key", suggestions=("Use letters, digits, '-', '_' and '.', 32 at most.",)
        )
    return f"{id_}:{base64.b64encode(token_bytes(KEY_BYTES)).decode()}"


def _file(path: Path, origin: str) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingsError(
            f"the file of keys {path} cannot be read ({origin}): {said}",
            suggestions=("Check the path and its rights.", "`afw keys create --file FILE` makes one."),
            path=str(path),
        ) from error


@lru_cache(maxsize=8)
def _command(command: str, origin: str) -> str:
    """What the command says; asked once in a process."""
    try:
        words = shlex.split(command)
        done = subprocess.run(  # noqa: S603 - the person who runs this set it, and no shell reads it
            words, capture_output=True, timeout=COMMAND_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        said = "it took too long" if isinstance(error, subprocess.TimeoutExpired) else str(error)
        raise _failed(origin, said) from error
    if done.returncode:
        first = done.stderr.decode("utf-8", "replace").strip().splitlines()[:1]
        raise _failed(origin, f"exit code {done.returncode}{': ' + first[0][:200] if first else ''}")
    return done.stdout.decode("utf-8", "replace")


def _failed(origin: str, said: str) -> SettingsError:
    return SettingsError(
        f"the command that tells the keys failed ({origin}): {said}",
        suggestions=(
            "Run it by itself: it must print ID:KEY lines.",
            "It is run without a shell: no pipes, no $NAMES.",
        ),
    )


def _wrong(origin: str, line: int, said: str) -> SettingsError:
    return SettingsError(f"{origin}, line {line}: {said}", suggestions=(_FORM,), line=line)
