"""Signs of life in a stream in which nothing is said for long, as Flowise gives them.

Invariant: whatever the pieces are, they come in their order and whole; between two of them that are further apart than
Flowise's own timer a comment goes out that every reader of such a stream passes over. So what stands between keeps the
connection open, and who reads knows that somebody is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

HEARTBEAT: Final = b":heartbeat\n\n"
#: Flowise 3.1.4 has one timer for all its streams.
HEARTBEAT_SECONDS: Final = 30.0


async def living(pieces: AsyncGenerator[bytes, None], every_seconds: float = HEARTBEAT_SECONDS) -> AsyncIterator[bytes]:
    """The pieces, and a heartbeat whenever nothing came for so long. What is not read to its end is closed."""

    async def following() -> bytes:
        return await anext(pieces)

    waiting = asyncio.create_task(following())
    try:
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=every_seconds)
            if not done:
                yield HEARTBEAT
                continue
            try:
                piece = waiting.result()
            except StopAsyncIteration:
                return
            waiting = asyncio.create_task(following())
            yield piece
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await pieces.aclose()
