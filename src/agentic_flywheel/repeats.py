"""Requests that may be sent again and are done once: what `Idempotency-Key` stands for.

Invariant: a key belongs to one caller of one tenant and to one request, byte for byte. What a request came to is sealed
with the key itself (AES-256-GCM under a digest of it), of which Redis holds another digest alone: nobody but who has
the key can read it, whatever words it has. Only what went well is kept; after a failure the key is free again.
"""

from __future__ import annotations

import re
import secrets
from hashlib import blake2b

import msgspec

from agentic_flywheel.errors import InputError, RepeatInProgress, RepeatMismatch, StoreDamaged
from agentic_flywheel.store.codec import decode, packed
from agentic_flywheel.store.repeats import TOKEN, RepeatStore
from agentic_flywheel.store.store import Store

_KEY = re.compile(r"[\x21-\x7e]{16,255}")
_NONCE = 12


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What a request came to: status, headers, body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Repeat:
    """One request under its key."""

    def __init__(self, store: RepeatStore, key: str, caller: str, request: bytes) -> None:
        self._store = store
        self._name = _digest(b"name", caller.encode(), key.encode()).hex()[:32]
        self._secret = _digest(b"seal", caller.encode(), key.encode())
        self._request = _digest(b"what", request)
        self._token = secrets.token_bytes(TOKEN)

    async def begin(self) -> Kept | None:
        """What the request came to before; None where it is to be done now, by whoever asked.

        Raises `RepeatInProgress`, `RepeatMismatch`, `StoreError`.
        """
        there = await self._store.begin(self._name, self._token)
        if there is None:
            return None
        if not there:
            raise RepeatInProgress("the first request with this Idempotency-Key is still under way")
        request, kept = self._opened(there)
        if request != self._request:
            raise RepeatMismatch("this Idempotency-Key stands for another request")
        return kept

    async def keep(self, kept: Kept) -> None:
        """It went well, and came to this. Raises `StoreError`."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = secrets.token_bytes(_NONCE)
        sealed = AESGCM(self._secret).encrypt(nonce, self._request + packed(kept), self._name.encode())
        await self._store.end(self._name, self._token, nonce + sealed)

    async def release(self) -> None:
        """It failed: the key is free again. Raises `StoreError`."""
        await self._store.end(self._name, self._token)

    def _opened(self, sealed: bytes) -> tuple[bytes, Kept]:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            plain = AESGCM(self._secret).decrypt(sealed[:_NONCE], sealed[_NONCE:], self._name.encode())
        except (InvalidTag, ValueError) as error:
            raise StoreDamaged("what a repeated request came to is damaged: use another Idempotency-Key") from error
        size = len(self._request)
        return plain[:size], decode(plain[size:], Kept)


class Repeats:
    """The repeatable requests of one tenant."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, key: str, *, caller: str, request: bytes) -> Repeat:
        """A request under a key of a caller; `request` is all that it says. Raises `InputError`."""
        if not _KEY.fullmatch(key):
            raise InputError(
                "an Idempotency-Key has 16 to 255 visible ASCII characters",
                suggestions=("Make one at random for each thing that is to be done once: a UUID.",),
                param="Idempotency-Key",
            )
        return Repeat(self._store.repeats, key, caller, request)


def _digest(purpose: bytes, *parts: bytes) -> bytes:
    digest = blake2b(digest_size=32, person=b"afw repeat", salt=purpose)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()
