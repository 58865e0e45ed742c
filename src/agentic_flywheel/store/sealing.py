"""Sealing: the one place where what people wrote is encrypted on its way out, and opened on its way in.

    byte 0-4    mark and version     byte 5-16   nonce     byte 17   length of the key's id, then the id
    after that  AES-256-GCM: the value, and its tag of 16 bytes

Invariant: with keys configured, nothing that `codec` marked as `Stored` leaves a process unsealed, whichever command
carries it; and what is opened was sealed with a key of ours for the very place where it was found. The place (the Redis
key, with the field of a hash, so with the tenant) and the key's id are authenticated with each value, and every tenant
has keys of its own, derived from the configured ones (HKDF-SHA256). What cannot be opened is counted in `unreadable`
and reads as damage, as any value whose checksum fails: a miss, never an answer.

A key may seal 2^32 values under random nonces (NIST SP 800-38D, 8.3), a tenant's derived one as well.
"""

from __future__ import annotations

import hmac
import os
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from agentic_flywheel.errors import ExtraMissing, StoreDamaged
from agentic_flywheel.store.codec import DAMAGED, MARK, Stored, place
from agentic_flywheel.store.keys import PREFIX

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from agentic_flywheel.store.keyring import Keyring

_NONCE = 12
#: Values that are remembered as they were opened lately, and how large each may be.
_LATELY = 256
_KNOWN = 512
_LATELY_BYTES = 16_384
_MARK = len(MARK)
_HEAD = _MARK + _NONCE + 1
_TAG = 16
_SCRIPTS = ("EVALSHA", "EVAL", "EVAL_RO", "EVALSHA_RO")
_BEFORE = ("HSET", "HSETNX", "HMSET")

#: Where the tenant's name begins in a key.
_TENANT = len(PREFIX) + 1

Command = Sequence[Any]


class Opened(bytes):
    """A value that was sealed in Redis. Given back to a command, it stands for the sealed bytes: scripts that replace
    what was read compare those. `key_id` is empty where it could not be opened."""

    sealed = b""

    @property
    def key_id(self) -> str:
        """The key that it was sealed with."""
        return "" if self == DAMAGED else key_id(self.sealed)


_TOUCHED = frozenset({Stored, Opened})
#: Commands that carry values; others carry keys, places and numbers.
_WRITES = frozenset({"EVAL", "EVALSHA", "GETSET", "HMSET", "HSET", "HSETNX", "LPUSH", "LSET", "RPUSH", "SET", "XADD"})


