"""A session is read in several commands; turns delivered between any two of them are neither missed nor doubled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Directives, Flywheel, Turn
from agentic_flywheel.model import Outcome, Reason
from agentic_flywheel.store.link import Command
from agentic_flywheel.store.wire import Refusal
from flywheels import Oracle, opened
from servers import Server

pytestmark = pytest.mark.anyio

TURNS = 7


def turn(number: int) -> Turn:
    return Turn(
        id=f"t{number}",
        session_id="s",
        at=1_700_000_000.0 + number,
        question=f"Which lease has number {number}?",
        answer=f"Lease {number} is old.",
        flow="oracle",
        fingerprint="f",
        outcome=Outcome.MISS,
        reason=Reason.NOT_STORED,
        trace_id="0" * 32,
    )


class Delivery:
    """Sends commands one by one, and has turns delivered after so many of the first exchange."""

    def __init__(self, flywheel: Flywheel, turns: list[Turn], after: int) -> None:
        self._link = flywheel._store.link
        self._sessions = flywheel._store.sessions
        self._send = self._link.run_each
        self._turns = turns
        self._after = after
        self.commands = 0

    async def run_each(self, *commands: Command, **how: Any) -> list[Any]:
        self._link.run_each = self._send  # type: ignore[method-assign]
        self.commands = len(commands)
        replies: list[Any] = []
        for place, command in enumerate(commands):
            if place == self._after:
                appended = await self._send(*self._sessions.append_commands(*self._turns))
                assert not any(isinstance(reply, Refusal) for reply in appended)
            replies += await self._send(command, **how)
        return replies


async def follow_up(server: Server, folder: Path, *, there: int, delivered: int, after: int) -> tuple[list[str], int]:
    """What enriched a question whose session had so many turns, of which so many were in Redis, and so many came there
    after so many commands; and of how many commands the reading was."""
    turns = [turn(number) for number in range(TURNS)]
    async with (
        opened(server, folder, {"oracle": Oracle()}, outbox_enabled=True) as other,
        opened(server, folder, {"oracle": Oracle()}) as flywheel,
    ):
        store = flywheel._store
        if there:
            await store.link.run_each(*store.sessions.append_commands(*turns[:there]))
        async with other.outbox._delivery.claim(0) as claimed:
            assert claimed
            for waits in turns[there:]:
                await flywheel.outbox.keep(waits, None)
            delivery = Delivery(flywheel, turns[there : there + delivered], after)
            store.link.run_each = delivery.run_each  # type: ignore[method-assign]
            answer = await flywheel.ask("And which lease is that?", session="s")
            return list(answer.context), delivery.commands


@pytest.mark.parametrize("there", [0, 2])
@pytest.mark.parametrize("delivered", [1, 2, 4, 5])
async def test_a_delivery_between_two_readings(valkey: Server, tmp_path: Path, there: int, delivered: int) -> None:
    """Seen where Redis came back while questions were asked: a session without its beginning."""
    expected = [f"t{number}" for number in range(TURNS)]
    after, commands = 0, 1
    while after < commands:
        valkey.flush()
        folder = tmp_path / str(after)
        folder.mkdir()
        context, commands = await follow_up(valkey, folder, there=there, delivered=delivered, after=after)
        assert context == expected, f"delivered after {after} of {commands} commands"
        after += 1
    assert commands >= 6


def swap(server: Server, place: int, value: bytes) -> bytes:
    """Put a value in the place of a turn of the session; what was there."""
    key = "afw:v1:default:session:{s}:turns"
    with server.client() as client:
        entries = client.xrange(key)
        client.delete(key)
        for number, (id_, fields) in enumerate(entries):
            client.xadd(key, {"t": value if number == place else fields[b"t"]}, id=id_)
        return bytes(entries[place][1][b"t"])


@pytest.mark.parametrize("place", [0, 1])
async def test_a_turn_that_cannot_be_read_is_missed_and_said_wherever_it_stands(
    valkey: Server, tmp_path: Path, place: int
) -> None:
    """Seen where a connection garbled what came over it: a session without its beginning."""
    turns = [turn(number) for number in range(TURNS)]
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await flywheel._store.link.run(*flywheel._store.sessions.append_commands(*turns))
        whole = swap(valkey, place, b"garbage")
        for _ in range(2):
            answer = await flywheel.ask("And which lease is that?", session="s", directives=Directives(no_store=True))
            assert f"t{place}" not in answer.context
            assert "1 earlier turn(s) of this session could not be read." in answer.warnings
        asked = await flywheel.ask("And which lease is that?", session="s")
        assert f"t{place}" not in asked.context
        swap(valkey, place, whole)
        again = await flywheel.ask("And which lease was that?", session="s")
        assert f"t{place}" in again.context
        assert not again.warnings
