"""Figures of use on real servers: what is counted on the way of a question, who may see it, how long it stays."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentic_flywheel import Directives, Flywheel
from agentic_flywheel.errors import FlowError, FlowTimeout, InputError, NotCached, UnknownFlow
from agentic_flywheel.flows.callable import PythonClient
from agentic_flywheel.flows.protocol import AnswerDone, FlowQuestion, Tokens
from agentic_flywheel.insight.usage import Usage
from agentic_flywheel.store.counters import ASKER_SHARDS, ASKERS_APART, Unsent, asker_digest, day_of
from askers import askers
from flywheels import Oracle, opened, text_anywhere, until
from servers import Server
from stages import Stage
from stores import stored

pytestmark = pytest.mark.anyio

QUESTION = "How do I enable append-only persistence in Redis?"


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def failing(question: str) -> str:
    raise FlowTimeout("it took too long")


def usage_at(flywheel: Flywheel, now: float) -> Usage:
    """The figures as they are seen at a moment."""
    return Usage(
        flywheel.settings,
        flywheel.registry,
        flywheel._store,
        flywheel._behind,
        flywheel.flows.check,
        clock=lambda: now,
    )


async def send(flywheel: Flywheel, *rows: tuple[str, str, dict[str, int]]) -> None:
    unsent = Unsent()
    for flow, moment, fields in rows:
        unsent.add(flow, at(moment), fields)
    await flywheel._store.counters.send(unsent)


async def test_what_becomes_of_questions_is_counted(redis_server: Server, tmp_path: Path) -> None:
    flows: dict[str, Any] = {"oracle": (Oracle(), {"price_per_call": 0.02}), "broken": failing}
    async with opened(redis_server, tmp_path, flows) as flywheel:
        await flywheel.ask(QUESTION, flow="oracle")
        for _ in range(3):  # the whole way, and then as a familiar question
            await flywheel.ask(QUESTION, flow="oracle")
        await flywheel.ask(QUESTION, flow="oracle", directives=Directives(no_store=True))
        for _ in range(2):
            with pytest.raises(FlowError):
                await flywheel.ask(QUESTION, flow="broken")
        with pytest.raises(NotCached):
            await flywheel.ask("Never asked?", flow="oracle", directives=Directives(only_if_cached=True))
        report = await flywheel.usage.report()
        total, flow = report.total, {figures.name: figures for figures in report.flows}
        assert total.outcomes == {"hit": 3, "similar": 0, "miss": 1, "stale": 0, "joined": 0, "bypass": 1}
        assert total.reasons == {"exact": 3, "no_store": 1, "not_stored": 1}
        assert (total.questions, total.served, total.hit_rate, total.miss_rate) == (5, 3, 0.6, 0.2)
        assert (total.failed, total.failures, total.refused) == (2, {"flow_timeout": 2}, 1)
        assert (flow["oracle"].calls, flow["oracle"].failed_calls, flow["oracle"].error_rate) == (2, 0, 0.0)
        assert (flow["broken"].failed_calls, flow["broken"].errors) == (2, {"flow_timeout": 2})
        assert (total.hits.count, total.flow.count) == (3, 2)
        assert total.saved_p50_seconds is not None
        assert (report.currency, total.saved, total.spent) == ("USD", pytest.approx(0.06), pytest.approx(0.04))
        assert (flow["broken"].saved, flow["broken"].spent) == (None, None)
        assert sorted(flow) == ["broken", "oracle"]
        alone = await flywheel.usage.report(flow="oracle")
        assert [figures.name for figures in alone.flows] == ["oracle"]
        assert alone.total.failed == 0
        figures = await flywheel.cache.stats()
        assert figures.total.outcomes == total.outcomes
        assert (figures.total.hit_p50_ms, figures.total.failed) == (total.hits.p50_ms, 2)


async def test_a_question_that_joined_a_call_that_failed_is_counted_as_failed_and_the_call_once(
    valkey: Server, tmp_path: Path
) -> None:
    gate = asyncio.Event()

    async def slow(question: str) -> str:
        await gate.wait()
        raise FlowTimeout("it took too long")

    async with opened(valkey, tmp_path, {"slow": slow}) as flywheel:
        asking = [asyncio.create_task(flywheel.ask(QUESTION, user="ana")) for _ in range(3)]
        await until(lambda: len(flywheel._flights._work) == 4, "three to wait for one call")
        gate.set()
        assert all(isinstance(error, FlowTimeout) for error in await asyncio.gather(*asking, return_exceptions=True))
        total = (await flywheel.usage.report()).total
        assert (total.failed, total.failed_calls, total.questions) == (3, 1, 0)
        (ana,) = (await flywheel.usage.by("user")).rows
        assert (ana.name, ana.questions, ana.failed) == ("~" + asker_digest("ana"), 0, 3)


async def test_tokens_of_a_call_cost_and_are_saved_when_its_answer_is_served_again(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stream(self: Any, question: FlowQuestion) -> Any:
        yield AnswerDone(text="So.", tokens=Tokens(2000, 500))

    monkeypatch.setattr(PythonClient, "stream", stream)
    prices = {"price_per_1000_tokens_in": 0.5, "price_per_1000_tokens_out": 2.0}
    async with opened(valkey, tmp_path, {"model": (Oracle(), prices)}, usage_currency="EUR") as flywheel:
        for _ in range(4):
            await flywheel.ask(QUESTION)
        report = await flywheel.usage.report()
        assert (report.total.tokens_in, report.total.tokens_out) == (2000, 500)
        assert (report.total.saved_tokens_in, report.total.saved_tokens_out) == (6000, 1500)
        assert (report.currency, report.total.spent, report.total.saved) == ("EUR", 2.0, 6.0)


async def test_sessions_that_begin_go_on_and_are_resumed(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await flywheel.ask("One of its own?")
        for number in range(3):
            await flywheel.ask(f"How about {number}?", session="monday")
        with valkey.client() as client:  # two days pass for this session
            client.hincrbyfloat("afw:v1:default:session:{monday}", "last_active_at", -2 * 86400)
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await flywheel.ask("And then?", session="monday")
        sessions = (await flywheel.usage.report()).total.sessions
        assert (sessions.new, sessions.alone, sessions.active) == (2, 1, 2)
        assert (sessions.resumed, sessions.after_pause, sessions.continuity) == (3, 1, 1.0)


async def test_a_session_counts_once_as_active_in_an_hour_and_in_a_day(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        for number in range(3):
            await flywheel.ask(f"How about {number}?", session="monday")
            await flywheel.ask(f"And {number}?")
        for dimension in ("hour", "day"):  # the hour may turn meanwhile
            rows = (await flywheel.usage.by(dimension)).rows
            assert sum(row.questions for row in rows) == 6
            assert 4 <= sum(row.active_sessions or 0 for row in rows) <= 5


async def test_a_session_that_cannot_be_read_lowers_continuity(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await flywheel.ask(QUESTION, session="monday")
        await flywheel.ask("And then?", session="monday")
        with valkey.client() as client:
            client.xadd("afw:v1:default:session:{monday}:turns", {"t": b"\x01damaged"})
        await flywheel.ask("And after that?", session="monday")
        sessions = (await flywheel.usage.report()).total.sessions
        assert (sessions.resumed, sessions.continuity) == (2, 0.5)


async def test_intents_are_counted_in_the_words_of_the_registry_alone(valkey: Server, tmp_path: Path) -> None:
    flows = {"oracle": (Oracle(), {"intent_keywords": ["Créer un compte"]})}
    secret = "my cousin Zebediah wants to know"
    async with opened(valkey, tmp_path, flows) as flywheel:
        await flywheel.ask("What is kept?")
        for intent in ("creer  UN compte", "Oracle", secret):
            await flywheel.ask(f"What is kept? {intent == secret}", flow="oracle", intent=intent)
        rows = (await flywheel.usage.by("intent")).rows
        assert [(row.name, row.questions, row.hit_rate) for row in rows] == [
            ("Créer un compte", 1, 0.0),
            ("oracle", 1, 1.0),
            ("(none named)", 1, 0.0),
            ("(others)", 1, 0.0),
        ]
    kept = {key.decode().split(":")[3] for key in text_anywhere(valkey, "Zebediah")}
    assert kept == {"session"}  # the turn itself


async def test_what_users_asked_is_shown_to_the_operator_and_to_themselves(valkey: Server, tmp_path: Path) -> None:
    flows: dict[str, Any] = {
        "oracle": Oracle(),
        "own": (Oracle(), {"sharing": "user"}),
        "shut": (Oracle(), {"sharing": "session"}),
        "silent": (Oracle(), {"sharing": "none"}),
    }
    async with opened(valkey, tmp_path, flows) as flywheel:
        await flywheel.ask(QUESTION, flow="oracle", user="ana")
        await flywheel.ask(QUESTION, flow="oracle", user="bob")
        await flywheel.ask(QUESTION, flow="oracle", user="bob")
        await flywheel.ask(QUESTION, flow="own", user="ana")
        await flywheel.ask(QUESTION, flow="oracle")
        for flow in ("shut", "silent"):
            await flywheel.ask(QUESTION, flow=flow, user="ana")
        await flywheel.ask(QUESTION, flow="oracle", user="ana", directives=Directives(private=True), session="p")
        await flywheel.ask("And that?", flow="oracle", user="ana", session="p")  # it rests on a private turn
        await flywheel.ask(QUESTION, flow="oracle", user="ana", directives=Directives(no_store=True))

        rows = (await flywheel.usage.by("user")).rows
        assert [(row.name, row.questions, row.served, row.hit_rate) for row in rows] == [
            ("ana", 2, 0, 0.0),
            ("bob", 2, 2, 1.0),
        ]
        assert [row.name for row in (await flywheel.usage.by("user", user="bob")).rows] == ["bob"]
        assert (await flywheel.usage.by("user", user="eve")).rows == ()
        with pytest.raises(InputError):
            await flywheel.usage.by("user", flow="oracle")
        # The day that somebody's sessions are deleted, their name is no longer known.
        for session in (await flywheel.sessions.list(user="bob")).sessions:
            await flywheel.sessions.delete(session.id, dry_run=False)
        rows = (await flywheel.usage.by("user")).rows
        assert [row.name for row in rows] == ["ana", "~" + asker_digest("bob")]
        dry = await flywheel.usage.forget("ana", dry_run=True)
        assert (dry.removed, len((await flywheel.usage.by("user")).rows)) == ({"days": 1}, 2)
        await flywheel.usage.forget("ana", dry_run=False)
        assert (await flywheel.usage.by("user", user="ana")).rows == ()
        assert (await flywheel.usage.forget("ana", dry_run=False)).removed == {"days": 0}
    assert not [key for key in text_anywhere(valkey, "ana") if b":count:" in key or b":askers:" in key]
    async with opened(valkey, tmp_path, flows, user="bob") as flywheel:
        assert [row.name for row in (await flywheel.usage.by("user")).rows] == ["bob"]


async def test_more_users_than_are_told_apart_are_counted_together(redis_server: Server) -> None:
    many = ASKER_SHARDS * ASKERS_APART * 3
    async with stored(redis_server) as store:
        for _ in range(2):
            unsent = Unsent()
            for number in range(many):
                unsent.add_asker(asker_digest(f"user {number}"), 86400.0, {"asked": 1, "served": 1})
            await store.counters.send(unsent)
        counted = await store.counters.askers([0, 1])
        assert len(counted) == ASKER_SHARDS * ASKERS_APART + 1
        assert sum(fields["asked"] for fields in counted.values()) == 2 * many
        others = counted.pop("~")
        assert others == {"asked": 2 * (many - len(counted)), "served": 2 * (many - len(counted))}
        assert all(fields == {"asked": 2, "served": 2} for fields in counted.values())
    with redis_server.client() as client:
        keys = client.keys("afw:v1:team:askers:*")
        assert len(keys) == ASKER_SHARDS
        assert {client.object("encoding", key) for key in keys} <= {b"listpack", b"ziplist"}


async def test_every_counter_expires_and_says_nothing_in_clear(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        for number in range(3):
            await flywheel.ask(f"{QUESTION} {number}", user="ana@example.org", session="s")
    with valkey.client() as client:
        found = {key.decode(): client.ttl(key) / 86400 for key in client.scan_iter("afw:v1:default:*")}
    lives = {key: days for key, days in found.items() if ":count:" in key or ":askers:" in key}
    assert 4 <= len(lives) <= 7  # the minutes, the hour, the day, the user; an hour may turn meanwhile
    for key, days in lives.items():
        assert (6.9 < days <= 7) if key.endswith(":minutes") else (89.9 < days <= 90), key
    for word in ("persistence", "ana@"):
        assert not [key for key in text_anywhere(valkey, word) if key.decode() in lives]


async def test_several_processes_count_at_once_and_nothing_is_lost(valkey: Server, tmp_path: Path) -> None:
    Stage(tmp_path)
    async with askers(valkey.url, tmp_path, 3) as running:
        answers = await asyncio.gather(
            *(asker.ask(f"Question {n}?", times=20, user=f"user{n}") for n, asker in enumerate(running) for _ in "ab")
        )
        assert sum(len(each) for each in answers) == 120
    async with opened(valkey, tmp_path, {}) as flywheel:
        report, series = await flywheel.usage.report(), await flywheel.usage.series(since="1h", step="1m")
        assert report.total.questions == 120
        assert sum(report.total.outcomes.values()) == sum(report.total.reasons.values()) == 120
        assert report.total.calls == report.total.outcomes["miss"] == 3
        assert sum(series.questions) == 120
        assert [row.questions for row in (await flywheel.usage.by("user")).rows] == [40, 40, 40]


async def test_hours_and_days_part_at_their_edges(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await send(
            flywheel,
            ("oracle", "2026-11-20T23:59:59.999", {"outcome:hit": 1, "reason:exact": 1}),
            ("oracle", "2026-11-21T00:00:00", {"outcome:miss": 2, "reason:not_stored": 2}),
            ("oracle", "2026-11-21T13:59:59.9", {"outcome:hit": 4, "reason:exact": 4}),
            ("oracle", "2026-11-21T14:00:00", {"failed": 8}),
        )
        usage = usage_at(flywheel, at("2026-11-21T14:00:30"))
        days = (await usage.by("day", since="2026-11-20")).rows
        assert [(row.name, row.questions, row.failed) for row in days] == [
            ("2026-11-20", 1, 0),
            ("2026-11-21", 6, 8),
        ]
        hours = (await usage.by("hour", since="2026-11-20T23:00", until="2026-11-21T01:00")).rows
        assert [(row.name, row.questions) for row in hours] == [("2026-11-20T23:00Z", 1), ("2026-11-21T00:00Z", 2)]
        series = await usage.series(since="2026-11-20T23:30", step="1h")
        assert (len(series.at), series.questions[0], series.questions[1], series.failed[-1]) == (16, 1, 2, 8)
        assert series.at[0] == at("2026-11-20T23:00")
        assert all(moment % 3600 == 0 for moment in series.at)
        minutes = await usage.series(since="3m", step="1m")
        assert (minutes.at[0], minutes.questions, minutes.failed) == (
            at("2026-11-21T13:57"),
            (0, 0, 4, 0),
            (0, 0, 0, 8),
        )
        five = await usage.series(since="30m", step="5m")
        assert (five.questions[-2:], five.failed[-2:]) == ((4, 0), (0, 8))
        report = await usage.report(since="2026-11-21", until="2026-11-21")
        assert (report.total.questions, report.total.failed) == (6, 8)
        short = await usage.report(since="10m")  # widened to whole hours, and it says so
        assert (short.total.questions, short.since) == (4, at("2026-11-21T13:00"))


async def test_ninety_days_are_read_as_days_and_no_more_than_are_kept(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await send(
            flywheel,
            *(
                ("oracle", datetime.fromtimestamp(day * 86400 + 43200, UTC).isoformat()[:19], {"outcome:hit": 1})
                for day in range(20_000, 20_100)
            ),
        )
        usage = usage_at(flywheel, 20_100 * 86400.0)
        before = flywheel.redis_round_trips
        report = await usage.report(since=0.0)
        assert report.total.questions == 90
        assert report.since == 20_010 * 86400
        assert flywheel.redis_round_trips - before < 10
        assert len((await usage.by("day", since="90d")).rows) == 90
        with pytest.raises(InputError, match="minutes are kept"):
            await usage.series(since="30d", step="1m")


async def test_a_key_that_is_not_ours_spoils_no_other_count(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        key = flywheel._store.keys.count("oracle", day_of(time.time()))
        with valkey.client() as client:
            client.set(key, "not ours", ex=600)
        for _ in range(4):
            await flywheel.ask(QUESTION)
            await flywheel.flush()
        with valkey.client() as client:
            client.delete(key)
        hours = (await flywheel.usage.by("hour")).rows
        assert sum(row.questions for row in hours) == 4


async def test_what_was_counted_of_a_flow_that_was_removed_is_still_told(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle(), "other": Oracle()}) as flywheel:
        await flywheel.ask(QUESTION, flow="other")
        flywheel.registry.unregister("other")
        assert (await flywheel.usage.report(flow="other")).total.questions == 1
        assert [row.name for row in (await flywheel.usage.by("flow")).rows] == ["other"]
        with pytest.raises(UnknownFlow):
            await flywheel.usage.report(flow="nobody")
        with pytest.raises(InputError):
            await flywheel.usage.by("weather")
        with pytest.raises(InputError):
            await flywheel.usage.report(since="soon")


async def test_health_of_flows(valkey: Server, tmp_path: Path) -> None:
    flows: dict[str, Any] = {
        "oracle": Oracle(),
        "broken": failing,
        "idle": Oracle(),
        "off": (Oracle(), {"active": False}),
    }
    async with opened(valkey, tmp_path, flows) as flywheel:
        answer = await flywheel.ask(QUESTION, flow="oracle", session="s")
        await flywheel.ask(QUESTION, flow="oracle")
        await flywheel.similar.report(answer.turn_id, "outdated", session="s")
        for number in range(5):
            with pytest.raises(FlowError):
                await flywheel.ask(f"{QUESTION} {number}", flow="broken")
        health = await flywheel.usage.health()
        by_flow = {condition.flow: condition for condition in health.flows}
        states = {name: condition.state for name, condition in by_flow.items()}
        assert states == {"oracle": "ok", "broken": "failing", "idle": "unused", "off": "inactive"}
        assert by_flow["oracle"].reachable
        assert by_flow["oracle"].reports == {"outdated": 1}
        assert (by_flow["oracle"].calls, by_flow["oracle"].hit_rate) == (1, 0.5)
        assert (by_flow["broken"].error_rate, by_flow["broken"].errors) == (1.0, {"flow_timeout": 5})
        assert by_flow["off"].reachable is None
        unasked = (await flywheel.usage.health(flow="idle", check=False)).flows
        assert [(condition.flow, condition.reachable) for condition in unasked] == [("idle", None)]


async def test_figures_have_a_form_that_json_holds(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await flywheel.ask(QUESTION)
        usage = flywheel.usage
        series: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(await usage.series(since="1d")))
        columns = [name for name, value in series.items() if isinstance(value, list)]
        assert {"at", "questions", "failed", "hit_rate", "flow_p95_ms"} <= set(columns)
        assert len({len(series[name]) for name in columns} | {len(each) for each in series["outcomes"].values()}) == 1
        assert sum(series["outcomes"]["miss"]) == 1
        for told in (await usage.report(), await usage.by("reason"), await usage.health()):
            assert msgspec.json.decode(msgspec.json.encode(told), type=type(told)) == told
