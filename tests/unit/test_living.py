"""A stream in which nothing is said for long: signs of life between its pieces, and nothing else changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from agentic_flywheel.interfaces.http.flowise.living import HEARTBEAT, living

pytestmark = pytest.mark.anyio


async def test_a_sign_of_life_comes_between_pieces_and_never_within() -> None:
    go_on = asyncio.Event()

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"one"
        await go_on.wait()
        yield b"two"
        yield b"three"

    heard = []
    async for piece in living(pieces(), 0.01):
        heard.append(piece)
        if heard.count(HEARTBEAT) == 2:
            go_on.set()
    assert [piece for piece in heard if piece != HEARTBEAT] == [b"one", b"two", b"three"]
    assert heard[0] == b"one"
    assert heard[1:3] == [HEARTBEAT, HEARTBEAT]


async def test_what_goes_wrong_comes_through_and_what_is_left_is_closed() -> None:
    closed = []

    async def broken() -> AsyncGenerator[bytes, None]:
        try:
            yield b"one"
            raise ValueError("cut off")
        finally:
            closed.append("broken")

    with pytest.raises(ValueError, match="cut off"):
        _ = [piece async for piece in living(broken(), 30)]

    async def endless() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"more"
                await asyncio.sleep(0)
        finally:
            closed.append("endless")

    stream = living(endless(), 30)
    assert await anext(stream) == b"more"
    await stream.aclose()  # type: ignore[attr-defined]
    assert closed == ["broken", "endless"]
