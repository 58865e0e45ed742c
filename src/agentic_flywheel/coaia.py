"""`tash` and `fetch`: values under raw keys, interchangeable with coaiapy's `coaia tash` and `coaia fetch`.

Invariant: what one side stores, the other reads, byte for byte, with the same lifetime; so keys have no prefix, values
no envelope, and this is the only module that counts lifetimes in minutes. The words and exit codes of success, of a
key that does not exist and of a Redis that cannot be reached are those of coaiapy 0.6.2. What differs on purpose is
listed in docs/cli.md. tests/integration/test_coaia.py holds both programs together on one server.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Protocol
from urllib.parse import urlsplit

from agentic_flywheel.errors import InputError, StoreError, UnknownKey

DEFAULT_MINUTES = 5555
#: Where Agentic Flywheel keeps its own values; a plain one written there would be a damaged one.
OWN_PREFIX = "afw:"
#: About as long as Redis itself counts (2^63 milliseconds), and still a `timedelta`.
MOST_MINUTES = 1_000_000_000_000


class PlainStore(Protocol):
    """What is needed of the facade: raw values under raw keys."""

    async def plain_get(self, key: str) -> bytes | None:
        """The value, None where there is none. Raises `StoreError`."""
        ...

    async def plain_set(self, key: str, value: bytes, ttl: timedelta | None) -> None:
        """Store the value; `ttl` None: without expiry. Raises `StoreError`."""
        ...


def lifetime(minutes: int) -> timedelta | None:
    """The lifetime that `--ttl` means: minutes; none, for ever, where it is 0 or below.

    >>> lifetime(90), lifetime(0), lifetime(-1)
    (datetime.timedelta(seconds=5400), None, None)
    """
    if minutes > MOST_MINUTES:
        raise InputError(
            f"{minutes} minutes is longer than Redis can count",
            suggestions=("Use 0 to keep the value without expiry.", "The lifetime is in minutes, not in seconds."),
            minutes=minutes,
        )
    return timedelta(minutes=minutes) if minutes > 0 else None


async def stash(store: PlainStore, key: str, value: bytes, minutes: int = DEFAULT_MINUTES) -> str:
    """Store `value` under `key` and return the line that says so. Raises `InputError` and `StoreError`."""
    if not key:
        raise InputError("the key must not be empty", suggestions=("Name the key first: afw tash KEY VALUE.",))
    if key.startswith(OWN_PREFIX):
        raise InputError(
            f"keys that begin with {OWN_PREFIX} belong to Agentic Flywheel itself",
            suggestions=("Choose another key, such as notes:today.", "Look at stored answers with `afw cache list`."),
            key=key,
        )
    if not value:
        raise InputError(
            "You must provide a value or use the --file flag to read from a file.",
            suggestions=(f"Give the value: afw tash {key} 'the value'.", f"Read a file: afw tash {key} -F FILE."),
            key=key,
        )
    await store.plain_set(key, value, lifetime(minutes))
    return f"Key: {key}  was just saved to memory."


async def fetch(store: PlainStore, key: str) -> bytes:
    """The value under `key`. Raises `UnknownKey`, whose message is coaiapy's, and `StoreError`."""
    value = await store.plain_get(key)
    if value is None:
        raise UnknownKey(
            f"Key '{key}' not found in Redis memory.",
            suggestions=(
                "Check the spelling: keys are used as they are, letter case included.",
                f"It may have expired: values live {DEFAULT_MINUTES} minutes unless -T says otherwise.",
                "Check that both sides use the same Redis and database: `afw config show`.",
            ),
            key=key,
        )
    return value


def unreachable_lines(error: StoreError) -> str:
    """The lines that say that Redis cannot be reached, as coaiapy prints them."""
    reason = str(error.__cause__ or error.message)
    if isinstance(error.__cause__, OSError) and error.__cause__.errno:
        number, where = error.__cause__.errno, urlsplit(str(error.details.get("address", "")))
        # The asynchronous client words the system's errors differently from the one that coaiapy uses.
        words = os.strerror(number) if number > 0 else error.__cause__.strerror
        reason = f"Error {number} connecting to {where.hostname or where.path}:{where.port or 6379}. {words}."
    return f"Error: Redis connection failed - {reason}\nPlease check your Redis/Upstash configuration."
