"""What people ask next: steps along the ways that several people took, and nobody's alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentic_flywheel import Directives, Flywheel
from agentic_flywheel.errors import InputError
from agentic_flywheel.model import Outcome
from flywheels import Oracle, opened
from meanings import Words
from servers import Server

pytestmark = pytest.mark.anyio

FIRST = "How do I rotate the signing keys?"
SECOND = "And what does that cost?"
THIRD = "Can it be undone?"
OTHER = "Where are the access logs kept?"
STORED = "How do I reset the router password?"
ASKED = "How can I reset the router password?"
FIXED = {"similar_mode": "fixed", "similar_floor": 0.97, "similar_audit_share": 0}


async def walk(flywheel: Flywheel, session: str, *questions: str, user: str = "", **named: object) -> None:
    for question in questions:
        await flywheel.ask(question, session=session, user=user, **named)


async def steps(flywheel: Flywheel, *way: str, **named: object) -> dict[str, int]:
    return {step.question: step.count for step in await flywheel.popular.next(*way, **named)}


async def test_what_two_people_asked_next_is_shown(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}) as flywheel:
        await walk(flywheel, "a", FIRST, SECOND, THIRD, user="ann")
        assert await steps(flywheel, FIRST) == {}
        await walk(flywheel, "a2", FIRST, SECOND, user="ann")
        assert await steps(flywheel, FIRST) == {}, "one person's path, twice"
        assert await steps(flywheel, FIRST, least_askers=1) == {SECOND: 2}
        await walk(flywheel, "b", FIRST, SECOND, THIRD, user="bob")
        await walk(flywheel, "c", FIRST, THIRD, user="cleo")
        assert await steps(flywheel, FIRST) == {SECOND: 3}
        (step,) = await flywheel.popular.next(FIRST)
        assert (step.askers, step.flow, step.share) == (2, "oracle", 0.75)
        assert await steps(flywheel, FIRST, SECOND) == {THIRD: 2}
        assert await steps(flywheel, FIRST, SECOND, THIRD) == {}
        assert await steps(flywheel, FIRST, OTHER) == {}
        assert await steps(flywheel, SECOND) == {}, "what leans on another question means nothing alone"
        (cluster,) = [each.cluster for each in await flywheel.popular.list()]
        assert await steps(flywheel, cluster) == {SECOND: 3}
        assert await steps(flywheel, FIRST, flow="oracle", days=1, limit=1) == {SECOND: 3}


async def test_without_users_two_sessions_are_two_people(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await walk(flywheel, "a", FIRST, SECOND, FIRST, SECOND)
        assert await steps(flywheel, FIRST) == {}
        await walk(flywheel, "b", FIRST, SECOND)
        assert await steps(flywheel, FIRST) == {SECOND: 3}


async def test_steps_begin_at_every_wording_of_a_question(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}, given={"embedder": Words()}, **FIXED) as flywheel:
        assert await flywheel.similar.ready()
        await walk(flywheel, "a", STORED, SECOND, THIRD)
        await walk(flywheel, "b", ASKED, SECOND, THIRD)
        assert (await flywheel.sessions.show("b")).turns[0].outcome is Outcome.SIMILAR
        for first in (STORED, ASKED):
            assert await steps(flywheel, first) == {SECOND: 2}
            assert await steps(flywheel, first, SECOND) == {THIRD: 2}
        (question,) = await flywheel.popular.list()
        ((step,),) = await flywheel.popular.next_of([question])
        assert (step.question, step.count) == (SECOND, 2)


async def test_a_question_that_stands_alone_begins_a_new_way(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}) as flywheel:
        await flywheel.ask(OTHER)
        for session in ("a", "b"):
            await walk(flywheel, session, FIRST, OTHER, SECOND)
            assert (await flywheel.sessions.show(session)).turns[1].outcome is Outcome.HIT
        assert await steps(flywheel, FIRST) == {OTHER: 2}
        assert await steps(flywheel, OTHER) == {SECOND: 2}
        assert await steps(flywheel, FIRST, OTHER) == {}


async def test_what_is_not_for_all_is_on_no_path(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    flows = {"oracle": oracle, "other": oracle, "closed": (oracle, {"sharing": "session"})}
    async with opened(redis_server, tmp_path, flows) as flywheel:
        private = Directives(private=True)
        for user in ("ann", "bob"):
            for number, way in enumerate(
                (
                    [(FIRST, None), ("Is this a secret of the house?", private)],
                    [(FIRST, None), ("Where is my secret?", None), (SECOND, None)],
                    [("Is this a secret of the house?", private), (SECOND, None)],
                    [("Where is my secret?", None), (SECOND, None)],
                )
            ):
                for question, directives in way:
                    await flywheel.ask(
                        question, session=f"{user}{number}", user=user, directives=directives, flow="oracle"
                    )
            await walk(flywheel, f"closed-{user}", FIRST, "And the secret?", user=user, flow="closed")
            await flywheel.ask(FIRST, session=f"two-{user}", user=user, flow="oracle")
            await flywheel.ask("And the secret?", session=f"two-{user}", user=user, flow="other")
        await flywheel.flush()
        with redis_server.client() as client:
            assert list(client.scan_iter("afw:v1:*:paths:*")) == []


async def test_ways_and_limits_are_checked(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        for wrong in ({"limit": 0}, {"days": 91}, {"least_askers": 0}):
            with pytest.raises(InputError):
                await flywheel.popular.next(FIRST, **wrong)
        with pytest.raises(InputError, match="at most 3 questions"):
            await flywheel.popular.next(FIRST, SECOND, THIRD, OTHER)
