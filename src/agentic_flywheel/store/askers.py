"""Who asked, as it is counted: a mark that does not say who.

Invariant: a mark is 32 bits of a digest, different in every tenant.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b

_GENERATED = len("s-") + 16


def mark_of(asker: str, tenant: str) -> int:
    """The mark of an asker: 32 bits of BLAKE2b, different in every tenant; of a session that got its id here, 32 of the
    random bits that it has."""
    if len(asker) == _GENERATED and asker.startswith("s-"):
        with suppress(ValueError):
            return int(asker[2:10], 16)
    digest = blake2b(asker.encode("utf-8", "surrogatepass"), digest_size=4, key=_key(tenant))
    return int.from_bytes(digest.digest(), "big")


@lru_cache(maxsize=16)
def _key(tenant: str) -> bytes:
    return blake2b(tenant.encode("utf-8", "surrogatepass"), digest_size=16).digest()