class Vault:
    """Seals with the current key, opens with all of them. `unreadable` counts what could not be opened, by reason:
    `unknown_key`, or `damaged` (changed, cut off, moved from elsewhere, or sealed with another key of this id); `told`
    hears of each."""

    def __init__(self, keyring: Keyring) -> None:
        self.keyring = keyring
        self.unreadable: Counter[str] = Counter()
        self.told: Callable[[str], None] | None = None
        self._ciphers: dict[tuple[str, str], AESGCM] = {}
        #: Answers and turns that are asked for again and again; only used on the event loop.
        self._lately: dict[tuple[str, bytes], Opened] = {}
        self._secrets: dict[tuple[str, str], bytes] = {}
        #: Each key's id as it stands in a value.
        self._names = {id_: bytes((len(id_.encode()),)) + id_.encode() for id_ in keyring.keys}
        #: Of the places that were met lately: a session's turns all lie in one.
        self._known: dict[tuple[str, str], tuple[AESGCM, bytes]] = {}
        try:
            from cryptography.exceptions import InvalidTag
        except ImportError as error:
            raise ExtraMissing("encryption", "encryption") from error
        self._invalid = InvalidTag

    def seal(self, raw: bytes, at: str) -> bytes:
        """Bytes, sealed for a place."""
        id_ = self.keyring.current
        return self._seal(raw, at, id_, os.urandom(_NONCE))

    def _seal(self, raw: bytes, at: str, id_: str, nonce: bytes) -> bytes:
        cipher, bound = self._ready(id_, at)
        return b"".join((MARK, nonce, self._names[id_], cipher.encrypt(nonce, raw, bound)))

    def open(self, raw: bytes, at: str) -> bytes:
        """What was sealed for a place, as `Opened` (`DAMAGED` where it cannot be opened); what is not, as it is."""
        if not raw.startswith(MARK):
            return raw
        known = self._lately.get((at, raw))
        return self._remember(self._open(raw, at), raw, at) if known is None else known

    def _remember(self, value: bytes, sealed: bytes, at: str) -> Opened:
        opened = Opened(value)
        opened.sealed = sealed
        if value != DAMAGED and len(sealed) <= _LATELY_BYTES:
            if len(self._lately) >= _LATELY:
                del self._lately[next(iter(self._lately))]
            self._lately[at, sealed] = opened
        return opened

    def _open(self, raw: bytes, at: str) -> bytes:
        id_ = key_id(raw)
        if id_ not in self.keyring.keys:
            self._count("unknown_key" if id_ else "damaged")
            return DAMAGED
        cipher, bound = self._ready(id_, at)
        try:
            return cipher.decrypt(raw[_MARK : _MARK + _NONCE], raw[_HEAD + len(id_) :], bound)
        except self._invalid:
            self._count("damaged")
            return DAMAGED

    def _count(self, reason: str) -> None:
        self.unreadable[reason] += 1
        if self.told is not None:
            self.told(reason)

    def knows(self, raw: bytes) -> bool:
        """Whether the key that a value was sealed with is here."""
        return key_id(raw) in self.keyring.keys

    def certain(self, raw: bytes, at: str) -> bytes:
        """As `open`, for what is no reply of Redis. Raises `StoreDamaged`."""
        if not raw.startswith(MARK):
            return raw
        opened = self._open(raw, at)
        if opened == DAMAGED:
            named = key_id(raw)
            why = "is damaged, or was not written for this place"
            if named and named not in self.keyring.keys:
                why = f"was sealed with the key {named}, which is not configured here"
            raise StoreDamaged(f"a sealed value {why}", size_bytes=len(raw))
        return opened

    def same(self, text: str, at: str, key: str) -> str:
        """A text, sealed so that equal texts stay equal (for filters), as text; `opened_text` reads it."""
        nonce = self.digest(f"same {at} {text}", at, key)[:_NONCE]
        return b64encode(self._seal(text.encode("utf-8", "surrogatepass"), at, key, nonce)).decode()

    def opened_text(self, text: str, at: str) -> str:
        """What `same`, or `seal` in base64, made of a text. Raises `StoreDamaged`."""
        try:
            return self.certain(b64decode(text, validate=True), at).decode("utf-8", "surrogatepass")
        except ValueError as error:
            raise StoreDamaged("a sealed text is something else") from error

    def digest(self, text: str, at: str, key: str) -> bytes:
        """A keyed digest of a text (HMAC-SHA256, 16 bytes): nobody without the key can tell what it is of."""
        secret = self._secrets.get((key, root := _root(at)))
        if secret is None:
            secret = self._secrets[key, root] = self._derived(key, at, b"afw digests ")
        return hmac.digest(secret, text.encode("utf-8", "surrogatepass"), "sha256")[:16]

    def command(self, command: Command) -> Command:
        """A command with everything in it that is to be sealed sealed, and what was opened as it was read."""
        if command[0] not in _WRITES or _TOUCHED.isdisjoint(kinds := list(map(type, command))):
            return command
        sent = list(command)
        for index, kind in enumerate(kinds):
            if kind in _TOUCHED:
                sent[index] = self._argument(command, index)
        return sent

    def _argument(self, command: Command, index: int) -> Any:
        argument = command[index]
        if isinstance(argument, Opened):
            return argument.sealed
        at = argument.at or _place_of(command, index)
        if argument.lead:
            return argument[: argument.lead] + self.seal(argument[argument.lead :], at)
        sealed = self.seal(argument, at)
        self._remember(argument, sealed, at)  # a session's next question reads its turns
        return sealed

    def commands(self, commands: Sequence[Command]) -> Sequence[Command]:
        """As `command`, each of them."""
        return [self.command(command) if command[0] in _WRITES else command for command in commands]

    def replies(self, commands: Sequence[Command], replies: list[Any]) -> list[Any]:
        """As `reply`, each of them, in place."""
        for index, reply in enumerate(replies):
            kind = type(reply)
            if kind is bytes:
                if reply.startswith(MARK):
                    replies[index] = self.reply(commands[index], reply)
            elif reply and (kind is list or kind is dict):
                replies[index] = self.reply(commands[index], reply)
        return replies

    def reply(self, command: Command, reply: Any) -> Any:
        """A reply with everything in it that is sealed opened, in place: nobody else has it yet."""
        kind = type(reply)
        if kind is bytes:
            if not reply.startswith(MARK):
                return reply
            field = place(_text(command[1]), _text(command[2])) if command[0] == "HGET" else _key(command)
            return self.open(reply, field)
        if not reply or (kind is not list and kind is not dict):
            return reply
        match command[0]:
            case "HGETALL":
                self._fields(command, reply)
            case "HSCAN":
                self._fields(command, reply[1])
            case "HMGET" if kind is list:
                for at, value in enumerate(reply):
                    if type(value) is bytes and value.startswith(MARK):
                        reply[at] = self._field(command, command[at + 2], value)
            case "HMGET":
                pass
            case _:
                self._within(reply, _key(command))
        return reply

    def _fields(self, command: Command, reply: Any) -> None:
        """Open the values of a hash, which RESP3 gives as a map and RESP2 as a flat list."""
        if type(reply) is dict:
            for name, value in reply.items():
                if type(value) is bytes and value.startswith(MARK):
                    reply[name] = self._field(command, name, value)
            return
        for at in range(1, len(reply), 2):
            value = reply[at]
            if type(value) is bytes and value.startswith(MARK):
                reply[at] = self._field(command, reply[at - 1], value)

    def _field(self, command: Command, name: Any, value: bytes) -> bytes:
        return self.open(value, place(_text(command[1]), _text(name)))

    def _within(self, reply: Any, at: str) -> None:
        for name, value in reply.items() if type(reply) is dict else enumerate(reply):
            kind = type(value)
            if kind is bytes:
                if value.startswith(MARK):
                    reply[name] = self.open(value, at)
            elif kind is list or kind is dict:
                self._within(value, at)

    def _ready(self, id_: str, at: str) -> tuple[AESGCM, bytes]:
        """The cipher of a key for a place's tenant, and what is authenticated with each value there."""
        known = self._known.get((id_, at))
        if known is None:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            known = self._known[id_, at] = (self._cipher(id_, at), _bound(id_.encode(), at))
        return known

    def _cipher(self, id_: str, at: str) -> AESGCM:
        known = self._ciphers.get((id_, root := _root(at)))
        if known is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            known = self._ciphers[id_, root] = AESGCM(self._derived(id_, at, b"afw values "))
        return known

    def _derived(self, id_: str, at: str, use: bytes) -> bytes:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        derivation = HKDF(algorithm=SHA256(), length=32, salt=None, info=use + _root(at).encode())
        return derivation.derive(self.keyring.keys[id_])


