"""Familiar questions: the same bytes, the same decision; anything else goes the whole way."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Directives, Flywheel
from agentic_flywheel.model import FlowType, Outcome, Reason
from flywheels import Oracle, opened, until
from servers import Server

pytestmark = pytest.mark.anyio

QUESTION = "How do I enable Redis persistence?"


class Watch:
    """Notes which questions were recognised."""

    def __init__(self, flywheel: Flywheel) -> None:
        self.recognised = 0
        self._answer = flywheel._familiar.answer
        flywheel._familiar.answer = self  # type: ignore[method-assign, assignment]

    async def __call__(self, *arguments: Any, **named: Any) -> Any:
        answer = await self._answer(*arguments, **named)
        self.recognised += answer is not None
        return answer


async def settled(flywheel: Flywheel) -> None:
    """Wait until the registry's file is no longer so young that it is read with every question."""
    await until(lambda: flywheel.registry.current() is flywheel.registry.current(), "the registry to settle")


async def test_a_hit_is_recognised_and_is_a_hit_like_any_other(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}, given={"background": False}) as flywheel:
        await settled(flywheel)
        watch = Watch(flywheel)
        first = await flywheel.ask(QUESTION)
        whole = await flywheel.ask(QUESTION)
        trips = flywheel.redis_round_trips
        again = await flywheel.ask(QUESTION)
        assert flywheel.redis_round_trips == trips + 1
        assert (watch.recognised, oracle.calls) == (1, 1)
        same = ("text", "outcome", "reason", "key", "scope", "fingerprint", "origin_trace_id", "flow", "route", "near")
        assert [getattr(again, name) for name in same] == [getattr(whole, name) for name in same]
        assert again.origin_trace_id == first.trace_id
        assert len({a.session_id for a in (first, whole, again)}) == 3
        assert len({a.trace_id for a in (first, whole, again)}) == 3
        assert again.age_seconds >= whole.age_seconds
        assert again.ttl_seconds is not None
        assert whole.ttl_seconds is not None
        assert again.ttl_seconds <= whole.ttl_seconds
        (turn,) = (await flywheel.sessions.show(again.session_id)).turns
        assert (turn.id, turn.trace_id, turn.answer) == (again.turn_id, again.trace_id, again.text)
        assert (turn.outcome, turn.entry_key) == (Outcome.HIT, again.key)
        figures = await flywheel.cache.stats()
        assert figures.total.outcomes["hit"] == 2
        assert figures.total.reasons["exact"] == 2


async def test_whatever_changes_in_redis_goes_the_whole_way(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    flows = {"oracle": oracle}
    async with (
        opened(redis_server, tmp_path, flows) as flywheel,
        opened(redis_server, tmp_path, flows) as other,
    ):
        await settled(flywheel)
        watch = Watch(flywheel)

        async def familiar() -> None:
            before = watch.recognised
            for _ in range(3):
                answer = await flywheel.ask(QUESTION)
            assert answer.outcome is Outcome.HIT
            assert watch.recognised > before

        await flywheel.ask(QUESTION)
        await familiar()
        replaced = await other.ask(QUESTION, directives=Directives(no_cache=True))
        assert (await flywheel.ask(QUESTION)).text == replaced.text
        await familiar()
        await other.cache.clear(flow="oracle", dry_run=False)
        assert (await flywheel.ask(QUESTION)).outcome is Outcome.MISS
        await familiar()
        await other.lifetimes.set(FlowType.TECHNICAL, timedelta(seconds=1))
        left = (await flywheel.ask(QUESTION)).ttl_seconds
        assert left is None or left <= 1.05
        await other.lifetimes.reset(FlowType.TECHNICAL)
        answer = await flywheel.ask(QUESTION)
        await familiar()
        with redis_server.client() as client:
            client.delete(str(answer.key))
        assert (await flywheel.ask(QUESTION)).reason is Reason.NOT_STORED
        await familiar()
        with redis_server.client() as client:
            client.set(str(answer.key), b"something else", ex=60)
        assert (await flywheel.ask(QUESTION)).reason is Reason.DAMAGED


async def test_a_registry_that_changed_goes_the_whole_way(redis_server: Server, tmp_path: Path) -> None:
    async def second(question: str) -> str:
        return f"second: {question}"

    async with opened(redis_server, tmp_path, {"oracle": Oracle()}) as flywheel:
        await settled(flywheel)
        for _ in range(3):
            await flywheel.ask(QUESTION)
        flywheel.registry.register("oracle", second)
        answer = await flywheel.ask(QUESTION)
        assert answer.text.startswith("second")


async def test_users_and_directives_are_told_apart(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}) as flywheel:
        mine = "Where are my invoices kept in this system?"
        for user in ("ana", "bo"):
            texts = {(await flywheel.ask(mine, user=user)).text for _ in range(3)}
            assert len(texts) == 1
        assert (await flywheel.ask(mine, user="ana")).text != (await flywheel.ask(mine, user="bo")).text
        watch = Watch(flywheel)
        for directives in (Directives(no_cache=True), Directives(max_age=timedelta(0)), Directives(no_store=True)):
            assert (await flywheel.ask(mine, user="ana", directives=directives)).outcome is not Outcome.HIT
        assert watch.recognised == 0


async def test_what_is_kept_is_bounded(valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentic_flywheel.familiar.MOST_BYTES", 20_000)
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await settled(flywheel)
        for number in range(20):
            for _ in range(2):
                await flywheel.ask(f"What is the answer number {number}?")
            assert flywheel._familiar.size_bytes <= 20_000
        assert 0 < len(flywheel._familiar._known) < 20


async def test_without_redis_the_question_is_answered_all_the_same(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await settled(flywheel)
        for _ in range(3):
            await flywheel.ask(QUESTION)
        valkey.kill()
        assert (await flywheel.ask(QUESTION)).outcome is Outcome.BYPASS
