"""Thousands of near-identical questions at the same time: none is answered across a boundary that policy closes."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from agentic_flywheel import Answer, Directives, Flywheel
from agentic_flywheel.model import Outcome, Sharing
from flywheels import Oracle, opened
from meanings import Words
from servers import Server

pytestmark = pytest.mark.anyio

WAYS = ("How do I {}?", "How can I {}?", "How could we {}?", "How do you {}?", "How did I {}?")
TASKS = ("reset {} router password", "polish {} violin strings", "water {} garden roses", "paint {} castle walls")
TENANTS, USERS, QUESTIONS = 3, 5, 3000


class Asker(NamedTuple):
    tenant: int
    user: str
    session: str
    flow: str
    mine: bool  # it says "my", so policy narrows it to whoever asks
    follows: bool  # earlier turns are part of it
    private: bool


def allowed(asker: Asker, origin: Asker, outcome: Outcome) -> bool:
    """Whether policy lets one be given what was answered to the other."""
    if (asker.tenant, asker.flow) != (origin.tenant, origin.flow):
        return False
    if asker.private or origin.private or asker.flow == "session":
        return asker.session == origin.session
    if asker.follows or origin.follows:  # an identical conversation may share an answer to the same words
        return asker.follows and origin.follows and outcome is not Outcome.SIMILAR
    same_person = (asker.user or asker.session) == (origin.user or origin.session)
    if asker.flow == "user":
        return same_person
    return (asker.mine and origin.mine and same_person) or not (asker.mine or origin.mine)


async def test_nobody_is_served_across_a_boundary(redis_server: Server, tmp_path: Path) -> None:
    draw = random.Random(4711)
    flows = {
        "team": Oracle("team"),
        "user": (Oracle("user"), {"sharing": Sharing.USER}),
        "session": (Oracle("session"), {"sharing": Sharing.SESSION}),
    }
    async with AsyncExitStack() as stack:
        wheels: list[tuple[int, Flywheel]] = []
        for tenant in range(TENANTS):
            for _ in range(2):  # two processes of each tenant
                wheel = await stack.enter_async_context(
                    opened(
                        redis_server,
                        tmp_path,
                        flows,
                        given={"embedder": Words()},
                        tenant=f"t{tenant}",
                        similar_mode="fixed",
                        similar_floor=0.9,
                        similar_audit_share=0.02,
                    )
                )
                assert await wheel.similar.ready()
                wheels.append((tenant, wheel))
        asked: dict[str, Asker] = {}
        answers: list[tuple[Asker, Answer]] = []
        used: Counter[tuple[int, str]] = Counter()
        room = asyncio.Semaphore(40)

        async def ask() -> None:
            tenant, wheel = draw.choice(wheels)
            user = draw.choice(["", *(f"user{n}" for n in range(USERS))])
            flow, mine = draw.choice(["team", "user", "session"]), draw.random() < 0.25
            session = draw.choice(["", f"{user}-s{draw.randrange(4)}"])
            private = draw.random() < 0.05
            question = draw.choice(WAYS).format(draw.choice(TASKS).format("my" if mine else "the"))
            follows = bool(session) and used[tenant, session] > 0
            if session:
                used[tenant, session] += 1
            async with room:
                answer = await wheel.ask(
                    question,
                    session=session or None,
                    flow=flow,
                    user=user,
                    directives=Directives(private=private),
                )
            # What is alone in its context: with earlier turns, or exactly as if there were none.
            asker = Asker(tenant, user, answer.session_id, flow, mine, bool(answer.context), private)
            assert follows or not answer.context
            asked[answer.trace_id] = asker
            answers.append((asker, answer))

        for _ in range(QUESTIONS // 500):
            await asyncio.gather(*(ask() for _ in range(500)))
        for _, wheel in wheels:
            await wheel.settled()
        served = [(asker, answer) for asker, answer in answers if answer.origin_trace_id in asked]
        crossed = [
            (asker, asked[answer.origin_trace_id], answer.outcome)
            for asker, answer in served
            if answer.origin_trace_id != answer.trace_id
            and not allowed(asker, asked[answer.origin_trace_id], answer.outcome)
        ]
        assert crossed == []
        outcomes = Counter(answer.outcome for _, answer in answers)
        assert outcomes[Outcome.SIMILAR] > 100, outcomes
        assert {asker.flow for asker, answer in answers if answer.outcome is Outcome.SIMILAR} == {"team", "user"}