def key_id(raw: bytes) -> str:
    """The id of the key that a value was sealed with; "" where it is cut off."""
    if len(raw) <= _HEAD + _TAG or len(raw) < _HEAD + raw[_HEAD - 1] + _TAG:
        return ""
    return raw[_HEAD : _HEAD + raw[_HEAD - 1]].decode("ascii", "replace")


def _bound(name: bytes, at: str) -> bytes:
    return MARK + name + b" " + at.encode("utf-8", "surrogatepass")


def _root(at: str) -> str:
    """The tenant's part of a place: what all its keys begin with."""
    return at[: at.find(":", _TENANT)]


def _place_of(command: Command, index: int) -> str:
    name = command[0]
    if name in _SCRIPTS:  # a mistake of ours, which any run with a key shows
        raise TypeError("a value in a script's arguments does not say where it will be stored")
    if name in _BEFORE:
        return place(_text(command[1]), _text(command[index - 1]))
    return _text(command[1])


def _key(command: Command) -> str:
    name = command[0]
    if name in _SCRIPTS:
        return _text(command[3])
    if name == "XREAD":
        return _text(command[list(command).index("STREAMS") + 1])
    return _text(command[1]) if len(command) > 1 else ""


def _text(word: Any) -> str:
    return word.decode("utf-8", "surrogateescape") if isinstance(word, bytes) else str(word)
