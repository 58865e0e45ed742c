"""What people report is acted on at once: nobody is given the answer any more, a wrong pair is never merged again."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from agentic_flywheel import Directives
from agentic_flywheel.errors import InputError, UnknownSession, UnknownTurn
from agentic_flywheel.likeness import ReportKind
from agentic_flywheel.model import Outcome, Reason
from flywheels import Oracle, opened, text_anywhere
from meanings import Words
from servers import Server

pytestmark = pytest.mark.anyio

STORED = "How do I reset the router password?"
ASKED = "How can I reset the router password?"
FIXED = {"similar_mode": "fixed", "similar_floor": 0.97, "similar_audit_share": 0}


async def test_a_wrong_answer_is_served_to_nobody_and_asked_afresh(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        first = await flywheel.ask(STORED, session="s")
        receipt, fresh = await flywheel.similar.report(
            first.turn_id, "wrong", note="it is the other button", fresh=True
        )
        assert receipt.report.kind is ReportKind.WRONG
        assert receipt.removed["entries"] == 1
        assert receipt.blocked is None
        assert fresh is not None
        assert (fresh.text, fresh.session_id) == (f"oracle 2: {STORED}", "s")
        again = await flywheel.ask(STORED)
        assert (again.outcome, again.text) == (Outcome.HIT, fresh.text)
        (kept,) = await flywheel.similar.reports()
        assert (kept.turn_id, kept.note, kept.question) == (first.turn_id, "it is the other button", STORED)


async def test_a_wrong_similar_hit_blocks_its_pair_for_ever(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}, given={"embedder": Words()}, **FIXED) as flywheel:
        assert await flywheel.similar.ready()
        await flywheel.ask(STORED)
        wrong = await flywheel.ask(ASKED)
        assert wrong.outcome is Outcome.SIMILAR
        receipt, _ = await flywheel.similar.report(wrong.turn_id, ReportKind.WRONG)
        assert receipt.blocked == (ASKED, STORED)
        assert receipt.removed["entries"] == 1
        assert receipt.cut is not None
        status = await flywheel.similar.status("oracle")
        assert status.reports["wrong"] == 1
        assert sum(band.wrong for band in status.bands) == 1
        # Both are stored anew, and neither is ever given to the other again: not this way round, nor that.
        await flywheel.ask(STORED)
        assert (await flywheel.ask(ASKED)).outcome is Outcome.MISS
        await flywheel.cache.clear(flow="oracle", dry_run=False)
        await flywheel.ask(ASKED)
        assert (await flywheel.ask(STORED)).outcome is Outcome.MISS


async def test_an_outdated_answer_goes_and_its_pair_stays(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, given={"embedder": Words()}, **FIXED) as flywheel:
        assert await flywheel.similar.ready()
        await flywheel.ask(STORED)
        old = await flywheel.ask(ASKED)
        receipt, _ = await flywheel.similar.report(old.turn_id, "outdated")
        assert (receipt.blocked, receipt.removed["entries"]) == (None, 1)
        await flywheel.ask(STORED)
        assert (await flywheel.ask(ASKED)).outcome is Outcome.SIMILAR


async def test_a_private_answer_leaves_nothing_and_is_not_kept_again(redis_server: Server, tmp_path: Path) -> None:
    secret = "The salary of employee 4711 is 90000."
    asked: list[str] = []

    def flow(question: str) -> str:
        asked.append(question)
        return secret

    async with opened(redis_server, tmp_path, {"flow": flow}, given={"embedder": Words()}, **FIXED) as flywheel:
        assert await flywheel.similar.ready()
        answer = await flywheel.ask("What is the salary of employee 4711?")
        receipt, _ = await flywheel.similar.report(answer.turn_id, "private")
        assert receipt.removed["entries"] == 1
        assert receipt.report.question == "", "what is private is not written down once more"
        again = await flywheel.ask("What is the salary of employee 4711?", directives=Directives(no_store=True))
        assert again.outcome is Outcome.BYPASS
        for directives in (None, Directives(no_cache=True)):
            again = await flywheel.ask("What is the salary of employee 4711?", directives=directives)
            assert (again.outcome, again.reason) == (Outcome.BYPASS, Reason.WITHDRAWN)
        assert len(asked) == 4
        await flywheel.flush()
        holding = {key for key in text_anywhere(redis_server, "4711") if b":session:" not in key}
        assert holding == set(), "only the sessions it was asked in know of it"


@pytest.mark.parametrize("directives", [None, Directives(no_cache=True)])
async def test_a_call_that_was_under_way_does_not_take_the_mark_away(
    redis_server: Server, tmp_path: Path, directives: Directives | None
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    go_on.set()

    async def flow(question: str) -> str:
        begun.set()
        await go_on.wait()
        return f"the answer to {question}"

    async with opened(redis_server, tmp_path, {"flow": flow}) as flywheel:
        first = await flywheel.ask(STORED)
        if directives is None:
            await flywheel.cache.clear(flow="flow", dry_run=False)
        begun.clear()
        go_on.clear()
        call = asyncio.create_task(flywheel.ask(STORED, directives=directives))
        await asyncio.wait_for(begun.wait(), 20)
        await flywheel.similar.report(first.turn_id, "private")
        go_on.set()
        given = await call  # to who asked, and kept for nobody
        assert (given.outcome, given.reason, given.key) == (Outcome.BYPASS, Reason.WITHDRAWN, None)
        assert given.warnings == ()
        for _ in range(2):
            after = await flywheel.ask(STORED)
            assert (after.outcome, after.reason, after.key) == (Outcome.BYPASS, Reason.WITHDRAWN, None)


async def test_a_private_answer_stays_private_when_the_flow_is_cleared_and_swept(
    valkey: Server, tmp_path: Path
) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        answer = await flywheel.ask(STORED)
        await flywheel.similar.report(answer.turn_id, "private")
        await flywheel.cache.clear(flow="oracle", dry_run=False)
        state = await flywheel.flows.state("oracle")
        await flywheel._store.entries.reclaim("oracle", generation=state.generation, now=time.time())
        assert (await flywheel.ask(STORED)).reason is Reason.WITHDRAWN


async def test_a_private_answer_that_is_gone_already_is_not_kept_again(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        answer = await flywheel.ask(STORED)
        with valkey.client() as client:
            assert client.delete(answer.key or "") == 1
        receipt, _ = await flywheel.similar.report(answer.turn_id, "private")
        assert receipt.removed == {}
        assert (await flywheel.ask(STORED)).reason is Reason.WITHDRAWN
        unkept = await flywheel.ask(STORED)
        receipt, _ = await flywheel.similar.report(unkept.turn_id, "private")
        assert receipt.done[-1] == "No answer was ever kept for others."


async def test_near_answers_are_given_up_as_well(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, near_enabled=True) as flywheel:
        first = await flywheel.ask(STORED)
        for _ in range(5):
            await flywheel.ask(STORED)
        await flywheel.similar.report(first.turn_id, "wrong")
        assert (await flywheel.ask(STORED)).outcome is Outcome.MISS


async def test_reports_name_what_is_missing(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        mine = await flywheel.ask(STORED, session="s", user="ann")
        with pytest.raises(UnknownTurn, match="no turn"):
            await flywheel.similar.report("nothing", "wrong")
        with pytest.raises(UnknownSession):
            await flywheel.similar.report(mine.turn_id, "wrong", user="ben")
        with pytest.raises(InputError, match="none of"):
            await flywheel.similar.report(mine.turn_id, "bad")
        with pytest.raises(InputError, match="session"):
            await flywheel.similar.report("last", "wrong")
        receipt, _ = await flywheel.similar.report("last", "wrong", session="s")
        assert receipt.report.turn_id == mine.turn_id
