"""Approved answers for other wordings: under the same guards, cut and boundaries as any similar hit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Directives, Flywheel
from agentic_flywheel.curated import FaqView
from agentic_flywheel.model import Origin, Outcome, Reason
from flywheels import Oracle
from flywheels import opened as opened_cold
from meanings import Words
from servers import Server

pytestmark = pytest.mark.anyio

QUESTION = "How do I reset the router password?"
ASKED = "How can I reset the router password?"
APPROVED = "Hold the button for ten seconds."


@asynccontextmanager
async def opened(
    server: Server, folder: Path, oracle: Any = None, *, given: dict[str, Any] | None = None, **more: Any
) -> AsyncIterator[Flywheel]:
    """A flywheel whose embedder counts words; nothing is audited unless `given` says so."""
    embedding = {"embedder": Words(), "comparer": lambda one, two: one.answer == two.answer, "draw": lambda: 1.0}
    settings = {"similar_mode": "fixed", "similar_floor": 0.97} | more
    flows = {"oracle": oracle or Oracle()}
    async with opened_cold(server, folder, flows, given=embedding | (given or {}), **settings) as flywheel:
        assert await flywheel.similar.ready()
        yield flywheel


async def approved(flywheel: Flywheel, question: str = QUESTION, *, turn: str | None = None) -> FaqView:
    draft = await flywheel.faq.add(question, "" if turn else APPROVED, flow="oracle", turn=turn)
    return await flywheel.faq.approve(draft.id, owner="ann")


async def test_another_wording_gets_the_approved_answer_and_says_so(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, oracle) as flywheel:
        view = await approved(flywheel)
        answer = await flywheel.ask(ASKED, session="s")
        assert (answer.outcome, answer.reason, answer.source) == (Outcome.SIMILAR, Reason.SIMILAR, Origin.FAQ)
        assert (answer.faq, answer.text, answer.matched_question) == (view.id, APPROVED, QUESTION)
        assert answer.similarity is not None
        assert 0.97 <= answer.similarity < 1
        assert answer.ttl_seconds is None
        assert oracle.calls == 0
        (turn,) = (await flywheel.sessions.show("s")).turns
        assert (turn.outcome, turn.faq) == (Outcome.SIMILAR, view.id)
        shown = await flywheel.similar.explain(ASKED)
        assert (shown.outcome, shown.source, shown.faq) == ("similar", "faq", view.id)
        assert shown.similar[0].faq == view.id
        exact = await flywheel.similar.explain(QUESTION)
        assert (exact.outcome, exact.reason, exact.source, exact.faq) == ("hit", "curated", "faq", view.id)


async def test_guards_cut_and_mode_stand_before_it(valkey: Server, tmp_path: Path) -> None:
    loose = {"similar_floor": 0.5, "similar_profile": "faq"}
    async with opened(valkey, tmp_path, **loose) as flywheel:
        await approved(flywheel, "Was the price of the garden tool raised in 2023?")
        answer = await flywheel.ask("Was the price of the garden tool raised in 2024?", flow="oracle")
        assert answer.source is Origin.FLOW
        near = [candidate for candidate in answer.considered if candidate.similarity is not None]
        assert "2024" in near[0].refusals[0]
    async with opened(valkey, tmp_path, similar_mode="shadow", tenant="shadow") as flywheel:
        await approved(flywheel)
        assert (await flywheel.ask(ASKED, flow="oracle")).source is Origin.FLOW
    async with opened(valkey, tmp_path, tenant="far") as flywheel:
        await approved(flywheel)
        assert (await flywheel.ask("Where do I buy a router cable?", flow="oracle")).source is Origin.FLOW


async def test_it_is_gone_with_a_change_of_the_flow_and_stays_through_a_clearing(
    valkey: Server, tmp_path: Path
) -> None:
    async with opened(valkey, tmp_path, (Oracle(), {"options": {"version": "1"}})) as flywheel:
        view = await approved(flywheel)
        await flywheel.cache.clear(everything=True, dry_run=False)
        assert (await flywheel.ask(ASKED, flow="oracle")).faq == view.id
    async with opened(valkey, tmp_path, (Oracle(), {"options": {"version": "2"}})) as flywheel:
        assert (await flywheel.ask(ASKED, flow="oracle")).source is Origin.FLOW
        assert (await flywheel.ask(QUESTION, flow="oracle")).source is not Origin.FAQ
    async with opened(valkey, tmp_path, (Oracle(), {"options": {"version": "3"}})) as flywheel:
        own = await flywheel.ask(QUESTION, flow="oracle")
        answer = await flywheel.ask(ASKED, flow="oracle")
        assert (answer.outcome, answer.source, answer.text) == (Outcome.SIMILAR, Origin.CACHE, own.text)


@pytest.mark.parametrize(
    "asked",
    [
        {"config": {"temperature": 0}},
        {"directives": Directives(private=True)},
        {"directives": Directives(no_cache=True)},
        {"directives": Directives(max_age=timedelta(0))},
    ],
)
async def test_whoever_would_not_get_a_shared_answer_does_not_get_it(
    valkey: Server, tmp_path: Path, asked: dict[str, Any]
) -> None:
    async with opened(valkey, tmp_path) as flywheel:
        await approved(flywheel)
        assert (await flywheel.ask(ASKED, flow="oracle", **asked)).source is Origin.FLOW


async def test_in_another_process_too_and_not_any_more_once_it_is_retired(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path) as curator, opened(valkey, tmp_path) as asker:
        await asker.ask("Which router is it?", flow="oracle")
        view = await approved(curator)
        await curator.settled()
        assert (await asker.ask(ASKED, flow="oracle")).faq == view.id
        await curator.faq.retire(view.id, dry_run=False)
        assert (await asker.ask(f"{ASKED} Please.", flow="oracle")).source is Origin.FLOW


async def test_vectors_are_kept_and_made_anew_where_they_are_lacking(valkey: Server, tmp_path: Path) -> None:
    key = "afw:v1:default:flow:{oracle}:faq:vec:*"
    async with opened(valkey, tmp_path) as flywheel:
        view = await approved(flywheel)
        with valkey.client() as client:
            (kept,) = client.keys(key)
            assert len(client.hgetall(kept)) == 1
            assert client.pttl(kept) > 0
            before = client.hgetall(kept)
        await flywheel.faq.edit(view.id, question=ASKED)
        await flywheel.faq.approve(view.id)
        with valkey.client() as client:
            assert set(client.hgetall(kept)).isdisjoint(before), "what is not served any more is not kept"
    words = Words()
    async with opened(valkey, tmp_path, given={"embedder": words}) as flywheel:
        assert (await flywheel.ask(QUESTION, flow="oracle")).faq == view.id
        assert words.texts.count(ASKED) == 0, "it was at hand"
    with valkey.client() as client:
        client.hset(kept, next(iter(client.hgetall(kept))), b"damaged")
    words = Words()
    async with opened(valkey, tmp_path, given={"embedder": words}) as flywheel:
        await flywheel.ask("Where is the router?", flow="oracle")
        await flywheel.settled()
        assert words.texts.count(ASKED) == 1
        assert (await flywheel.ask(QUESTION, flow="oracle")).faq == view.id
    async with opened(valkey, tmp_path, given={"embedder": Words("others")}) as flywheel:
        await flywheel.ask("Who bought the router?", flow="oracle")
        await flywheel.settled()
        assert (await flywheel.ask(QUESTION, flow="oracle")).faq == view.id


async def test_a_wrong_pair_is_kept_apart_and_the_entry_stays(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path) as flywheel:
        view = await approved(flywheel)
        answer = await flywheel.ask(ASKED, session="s", flow="oracle")
        receipt, _ = await flywheel.similar.report(answer.turn_id, "wrong")
        assert receipt.blocked == (ASKED, QUESTION)
        assert any(QUESTION in done for done in receipt.done)
        assert (await flywheel.ask(ASKED, flow="oracle")).source is Origin.FLOW
        assert (await flywheel.ask(QUESTION, flow="oracle")).faq == view.id


async def test_a_persons_words_label_nothing_and_a_flows_own_do(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    audit_all = {"draw": lambda: 0.0}
    async with opened(valkey, tmp_path, oracle, given=audit_all, similar_audit_share=1.0) as flywheel:
        await approved(flywheel)
        assert (await flywheel.ask(ASKED, flow="oracle")).source is Origin.FAQ
        await flywheel.settled()
        assert (oracle.calls, (await flywheel.similar.status("oracle")).labels) == (0, 0)
    async with opened(valkey, tmp_path, oracle, given=audit_all, similar_audit_share=1.0, tenant="own") as flywheel:
        asked = await flywheel.ask(QUESTION, session="s", flow="oracle")
        await approved(flywheel, turn=asked.turn_id)
        assert (await flywheel.ask(ASKED, flow="oracle")).source is Origin.FAQ
        await flywheel.settled()
        assert (oracle.calls, (await flywheel.similar.status("oracle")).audits) == (2, 1)
