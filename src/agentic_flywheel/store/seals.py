"""Whether a tenant's values are sealed, and what one process may do about it.

    afw:v1:T:sealing    hash    since, key:ID (what tells a key of this id from another), index, rotation

Invariant: once a process with keys has written, the tenant remembers that it is sealed. Whoever has no key is told so
before it writes, and within `LOOK_SECONDS` if it was at work before; whoever has another key under one of these ids, or
none of them, is told as well. So plain values never come to stand beside sealed ones, nor those of a key by mistake.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from agentic_flywheel.errors import KeyMissing
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.codec import MARK, Stored
from agentic_flywheel.store.keys import PREFIX, Keys

if TYPE_CHECKING:
    from agentic_flywheel.store.sealing import Vault

#: How old what is known of the tenant may be.
LOOK_SECONDS = 30.0
#: Where keys may come from; one of them.
SOURCES = ("encryption.keys", "encryption.key_file", "encryption.key_command")

Command = Sequence[Any]


class SealMark(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant remembers: its keys by id (with what tells them apart), which of them the indexes of history are
    made with, since when, and how far a rotation has come."""

    keys: dict[str, str] = {}
    index: str = ""
    since: float = 0.0
    rotation: str = ""


class Seals:
    """What one process knows of its tenant; `Link` asks it before it sends and after it was answered."""

    def __init__(self, settings: Settings) -> None:
        self.vault = _vault_of(settings)
        self.tenant = settings.text("tenant")
        self._key = Keys(self.tenant).sealing
        self.mark: SealMark | None = None
        self._looked_at = float("-inf")
        self._noted = self.vault is None
        self._problem = ""

    @property
    def look(self) -> Command:
        """What to send to learn what the tenant remembers."""
        return ("HGETALL", self._key)

    def due(self) -> bool:
        """Whether it is time to look."""
        return time.monotonic() - self._looked_at >= LOOK_SECONDS

    @property
    def new(self) -> bool:
        """Whether nobody has looked yet."""
        return self.mark is None

    def touched(self, commands: Sequence[Command]) -> bool:
        """Whether these commands touch values of ours."""
        return any(_ours(command) for command in commands)

    def learn(self, reply: Any) -> None:
        """The reply to `look`; one that is no hash says nothing."""
        self._looked_at = time.monotonic()
        self.mark = mark_of(reply)
        self._problem = self._missing(self.mark)
        if self.vault is not None and self.mark.keys:
            self._noted = self.vault.keyring.current in self.mark.keys

    def note(self, commands: Sequence[Command]) -> Command | None:
        """What to send before these commands, so that the tenant remembers our key; None where it does, or where they
        write nothing that is sealed."""
        if self._noted or self.vault is None or self._problem:
            return None
        if not any(isinstance(word, Stored) for command in commands for word in command):
            return None
        ring = self.vault.keyring
        id_ = ring.current
        fields = {f"key:{id_}": ring.check(id_)}
        if self.mark is None or not self.mark.since:
            fields["since"] = repr(time.time())
        if self.mark is None or not self.mark.index:
            fields["index"] = id_
        return ("HSET", self._key, *(word for pair in fields.items() for word in pair))

    def noted(self) -> None:
        """The tenant remembers our key now."""
        self._noted = True
        self._looked_at = float("-inf")

    def admit(self, commands: Sequence[Command]) -> None:
        """Raise `KeyMissing` where these commands touch the tenant's values and this process may not."""
        if self._problem and self.touched(commands):
            raise self.missing()

    def missing(self) -> KeyMissing:
        """What stands in the way, for people."""
        return KeyMissing(self._problem, tenant=self.tenant)

    @property
    def problem(self) -> str:
        """What stands in the way; "" for nothing."""
        return self._problem

    @property
    def unknown(self) -> list[str]:
        """Ids of keys that the tenant's values may be sealed with, and that are not configured here."""
        if self.mark is None:
            return []
        known = self.vault.keyring.keys if self.vault is not None else {}
        return [id_ for id_ in self.mark.keys if id_ not in known]

    @property
    def index_key(self) -> str:
        """The key that indexes of history are made with; "" where nothing is sealed."""
        if self.vault is None:
            return ""
        ring = self.vault.keyring
        named = self.mark.index if self.mark is not None else ""
        return named if named in ring.keys else ring.current

    def sealed(self, commands: Sequence[Command]) -> Sequence[Command]:
        """Commands as they go out."""
        return commands if self.vault is None else self.vault.commands(commands)

    def opened(self, commands: Sequence[Command], replies: Sequence[Any]) -> list[Any]:
        """Replies as they came in."""
        if self.vault is None:
            return list(replies)
        return self.vault.replies(commands, list(replies))

    def seal(self, raw: bytes, at: str) -> bytes:
        """Bytes for another place than Redis. Raises `KeyMissing`."""
        if self._problem:
            raise self.missing()
        return bytes(raw) if self.vault is None else self.vault.seal(raw, at)

    def locked(self, raw: bytes) -> bool:
        """Whether bytes are sealed with a key that this process does not have."""
        if not raw.startswith(MARK):
            return False
        return self.vault is None or not self.vault.knows(raw)

    def open(self, raw: bytes, at: str) -> bytes:
        """What `seal` made, or what stands within another value. Raises `StoreDamaged` where it cannot be opened."""
        return raw if self.vault is None else self.vault.certain(raw, at)

    def _missing(self, mark: SealMark) -> str:
        if not mark.keys:
            return ""
        named = ", ".join(mark.keys)
        if self.vault is None:
            return f"what tenant {self.tenant} holds is encrypted with the key {named}, and no key is configured here"
        ring = self.vault.keyring
        for id_, check in mark.keys.items():
            if id_ in ring.keys and ring.check(id_) != check:
                return f"the key {id_} of {ring.origin} is another one than tenant {self.tenant} is encrypted with"
        if not mark.keys.keys() & ring.keys.keys():
            mine = ", ".join(ring.keys)
            return f"tenant {self.tenant} is encrypted with the key {named}, and {ring.origin} has only {mine}"
        return ""


def mark_of(reply: Any) -> SealMark:
    """The reply to `Seals.look`."""
    if isinstance(reply, list) and len(reply) % 2 == 0:
        reply = dict(zip(reply[::2], reply[1::2], strict=True))
    if not isinstance(reply, dict):
        return SealMark()
    try:
        said = {name.decode(): value.decode() for name, value in reply.items()}
        return SealMark(
            keys={name[4:]: value for name, value in said.items() if name.startswith("key:")},
            index=said.get("index", ""),
            since=float(said.get("since", 0)),
            rotation=said.get("rotation", ""),
        )
    except (AttributeError, ValueError):
        return SealMark()


def _vault_of(settings: Settings) -> Vault | None:
    """What seals; None, and nothing imported for it, where no source of keys is set. Raises `SettingsError`."""
    if not any(settings.text(name) for name in SOURCES):
        return None
    from agentic_flywheel.store.keyring import keyring_of
    from agentic_flywheel.store.sealing import Vault

    return Vault(keyring_of(settings))


def _ours(command: Command) -> bool:
    if len(command) < 2:
        return False
    key = command[3] if command[0] in ("EVALSHA", "EVAL") and int(command[2]) else command[1]
    return isinstance(key, str) and key.startswith(PREFIX)
