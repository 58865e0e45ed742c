"""Flights within one process: what is heard, by whom, from when on; and what becomes of work whose asker left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.errors import FlowRefused, FlowUnavailable
from agentic_flywheel.flights import RESTARTED, Flight, Flights, Landed
from agentic_flywheel.flows.protocol import FlowEvent, Progress, TextPart
from agentic_flywheel.model import Entry

pytestmark = pytest.mark.anyio

ENTRY = Entry("q", "i", "an answer", "f", "f", "F", "", 0, 0.0, 60.0, "trace", "turn")
LANDED = Landed(ENTRY, own=True)


def text_of(events: Sequence[FlowEvent]) -> str:
    """What a listener has in the end."""
    text = ""
    for event in events:
        if isinstance(event, TextPart):
            text += event.text
        elif event is RESTARTED:
            text = ""
    return text


async def hear(flight: Flight) -> list[FlowEvent]:
    return [event async for event in flight.events(until=asyncio.get_running_loop().create_future())]


PARTS = st.lists(st.one_of(st.text(max_size=4), st.none()), max_size=12)


@given(parts=PARTS, answer=st.text(max_size=12), whole=st.booleans())
def test_what_was_heard_is_the_answer_in_the_end(parts: list[str | None], answer: str, whole: bool) -> None:
    """Whatever was told, and however often somebody else began anew (None)."""

    async def run() -> None:
        flight = Flight()
        early = asyncio.create_task(hear(flight))
        for part in parts:
            if part is None:
                flight.restart()
            else:
                flight.tell(TextPart(part))
            await asyncio.sleep(0)
        told = "".join("" if part is None else part for part in parts)
        text = told if whole and None not in parts else answer
        flight.complete(text)
        flight.land(LANDED)
        late = await hear(flight)
        assert text_of(await early) == text_of(late) == text
        if text is told:
            assert RESTARTED not in late

    asyncio.run(run())


async def test_who_comes_late_hears_it_from_the_beginning() -> None:
    flight = Flight()
    flight.tell(TextPart("Seven "))
    flight.tell(Progress("looking"))
    late = asyncio.create_task(hear(flight))
    await asyncio.sleep(0)
    flight.tell(TextPart("days."))
    flight.land(LANDED)
    assert await late == [TextPart("Seven "), Progress("looking"), TextPart("days.")]
    assert await hear(flight) == await late


async def test_a_listener_stops_when_it_has_its_answer_from_elsewhere() -> None:
    flight, elsewhere = Flight(), asyncio.get_running_loop().create_future()
    flight.tell(TextPart("Sev"))
    heard: list[FlowEvent] = []
    something = asyncio.Event()

    async def listen() -> None:
        async for event in flight.events(until=elsewhere):
            something.set()
            heard.append(event)

    listening = asyncio.create_task(listen())
    await something.wait()
    elsewhere.set_result(None)
    await asyncio.wait_for(listening, 10)
    assert heard == [TextPart("Sev")]


async def test_everyone_aboard_gets_the_end_or_the_error() -> None:
    flights = Flights()
    go_on = asyncio.Event()

    async def fly(flight: Flight) -> Landed:
        await go_on.wait()
        flight.tell(TextPart("x"))
        raise FlowRefused("no")

    flight = flights.launch("name", fly)
    assert flights.under_way("name") is flight
    assert flights.under_way("other") is None
    waiting = [asyncio.create_task(flight.landed()) for _ in range(3)]
    waiting[0].cancel()
    go_on.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, FlowRefused, FlowRefused]
    assert flights.under_way("name") is None


async def test_a_flight_that_failed_with_nobody_aboard_is_no_unhandled_error(caplog: pytest.LogCaptureFixture) -> None:
    async def fly(flight: Flight) -> Landed:
        raise FlowRefused("no")

    flights = Flights()
    with caplog.at_level(logging.ERROR):
        flights.launch("name", fly)
        await flights.aclose(patience=10)
    assert caplog.records == []


async def test_a_defect_is_told_to_who_waits_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fly(flight: Flight) -> Landed:
        raise ZeroDivisionError

    flights = Flights()
    with pytest.raises(ZeroDivisionError):
        await flights.launch("name", fly).landed()
    await flights.aclose(patience=10)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_closing_gives_up_what_does_not_end_and_says_so() -> None:
    flights, begun = Flights(), asyncio.Event()

    async def fly(flight: Flight) -> Landed:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    flight = flights.launch("name", fly)

    async def settle() -> str:
        try:
            await flight.landed()
        except FlowUnavailable as error:
            return error.message
        return "landed"

    settled = flights.go_on(settle())
    endless = flights.go_on(asyncio.Event().wait())
    await begun.wait()
    await asyncio.wait_for(flights.aclose(patience=0.01), 10)
    assert "closed" in await settled
    assert endless.cancelled()
    await flights.aclose(patience=10)


async def test_closing_lets_what_ends_in_time_end() -> None:
    flights, begun = Flights(), asyncio.Event()

    async def fly(flight: Flight) -> Landed:
        begun.set()
        await asyncio.sleep(0)
        return LANDED

    flight = flights.launch(None, fly)
    await flights.aclose(patience=60)
    assert await flight.landed() is LANDED
