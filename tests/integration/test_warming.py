"""Warm-ups in one process: what is asked, what is not, that it counts as nobody's question, and what bounds it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentic_flywheel import Directives, Flywheel
from agentic_flywheel.errors import FlowUnavailable, InputError, StoreError, UnknownWarmUp
from agentic_flywheel.flows.protocol import AnswerDone, FlowQuestion, Tokens
from agentic_flywheel.insight.warming import WarmUp
from agentic_flywheel.store.codec import encode
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.warmups import WarmBound, WarmBudget, WarmOutcome, WarmPath, WarmReport
from flywheels import Oracle, everything, opened
from servers import Server

pytestmark = pytest.mark.anyio

KEYS = Keys("default")
WHAT = "What is Redis persistence?"
PATH = WarmPath(questions=("How is Redis installed on Linux?", "And on Windows?", "Which one is faster?"))


def outcomes(report: WarmReport) -> dict[str, str]:
    return {item.question: item.outcome.value for item in report.items}


async def test_a_warmed_question_is_a_hit_and_was_nobodys(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        report = await flywheel.warming.run([WHAT])
        assert (report.state, report.asked, report.stored, report.left) == ("done", 1, 1, 0)
        await flywheel.flush()
        assert (await flywheel.sessions.list()).sessions == ()
        figures = (await flywheel.usage.report()).total
        assert (figures.questions, figures.hit_rate, figures.reasons, figures.sessions.new) == (0, None, {}, 0)
        assert (figures.calls, figures.warm_calls) == (1, 1)
        assert await flywheel.popular.list() == []
        with redis_server.client() as client:
            kinds = {key.decode().removeprefix(KEYS.root) for key in client.scan_iter("afw:*")}
        assert not [
            key for key in kinds if key.startswith((":session", ":feed", ":user", ":popular", ":paths", ":askers"))
        ]
        answer = await flywheel.ask("what is redis persistence", session="s")
        assert (answer.outcome, answer.text, oracle.calls) == ("hit", f"oracle 1: {WHAT}", 1)


async def test_a_path_is_warmed_as_somebody_would_walk_it(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle, "other": Oracle("other")}) as flywheel:
        path = WarmPath(questions=PATH.questions, flow="oracle")
        report = await flywheel.warming.run([path])
        assert (report.asked, report.stored) == (3, 3)
        asked = oracle.asked[2]
        assert [exchange.question for exchange in asked.history] == list(PATH.questions[:2])
        assert asked.history[1].answer == "oracle 2: And on Windows?"
        first = await flywheel.ask(PATH.questions[0], session="new", flow="oracle")
        then = [await flywheel.ask(question, session="new") for question in PATH.questions[1:]]
        assert [answer.outcome for answer in (first, *then)] == ["hit"] * 3
        assert len(then[1].context) == 2
        assert oracle.calls == 3
        elsewhere = await flywheel.ask(PATH.questions[1], session="another", flow="oracle")
        assert elsewhere.outcome == "miss"  # nobody is given an answer from another conversation


async def test_a_long_path_is_warmed_with_what_enriches_each_question(valkey: Server, tmp_path: Path) -> None:
    """Beyond the newest turns the first one and those that fit enrich a question, for a person as for a warm-up."""
    oracle = Oracle()
    topics = (
        "backups",
        "replicas",
        "clusters",
        "rights",
        "memory",
        "ports",
        "logs",
        "keys",
        "backups again",
        "modules",
    )
    path = ("How is Redis installed?", *(f"And what about {topic}?" for topic in topics))
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        assert (await flywheel.warming.run([WarmPath(questions=path)])).stored == len(path)
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        walked = [await flywheel.ask(question, session="new") for question in path]
        assert [answer.outcome for answer in walked] == ["hit"] * len(path)
        assert len(walked[-1].context) > 5


async def test_what_paths_begin_with_is_asked_once(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        paths = [WarmPath(questions=(WHAT, then)) for then in ("And in memory?", "And on disk?")]
        report = await flywheel.warming.run(paths)
        assert (report.total, report.asked, report.stored) == (3, 3, 3)
        assert [item.path for item in report.items] == [(), (WHAT,), (WHAT,)]


async def test_policy_refuses_and_says_why(valkey: Server, tmp_path: Path) -> None:
    flows: dict[str, Any] = {"oracle": Oracle()}
    flows |= {name: (Oracle(name), {"sharing": name}) for name in ("user", "session", "none")}
    flows["acting"] = (Oracle("acting"), {"acts": True})
    async with opened(valkey, tmp_path, flows) as flywheel:
        private = "How are the salaries computed?"
        answer = await flywheel.ask(private, flow="oracle", session="s")
        await flywheel.similar.report(answer.turn_id, "private", session="s")
        calls = flows["oracle"].calls
        report = await flywheel.warming.run(
            [
                *(WarmPath(questions=(WHAT,), flow=flow) for flow in ("user", "session", "none", "acting")),
                WarmPath(questions=("Where is my invoice?", "And the older ones?"), flow="oracle"),
                WarmPath(questions=("What about mobile?",), flow="oracle"),
                WarmPath(questions=(private,), flow="oracle"),
            ]
        )
        expected = {"not_shared": 3, "acts": 1, "personal": 1, "path": 1, "follow_up": 1, "withdrawn": 1}
        assert report.refusals == expected
        assert (report.asked, report.stored, report.failed, report.state) == (0, 0, 0, "done")
        assert sum(flow.calls if isinstance(flow, Oracle) else flow[0].calls for flow in flows.values()) == calls
        assert all(item.note for item in report.items)


async def test_what_is_fresh_is_not_asked_again(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": (oracle, {"ttl": timedelta(hours=1)})}) as flywheel:
        await flywheel.ask(WHAT)
        report = await flywheel.warming.run([WHAT])
        assert (report.asked, report.warm, oracle.calls) == (0, 1, 1)
        refreshed = await flywheel.warming.run([WHAT], refresh=True)
        assert (refreshed.asked, refreshed.stored, oracle.calls) == (1, 1, 2)
        assert (await flywheel.ask(WHAT)).text == f"oracle 2: {WHAT}"


async def test_what_is_about_to_end_is_asked_again(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    flows = {"oracle": (oracle, {"ttl": timedelta(hours=1)})}
    async with opened(valkey, tmp_path, flows, ttl_refresh_after=0.8, ttl_jitter=0) as flywheel:
        await flywheel.warming.run([WHAT])
        await flywheel.lifetimes.set("oracle", timedelta(milliseconds=1500))
        key = await flywheel.cache.key(WHAT)
        entry = (await flywheel.cache.show(key)).entry
        with valkey.client() as client:  # as if it had been stored 1.3 s ago
            aged = msgspec.structs.replace(entry, created_at=entry.created_at - 1.3)
            client.set(key, encode(aged), keepttl=True)
        report = await flywheel.warming.run([WHAT])
        assert (report.asked, report.stored, oracle.calls) == (1, 1, 2)


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_budget_of_calls_is_used_up_and_no_more(valkey: Server, tmp_path: Path, concurrency: int) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        questions = [f"Question number {number}?" for number in range(10)]
        await flywheel.ask(questions[1])
        report = await flywheel.warming.run(questions, budget=WarmBudget(calls=4), concurrency=concurrency)
        assert (report.asked, report.stored, report.warm, report.left) == (4, 4, 1, 5)
        assert (report.state, report.bound) == ("left", WarmBound.CALLS)
        assert oracle.calls == 5
        nothing_left = await flywheel.warming.resume()
        await _all(nothing_left)
        assert (nothing_left.report.asked, oracle.calls) == (4, 5)
        more = await flywheel.warming.resume(budget=WarmBudget(calls=2))
        await _all(more)
        assert (more.report.asked, more.report.stored, more.report.left, oracle.calls) == (6, 6, 3, 7)
        rest = await flywheel.warming.resume(budget=WarmBudget(calls=100))
        await _all(rest)
        assert (rest.report.state, rest.report.stored, rest.report.warm, rest.report.left) == ("done", 9, 1, 0)
        assert oracle.calls == 10


async def _all(warm_up: WarmUp, at_second: Callable[[], object] = lambda: None) -> None:
    """Run it to its end, and do something when two questions are done."""
    async for progress in warm_up:
        if progress.done == 2:
            at_second()


async def test_no_call_begins_when_the_time_is_over(valkey: Server, tmp_path: Path) -> None:
    oracle, now = Oracle(), [0.0]

    def takes_long(question: FlowQuestion) -> str:
        now[0] += 10
        return oracle(question)

    async with opened(valkey, tmp_path, {"oracle": takes_long}) as flywheel:
        flywheel.warming.clock = lambda: now[0]
        questions = [f"Question number {number}?" for number in range(5)]
        report = await flywheel.warming.run(questions, budget=WarmBudget(seconds=25), concurrency=1)
        assert (report.asked, report.left, report.bound, report.seconds) == (3, 2, WarmBound.TIME, 30)
        report = await _resumed(flywheel, WarmBudget(seconds=5))
        assert (report.asked, report.left, report.seconds) == (4, 1, 40)
        assert (await flywheel.warming.show()).seconds == 40


async def _resumed(flywheel: Flywheel, budget: WarmBudget = WarmBudget()) -> WarmReport:  # noqa: B008 (immutable)
    warm_up = await flywheel.warming.resume(budget=budget, concurrency=1)
    await _all(warm_up)
    return warm_up.report


async def test_money_is_spent_by_the_flows_price(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    questions = [f"Question number {number}?" for number in range(5)]
    flows: dict[str, Any] = {"oracle": (oracle, {"price_per_call": 0.1}), "free": Oracle("free")}
    async with opened(valkey, tmp_path, flows) as flywheel:
        paths = [WarmPath(questions=(question,), flow="oracle") for question in questions]
        budget = WarmBudget(money=0.3)
        warm_up = await flywheel.warming.begin([*paths, WarmPath(questions=(WHAT,), flow="free")], budget=budget)
        await _all(warm_up)
        report = warm_up.report
        assert (report.money, report.asked, report.left, report.bound) == (pytest.approx(0.3), 4, 2, WarmBound.MONEY)
        assert oracle.calls == 3
        assert report.warnings == ("No price is known of free: calls of it are not counted as money.",)
        assert (await flywheel.warming.show()).money == pytest.approx(0.3)
        assert (await _resumed(flywheel, WarmBudget(money=0.1))).money == pytest.approx(0.4)


async def test_what_tokens_cost_is_paid_after_the_call(valkey: Server, tmp_path: Path) -> None:
    questions = [f"Question number {number}?" for number in range(6)]
    async with opened(valkey, tmp_path, {"oracle": (Oracle(), {"price_per_1000_tokens_out": 1.0})}) as flywheel:
        async with flywheel._clients.use(flywheel.flows.show("oracle")) as client:

            async def dear(question: FlowQuestion) -> AsyncIterator[AnswerDone]:
                yield AnswerDone(text="An answer.", tokens=Tokens(10, 500))

            client.stream = dear  # type: ignore[method-assign,assignment]
            report = await flywheel.warming.run(questions, budget=WarmBudget(money=1.2), concurrency=1)
        assert (report.asked, report.money, report.bound) == (2, pytest.approx(1.0), WarmBound.MONEY)


async def test_a_dry_run_writes_and_asks_nothing(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        await flywheel.ask(WHAT)
        await flywheel.flush()
        before = everything(valkey)
        report = await flywheel.warming.run([WHAT, PATH, "What about mobile?"], dry_run=True)
        assert (report.state, report.job) == ("dry", "")
        assert (report.warm, report.due, report.refused) == (1, 3, 1)
        assert everything(valkey) == before
        assert oracle.calls == 1
        with pytest.raises(UnknownWarmUp):
            await flywheel.warming.show()


async def test_a_flow_that_fails_is_left_alone_after_a_while(valkey: Server, tmp_path: Path) -> None:
    calls = []

    def broken(question: str) -> str:
        calls.append(question)
        raise FlowUnavailable("the model is away")

    questions = [f"Question number {number}?" for number in range(8)]
    async with opened(valkey, tmp_path, {"broken": broken, "oracle": Oracle()}) as flywheel:
        paths = [WarmPath(questions=(question,), flow="broken") for question in questions]
        report = await flywheel.warming.run([*paths, WarmPath(questions=(WHAT,), flow="oracle")], concurrency=1)
        assert (report.failed, report.left, report.stored, len(calls)) == (3, 5, 1, 3)
        assert (report.failures, report.bound) == ({"flow_unavailable": 3}, WarmBound.FLOW)
        failed = next(item for item in report.items if item.outcome is WarmOutcome.FAILED)
        assert "the model is away" in failed.note
        figures = (await flywheel.usage.report(flow="broken")).total
        assert (figures.questions, figures.failed, figures.failed_calls) == (0, 0, 3)


async def test_an_answer_that_is_not_complete_is_not_stored(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        async with flywheel._clients.use(flywheel.flows.show("oracle")) as client:

            async def cut_off(question: FlowQuestion) -> AsyncIterator[AnswerDone]:
                yield AnswerDone(text="Half of", complete=False)

            client.stream = cut_off  # type: ignore[method-assign,assignment]
            report = await flywheel.warming.run([PATH])
        assert (report.asked, report.stored, report.failures) == (1, 0, {"incomplete": 1, "path": 2})
        assert await flywheel.cache.list() == ([], "")


async def test_what_failed_is_tried_again_and_what_is_done_is_not(valkey: Server, tmp_path: Path) -> None:
    oracle, fails = Oracle(), [True]

    def sometimes(question: FlowQuestion) -> str:
        if fails[0] and "Windows" in question.text:
            raise FlowUnavailable("not now")
        return oracle(question)

    async with opened(valkey, tmp_path, {"oracle": sometimes}) as flywheel:
        report = await flywheel.warming.run([PATH, WHAT])
        assert (report.stored, report.failed) == (2, 2)
        fails[0] = False
        again = await _resumed(flywheel)
        assert (again.stored, again.failed, again.state) == (4, 0, "done")
        assert len({question.text for question in oracle.asked}) == oracle.calls == 4


async def test_one_that_was_stopped_goes_on(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    questions = [f"Question number {number}?" for number in range(6)]
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        warm_up = await flywheel.warming.begin(questions, concurrency=1, refresh=True)
        async for progress in warm_up:
            if progress.done == 3:
                break
        await warm_up.aclose()
        assert (warm_up.report.bound, warm_up.report.state) == (WarmBound.STOPPED, "left")
        await flywheel.settled()
        shown = await flywheel.warming.show(warm_up.job)
        assert (shown.state, shown.stored >= 3, shown.left == 6 - shown.stored) == ("left", True, True)
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        report = await _resumed(flywheel)
        assert (report.state, report.stored + report.warm) == ("done", 6)
        assert sorted(question.text for question in oracle.asked) == questions


async def test_one_that_runs_elsewhere_is_stopped_after_what_is_under_way(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    questions = [f"Question number {number}?" for number in range(6)]
    async with (
        opened(valkey, tmp_path, {"oracle": oracle}) as flywheel,
        opened(valkey, tmp_path, {"oracle": oracle}) as elsewhere,
    ):
        warm_up = await flywheel.warming.begin(questions, concurrency=1)
        await warm_up.announce()
        assert (await elsewhere.warming.show(warm_up.job)).state == "running"
        async for progress in warm_up:
            if progress.done == 1:
                report = await elsewhere.warming.stop(warm_up.job)
                assert (report.state, report.stopping) == ("running", True)
        report = warm_up.report
        assert (report.state, report.bound, report.stopping) == ("left", WarmBound.STOPPED, False)
        assert 1 <= report.asked == report.stored == oracle.calls < 6
        assert (await elsewhere.warming.stop()).state == "left"  # it does not run, so it stays as it is
        report = await _resumed(elsewhere)
        assert (report.state, report.stored, oracle.calls) == ("done", 6, 6)


async def test_one_that_waits_for_its_place_hears_that_it_is_to_stop(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentic_flywheel.insight.warm_run.BEAT_SECONDS", 0.02)
    oracle = Oracle()
    flows = {"oracle": (oracle, {"calls_per_minute": 2})}
    async with opened(valkey, tmp_path, flows) as flywheel:
        warm_up = await flywheel.warming.begin(["The first question?", "The second question?"], concurrency=1)
        async for _ in warm_up:  # the second one waits for most of a minute, since one call is left to people
            await flywheel.warming.stop()
        report = await flywheel.warming.show()
        assert (report.state, report.bound, report.stored, oracle.calls) == ("left", WarmBound.STOPPED, 1, 1)


async def test_without_redis_nothing_is_asked(tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(f"unix://{tmp_path}/nobody.sock", tmp_path, {"oracle": oracle}) as flywheel:
        with pytest.raises(StoreError):
            await flywheel.warming.run([WHAT])
        with pytest.raises(StoreError):
            await flywheel.warming.show()
    assert oracle.calls == 0


async def test_when_redis_goes_away_it_ends_and_can_be_gone_on_with(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentic_flywheel.warmer._PATIENCE", (0.01,))
    oracle = Oracle()
    questions = [f"Question number {number}?" for number in range(5)]
    with valkey.client() as client:
        async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
            warm_up = await flywheel.warming.begin(questions, concurrency=1)
            with pytest.raises(StoreError):
                await _all(warm_up, at_second=lambda: client.config_set("maxmemory", 1))
            client.config_set("maxmemory", 0)
            assert oracle.calls < 5
            report = await _resumed(flywheel)
            assert (report.state, report.stored + report.warm) == ("done", 5)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "nothing to warm"),
        ({"questions": [WHAT], "concurrency": 33}, "1 to 32"),
        ({"questions": [WHAT], "budget": WarmBudget(calls=0)}, "more than 0"),
        ({"questions": [WHAT], "budget": WarmBudget(seconds=-1)}, "more than 0"),
        ({"popular": -1}, "0 or more"),
        ({"file": "nowhere.txt"}, "cannot read nowhere.txt"),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused(
    valkey: Server, tmp_path: Path, arguments: dict[str, Any], told: str
) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        with pytest.raises(InputError, match=told):
            await flywheel.warming.begin(**arguments)
        assert everything(valkey) == {}


async def test_questions_that_cannot_be_asked_fail_and_the_others_are_asked(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        report = await flywheel.warming.run(["x" * 20_000, WarmPath(questions=(WHAT,), flow="nowhere"), WHAT])
        assert (report.stored, report.failures) == (1, {"invalid_question": 1, "unknown_flow": 1})


async def test_several_are_listed_and_shown(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        jobs = [(await flywheel.warming.run([f"Question number {number}?"])).job for number in range(3)]
        assert [report.job for report in await flywheel.warming.recent(2)] == jobs[:0:-1]
        shown = await flywheel.warming.show(jobs[0])
        assert outcomes(shown) == {"Question number 0?": "stored"}
        assert (await flywheel.warming.show(jobs[0], items=False)).items == ()
        with pytest.raises(UnknownWarmUp):
            await flywheel.warming.show("w-nothing")


async def test_nothing_of_a_directive_leaks_into_it(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, user="ann") as flywheel:
        await flywheel.warming.run([WHAT])
        answer = await flywheel.ask(WHAT, user="bob", directives=Directives(only_if_cached=True))
        assert answer.scope == "team"
        stored = await flywheel.cache.show(answer.key or "")
        assert (stored.entry.user, stored.entry.session_id, stored.entry.first) == ("", "", True)
