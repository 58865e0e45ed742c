"""Privacy policies on real servers: what they forbid is neither kept nor served, from the next question on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import zstandard

from agentic_flywheel import Answer, Directives, Flywheel, Outcome, Reason
from agentic_flywheel.errors import InputError, NotCached, UnknownFlow, UnknownSession
from agentic_flywheel.privacy import PrivacyPolicy, Whose
from flywheels import Oracle, opened, text_anywhere, until
from meanings import Words
from servers import Server
from sinks import sink

pytestmark = pytest.mark.anyio

#: Words that stand nowhere but in what people write.
MARK = "zyxwort"
QUESTION = f"How is the {MARK} valve opened?"
OFF = PrivacyPolicy(history=False)
UNCACHED = PrivacyPolicy(cache=False)
NOTHING = PrivacyPolicy(history=False, cache=False)
WHOSE = [(Whose.TENANT, ""), (Whose.FLOW, "docs"), (Whose.USER, "ann")]


def flows() -> dict[str, Any]:
    return {"docs": (Oracle("docs"), {"id": "docs"}), "code": (Oracle("code"), {"id": "code"})}


async def ask(flywheel: Flywheel, question: str = QUESTION, **fields: Any) -> Answer:
    return await flywheel.ask(question, **{"flow": "docs", "user": "ann", **fields})


async def trips(flywheel: Flywheel) -> int:
    """How many round trips a hit takes; of several, since what is written behind may fall into one."""
    found = []
    for _ in range(5):
        await flywheel.flush()
        before = flywheel.redis_round_trips
        assert (await ask(flywheel)).outcome is Outcome.HIT
        found.append(flywheel.redis_round_trips - before)
    return min(found)


async def turns_of(flywheel: Flywheel, session: str) -> int:
    try:
        return len((await flywheel.sessions.show(session)).turns)
    except UnknownSession:
        return 0


def files_with(text: str, folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*"):
        if file.is_file():
            raw = file.read_bytes()
            at = raw.find(b"\x28\xb5\x2f\xfd")
            while at >= 0 and text.encode() not in raw:
                with contextlib.suppress(zstandard.ZstdError):
                    raw += zstandard.ZstdDecompressor().decompressobj().decompress(raw[at:])
                at = raw.find(b"\x28\xb5\x2f\xfd", at + 4)
            if text.encode() in raw:
                yield file


@pytest.mark.parametrize(("whose", "name"), WHOSE)
async def test_without_history_no_turn_is_kept_and_each_answer_says_whose_policy_that_is(
    redis_server: Server, tmp_path: Path, whose: Whose, name: str
) -> None:
    async with opened(redis_server, tmp_path, flows()) as flywheel:
        await flywheel.policies.set(whose, name, policy=OFF)
        answer = await ask(flywheel, session="s")
        assert not answer.remembered
        (said,) = answer.warnings
        assert said.startswith(f"No history: policy of {f'{whose} {name}'.strip()};")
        assert "without the ones before it" in said
        again = await ask(flywheel, "And on mobile?", session="s")
        assert again.context == ()
        assert again.warnings == (f"No history: policy of {f'{whose} {name}'.strip()}.",)
        await flywheel.flush()
        assert await turns_of(flywheel, "s") == 0
        assert (await flywheel.sessions.list()).sessions == ()


@pytest.mark.parametrize(("whose", "name"), WHOSE)
async def test_without_cache_nothing_is_stored_or_served_and_turns_are_kept(
    redis_server: Server, tmp_path: Path, whose: Whose, name: str
) -> None:
    async with opened(redis_server, tmp_path, flows()) as flywheel:
        kept = await ask(flywheel)
        assert kept.outcome is Outcome.MISS
        change = await flywheel.policies.set(whose, name, policy=UNCACHED)
        assert change.removed_answers == 1
        for _ in range(2):
            answer = await ask(flywheel, session="s")
            assert (answer.outcome, answer.reason, answer.key) == (Outcome.BYPASS, Reason.POLICY, None)
            assert answer.remembered
        with pytest.raises(NotCached) as refused:
            await ask(flywheel, directives=Directives(only_if_cached=True))
        assert refused.value.details["reason"] == "policy"
        assert await turns_of(flywheel, "s") == 2
        await flywheel.policies.clear(whose, name)
        assert (await ask(flywheel)).reason is Reason.NOT_STORED
        assert (await ask(flywheel)).outcome is Outcome.HIT


async def test_who_has_no_policy_is_served_and_remembered_as_before(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, flows()) as flywheel:
        await flywheel.policies.set(Whose.USER, "ann", policy=NOTHING)
        await flywheel.policies.set(Whose.FLOW, "code", policy=NOTHING)
        first = await ask(flywheel, user="ben", session="b")
        assert first.remembered
        assert first.warnings == ()
        assert (await ask(flywheel, user="ben")).outcome is Outcome.HIT
        assert await turns_of(flywheel, "b") == 1
        assert not (await ask(flywheel, user="ben", flow="code", session="c")).remembered
        assert (await ask(flywheel, user="ann")).reason is Reason.POLICY


async def test_a_change_holds_from_the_next_question_on_in_another_process_at_no_further_round_trip(
    redis_server: Server, tmp_path: Path
) -> None:
    async with opened(redis_server, tmp_path, flows()) as one, opened(redis_server, tmp_path, flows()) as other:
        for _ in range(3):
            await ask(one)
        assert await trips(one) == 1  # one look, whether or not there are policies

        await other.policies.set(Whose.USER, "ann", policy=PrivacyPolicy(history=False))
        answer = await ask(one)
        assert answer.outcome is Outcome.HIT
        assert not answer.remembered
        assert await trips(one) == 1  # read once after the change, and known then

        await other.policies.set(Whose.TENANT, policy=UNCACHED)
        assert (await ask(one)).reason is Reason.POLICY
        await other.policies.clear(Whose.TENANT)
        await other.policies.clear(Whose.USER, "ann")
        assert (await ask(one)).remembered


async def test_an_answer_at_hand_is_given_up_when_a_policy_is_set_elsewhere(valkey: Server, tmp_path: Path) -> None:
    near = {"near_enabled": True, "near_max_staleness_seconds": 600.0, "flow_check_every_seconds": 600.0}
    async with opened(valkey, tmp_path, flows(), **near) as one, opened(valkey, tmp_path, flows()) as other:

        async def at_hand() -> bool:
            return (await ask(one)).near

        for _ in range(200):
            if await at_hand():
                break
            await asyncio.sleep(0.01)
        assert await at_hand()
        await other.policies.set(Whose.FLOW, "docs", policy=OFF)
        for _ in range(500):
            answer = await ask(one)
            if not answer.remembered:
                break
            await asyncio.sleep(0.01)
        assert not answer.remembered
        assert not (await ask(one)).near


@pytest.mark.parametrize("policy", [OFF, NOTHING], ids=["no history", "neither"])
async def test_no_word_of_question_or_answer_stays(redis_server: Server, tmp_path: Path, policy: PrivacyPolicy) -> None:
    """A byte search over every key and every file. Without history but with a cache, the one place is the stored answer
    that the whole team shares, which says nothing of who asked."""
    given = {"given": {"embedder": Words()}}
    async with opened(redis_server, tmp_path, flows(), **given) as flywheel:
        await flywheel.policies.set(Whose.FLOW, "docs", policy=policy)
        for session in ("s", None):
            await ask(flywheel, session=session)
            await ask(flywheel, f"And the {MARK} on mobile?", session=session)
            await ask(flywheel, f"Where is my {MARK}?", session=session)
            await ask(flywheel, f"Opening the {MARK} valve, how?", session=session)
        async for _ in flywheel.stream(f"Does the {MARK} stream?", flow="docs", user="ann", session="s"):
            pass
        await flywheel.settled()
        await flywheel.flush()
        await flywheel.history.search(MARK, user="ann")
        assert await flywheel.popular.list() is not None
        assert await flywheel.faq.list() is not None
        holding = [key.decode() for key in text_anywhere(redis_server, MARK)]
        entries = [key for key in holding if ":team:flow:docs:q:" in key]
        parts = [key for key in holding if key.endswith(":parts")]  # what was just said; it goes within 18 s by itself
        assert sorted(holding) == sorted([*entries, *parts])
        assert bool(entries) is (policy.cache is not False)
        for key in entries:
            entry = (await flywheel.cache.show(key)).entry
            assert (entry.user, entry.session_id) == ("", "")
            assert "my" not in entry.question
    if policy is NOTHING:
        assert holding == []
        assert list(files_with(MARK, tmp_path)) == []


async def test_a_policy_in_the_registry_holds_and_another_one_cannot_widen_it(
    redis_server: Server, tmp_path: Path
) -> None:
    strict = {"docs": (Oracle("docs"), {"privacy": {"history": "off", "retention_days": 30, "redact": ["email"]}})}
    async with opened(redis_server, tmp_path, strict) as flywheel:
        await flywheel.policies.set(
            Whose.FLOW, "docs", policy=PrivacyPolicy(history=True, retention_days=90, redact=frozenset({"iban"}))
        )
        held = await flywheel.policies.of(flow="docs")
        assert (held.history, held.retention_days, held.redact) == (False, 30, frozenset({"email", "iban"}))
        assert not (await ask(flywheel)).remembered
        shown = await flywheel.policies.show(flow="docs")
        assert [(one.origin, one.policy.retention_days) for one in shown.policies] == [
            ("registry", 30),
            ("run time", 90),
        ]


async def test_no_earlier_turn_goes_along_once_no_history_is_kept_and_those_kept_before_stay(
    redis_server: Server, tmp_path: Path
) -> None:
    async with opened(redis_server, tmp_path, flows()) as flywheel:
        await ask(flywheel, session="s")
        follow_up = await ask(flywheel, "And on mobile?", session="s")
        assert len(follow_up.context) == 1
        change = await flywheel.policies.set(Whose.FLOW, "docs", policy=OFF)
        assert any("afw forget" in note for note in change.notes)
        third = await ask(flywheel, "And on mobile?", session="s")
        assert third.context == ()
        assert "each question here is asked by itself" in third.warnings[0]
        assert await turns_of(flywheel, "s") == 2
        await flywheel.forgetting.session("s", dry_run=False)
        assert await turns_of(flywheel, "s") == 0


async def test_a_follow_up_without_history_is_not_taken_for_a_question_that_began_a_session(
    redis_server: Server, tmp_path: Path
) -> None:
    async with opened(redis_server, tmp_path, flows()) as flywheel:
        await flywheel.policies.set(Whose.USER, "ann", policy=OFF)
        answer = await ask(flywheel, "How long does installing take on tablets?", session="s")
        assert answer.key is not None
        assert not (await flywheel.cache.show(answer.key)).entry.first


async def test_warming_leaves_alone_what_would_not_be_stored(redis_server: Server, tmp_path: Path) -> None:
    from agentic_flywheel.warmups import NotWarmed, WarmOutcome

    docs = Oracle("docs")
    async with opened(redis_server, tmp_path, {"docs": docs}) as flywheel:
        await flywheel.policies.set(Whose.FLOW, "docs", policy=UNCACHED)
        report = await flywheel.warming.run([QUESTION])
        (item,) = report.items
        assert (item.outcome, item.reason) == (WarmOutcome.REFUSED, NotWarmed.POLICY)
        assert docs.calls == 0


async def test_what_cannot_be_meant_is_refused(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, flows()) as flywheel:
        with pytest.raises(InputError):
            await flywheel.policies.set(Whose.TENANT, "team", policy=OFF)
        with pytest.raises(UnknownFlow):
            await flywheel.policies.set(Whose.FLOW, "dosc", policy=OFF)
        with pytest.raises(InputError):
            await flywheel.policies.set(Whose.USER, "", policy=OFF)
        for days in (0.0, -1.0, float("nan"), float("inf"), 1e9):
            with pytest.raises(InputError):
                await flywheel.policies.set(Whose.TENANT, policy=PrivacyPolicy(retention_days=days))
        with pytest.raises(InputError):
            await flywheel.policies.set(Whose.TENANT, policy=PrivacyPolicy(redact=frozenset({"two words"})))
        assert (await flywheel.policies.show()).policies == ()


async def test_a_policy_that_cannot_be_read_forbids_everything(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, flows()) as flywheel:
        await flywheel.policies.set(Whose.FLOW, "docs", policy=PrivacyPolicy(retention_days=30))
        assert (await ask(flywheel)).remembered
    with redis_server.client() as redis:
        redis.hset("afw:v1:default:privacy", mapping={"flow:docs": b"\x01\x00nonsense", "version": "another"})
    async with opened(redis_server, tmp_path, flows()) as flywheel:
        answer = await ask(flywheel)
        assert (answer.reason, answer.remembered) == (Reason.POLICY, False)
        assert (await ask(flywheel, flow="code")).remembered


async def test_while_redis_is_away_the_last_known_policy_holds(valkey: Server, tmp_path: Path) -> None:
    quick = {"redis_command_timeout_seconds": 0.2, "redis_connect_timeout_seconds": 0.2}
    async with opened(valkey, tmp_path, flows(), **quick) as flywheel:
        await flywheel.policies.set(Whose.FLOW, "docs", policy=OFF)
        await ask(flywheel)
        valkey.kill()
        try:
            answer = await ask(flywheel, session="s")
            assert not answer.remembered
            assert any("No history: policy of flow docs" in said for said in answer.warnings)
            assert (await ask(flywheel, "Which code?", flow="code", session="c")).remembered  # in the outbox
            # A process that begins now reads what this machine knew.
            async with opened(valkey, tmp_path, flows(), **quick) as later:
                assert not (await ask(later, session="s")).remembered
            assert [file for file in files_with("valve", tmp_path) if file.name == "turns.log"] == []
        finally:
            valkey.start()


async def test_where_nothing_is_known_a_turn_waits_and_is_delivered_only_if_policy_allows(
    valkey: Server, tmp_path: Path
) -> None:
    quick = {"redis_command_timeout_seconds": 0.2, "redis_connect_timeout_seconds": 0.2}
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    valkey.kill()
    try:
        async with opened(valkey, tmp_path / "one", flows(), **quick) as flywheel:
            for user in ("ann", "ben"):
                assert (await ask(flywheel, session=user, user=user)).remembered
        valkey.start()
        async with opened(valkey, tmp_path / "other", flows()) as elsewhere:
            await elsewhere.policies.set(Whose.USER, "ann", policy=OFF)
        async with opened(valkey, tmp_path / "one", flows()) as flywheel:
            await flywheel.outbox.deliver()
            assert [await turns_of(flywheel, session) for session in ("ann", "ben")] == [0, 1]
            await until(lambda: not flywheel.outbox.waits(), "the delivery")
            for _ in range(500):
                status = await flywheel.outbox.status()
                if status.delivered:  # counted when it is done
                    break
                await asyncio.sleep(0.01)
            assert (status.waiting, status.withheld, status.delivered, status.rejected) == (0, 1, 1, 0)
        assert text_anywhere(valkey, "ann") == [b"afw:v1:default:privacy"]
    finally:
        valkey.start()


async def test_where_nothing_is_known_nothing_is_kept_if_the_setting_says_so(valkey: Server, tmp_path: Path) -> None:
    quick = {"redis_command_timeout_seconds": 0.2, "redis_connect_timeout_seconds": 0.2}
    valkey.kill()
    try:
        async with opened(valkey, tmp_path, flows(), policy_unknown="withhold", **quick) as flywheel:
            answer = await ask(flywheel, session="s")
            assert not answer.remembered
            assert any("unknown while Redis is away" in said for said in answer.warnings)
            assert list(files_with(MARK, tmp_path)) == []
            valkey.start()
            await until(lambda: valkey.running, "the server")
            for _ in range(200):
                if (await ask(flywheel, session="s")).remembered:
                    break
                await asyncio.sleep(0.02)
            else:
                pytest.fail("the policies were not read when Redis was back")
    finally:
        valkey.start()


async def test_a_user_named_by_an_address_is_kept_apart_and_shown_by_name(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, flows()) as flywheel:
        await flywheel.policies.set(Whose.USER, "ann@example.com", policy=OFF)
        assert not (await ask(flywheel, user="ann@example.com")).remembered
        assert (await ask(flywheel, user="ann")).remembered
        (row,) = (await flywheel.policies.show(user="ann@example.com")).policies
        assert row.name == "ann@example.com"
        with redis_server.client() as redis:
            assert not any(b"@example" in name for name in redis.hkeys("afw:v1:default:privacy"))


async def test_a_lifetime_and_a_policy_stand_side_by_side(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, flows()) as flywheel:
        await flywheel.lifetimes.set("technical", timedelta(hours=1))
        await flywheel.policies.set(Whose.TENANT, policy=PrivacyPolicy(retention_days=30))
        answer = await ask(flywheel)
        assert answer.ttl_seconds is not None
        assert answer.ttl_seconds < 3_900
        assert [row.ttl_seconds for row in await flywheel.lifetimes.show() if row.name == "technical"] == [3600]


async def test_explaining_names_whose_policies_forbid_what(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, flows()) as flywheel:
        await flywheel.policies.set(Whose.FLOW, "docs", policy=OFF)
        mine = await flywheel.similar.explain("Where is my valve?", flow="docs", user="ann")
        assert mine.reason == "policy"
        assert "no history: policy of flow docs" in mine.notes
        assert "only answers of the whole team are stored where no history is kept" in mine.notes
        await flywheel.policies.set(Whose.USER, "ann", policy=NOTHING)
        told = await flywheel.similar.explain(QUESTION, flow="docs", user="ann")
        assert {"no history: policy of flow docs and of user ann", "no cache: policy of user ann"} <= set(told.notes)
        assert (told.outcome, told.reason) == ("bypass", "policy")


async def test_traces_show_nothing_of_whom_no_history_is_kept(valkey: Server, tmp_path: Path) -> None:
    with sink() as taken:
        arguments = {"trace_exporter": "otlp", "trace_endpoint": f"{taken.url}/v1/traces", "trace_text": "on"}
        async with opened(valkey, tmp_path, flows(), **arguments) as flywheel:
            await flywheel.policies.set(Whose.FLOW, "docs", policy=OFF)
            await ask(flywheel, session="s-docs")
            await ask(flywheel, "What is seen of code?", flow="code", session="s-code")
        sent = repr(taken.spans)
        assert "seen of code" in sent
        assert MARK not in sent
        assert "s-docs" not in sent


async def test_with_a_key_policies_are_sealed_on_the_server_and_on_disk_and_rotated(
    valkey: Server, tmp_path: Path
) -> None:
    lines = [f"k{n}:{base64.b64encode(os.urandom(32)).decode()}" for n in (1, 2)]
    name = f"{MARK}-ann"
    async with opened(valkey, tmp_path, flows(), encryption_keys=lines[0]) as flywheel:
        await flywheel.policies.set(Whose.USER, name, policy=OFF)
        assert not (await ask(flywheel, user=name)).remembered
        assert (await flywheel.policies.show(user=name)).policies[0].name == name
        await flywheel.retention.sweep(dry_run=False)
    with valkey.client() as redis:
        held = redis.hgetall("afw:v1:default:privacy")
    assert [field for field, value in held.items() if MARK.encode() in value] == []
    assert list(files_with(MARK, tmp_path)) == []
    both = ",".join(lines)
    async with opened(valkey, tmp_path, flows(), encryption_keys=both, encryption_current="k2") as flywheel:
        assert (await flywheel.encryption.rotate()).complete
    async with opened(valkey, tmp_path, flows(), encryption_keys=lines[1]) as flywheel:
        assert not (await ask(flywheel, user=name)).remembered
        assert (await flywheel.retention.notes()).last is not None
        version = (await flywheel._store.policies.table()).version
    assert held[b"version"].decode() == version
