"""With redaction on, nothing of what was redacted is kept, in any form; and nothing wrong is served because of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Directives, Flywheel
from agentic_flywheel.errors import InputError, NotCached
from agentic_flywheel.flows.protocol import FlowQuestion
from agentic_flywheel.model import Exchange, Outcome, Reason
from agentic_flywheel.observe.names import Attribute
from agentic_flywheel.privacy import PrivacyPolicy, Whose
from byte_search import places, places_on_disk
from flywheels import Oracle, opened, until
from meanings import Words
from servers import Server, Servers
from sinks import Sink, sink

pytestmark = pytest.mark.anyio

SECRETS = {
    "email": "ann.baker77@mail.example.org",
    "phone": "+33 6 39 98 12 34",
    "card": "4242 4242 4242 4242",
    "iban": "GB29 NWBK 6016 1331 9268 19",
    "ip": "203.0.113.177",
    "key": "q7Tz2LmX9vRb4KcW8nYd3PfH",
    "password": "Blue!Kettle77",
}
ALL = list(SECRETS.values())
TOLD = (
    "I am {email}, phone {phone}, card {card}, IBAN {iban}, at {ip}; my key {key} and my password is {password}".format(
        **SECRETS
    )
)
HOLES = "I am [e-mail], phone [phone], card [card], IBAN [IBAN], at [IP]; my key [secret] and my password is [secret]"


async def teller(question: FlowQuestion) -> AsyncIterator[str]:
    """Says personal data of its own to whatever it is asked, in pieces that cut it apart."""
    text = f"You asked {question.text}. Ours: {TOLD}"
    for start in range(0, len(text), 5):
        yield text[start : start + 5]
        await asyncio.sleep(0)


@pytest.fixture
def taken() -> Iterator[Sink]:
    with sink() as received:
        yield received


async def lived(flywheel: Flywheel, session: str = "s1", user: str = "bob") -> None:
    """Everything that may come of questions, whose words hold all kinds of personal data."""
    await flywheel.ask(TOLD, session=session, user=user)
    await flywheel.ask(f"Once more: {TOLD}?", session=session, user=user)
    await flywheel.ask(TOLD, user=user)
    await flywheel.ask(TOLD)
    await flywheel.ask(f"And what of {SECRETS['card']}?", session=session, directives=Directives(private=True))
    await flywheel.ask("And then?", session=session, user=user)
    await flywheel.ask("How is a card blocked?", flow="teller", user=user)
    await flywheel.ask("How is a card blocked?", flow="teller", user="eve")
    await flywheel.ask("Why?", history=[Exchange(TOLD, TOLD)], instructions=TOLD, config={"vars": {"key": TOLD}})
    async for _ in flywheel.stream(f"Streamed: {TOLD}", flow="teller", session=session, user=user):
        pass
    turns = (await flywheel.sessions.show(session)).turns
    await flywheel.similar.report(turns[0].id, "wrong", note=f"ask {TOLD}", session=session, user=user)
    await flywheel.traces.judge(8, id=turns[0].id, session=session, user=user, feedback=TOLD)
    await flywheel.sessions.rename(session, f"About {SECRETS['email']}")
    await flywheel.audit.record("test", "it", by=user, why=TOLD, note=TOLD)
    with pytest.raises(InputError, match="may not be kept"):
        await flywheel.sessions.configure(session, {"vars": {"password": SECRETS["password"]}})
    with pytest.raises(InputError, match="cannot be warmed"):
        await flywheel.warming.run([f"What does {SECRETS['email']} want?"])
    await flywheel.history.search("card", user=user)
    await flywheel.popular.list()
    await flywheel.faq.list()
    await flywheel.settled()
    await flywheel.flush()


FLOWS: dict[str, Any] = {"oracle": Oracle(), "teller": teller}


@pytest.mark.parametrize(("name", "index"), [("valkey9", "local"), ("stack74", "engine")])
async def test_a_life_leaves_none_of_it(servers: Servers, tmp_path: Path, name: str, index: str) -> None:
    server, words, oracle = servers.get(name), Words(), Oracle()
    flows = {"oracle": oracle, "teller": (teller, {"description": "teller"})}
    given = {"embedder": words}
    async with opened(
        server, tmp_path, flows, given=given, privacy_redact="all", search_index=index, near_enabled=True
    ) as flywheel:
        await lived(flywheel)
        assert (await flywheel.history.search("card", user="bob")).total >= 2
        page = await flywheel.sessions.show("s1")
        assert page.turns[0].question == HOLES
        assert HOLES in page.turns[0].answer
        assert page.session.title == "About [e-mail]"
        assert oracle.asked[0].text == TOLD  # the flow is asked what the person wrote
        assert await flywheel.popular.list() == []
        assert places(server, ALL, tmp_path) == []
        backup = tmp_path / "backup.afw"
        await flywheel.backup.export(backup)
        assert places(None, ALL, tmp_path) == []
    assert not [text for text in words.texts for secret in ALL if secret in text]
    assert places(server, ALL, tmp_path) == []
    assert places_on_disk(server, ALL) == []


async def test_without_redaction_the_search_does_find_it(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await flywheel.ask(TOLD, session="s1")
        held = places(valkey, ALL)
    assert {place.rsplit(": ", 1)[1] for place in held} == set(ALL)


async def test_an_outage_leaves_none_of_it_on_disk(valkey: Server, tmp_path: Path) -> None:
    gone = f"unix://{tmp_path}/nobody.sock"
    async with opened(gone, tmp_path, FLOWS, privacy_redact="all", redis_connect_timeout_seconds=0.2) as flywheel:
        answer = await flywheel.ask(TOLD, session="s1", flow="oracle", user="bob")
        assert answer.outcome is Outcome.BYPASS
        await flywheel.ask("How is a card blocked?", session="s1", flow="teller", user="bob")
        await flywheel.ask(f"Alone: {TOLD}", flow="oracle")
        await flywheel.settled()
        assert len((await flywheel.sessions.show("s1")).turns) == 2
    assert places(None, ALL, tmp_path) == []
    assert places(None, ["[e-mail]"], tmp_path)  # the turns are there


async def test_questions_that_differ_in_what_is_redacted_alone_are_never_one(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}, privacy_redact="email") as flywheel:
        for name in ("ann", "bob", "ann", "ann"):
            answer = await flywheel.ask(f"Which plan has {name}@example.org?", user="eve")
            assert answer.text.endswith(f"Which plan has {name}@example.org?")
            assert (answer.outcome, answer.reason, answer.key) == (Outcome.BYPASS, Reason.REDACTED, None)
            assert any("Kept without an e-mail address" in warning for warning in answer.warnings)
        assert oracle.calls == 4
        with pytest.raises(NotCached) as refused:
            await flywheel.ask("Which plan has ann@example.org?", directives=Directives(only_if_cached=True))
        assert refused.value.details["reason"] == "redacted"
        with pytest.raises(InputError, match="may not be kept"):
            await flywheel.cache.key("Which plan has ann@example.org?")
        with valkey.client() as redis:
            assert not [key for key in redis.keys("*") if b":q:" in key or b":lease:" in key]


async def test_what_others_bring_along_is_no_part_of_a_key_either(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}, privacy_redact="all") as flywheel:
        for given in (
            {"history": [Exchange("Who?", "bob@example.org")]},
            {"instructions": "The customer is bob@example.org."},
            {"config": {"vars": {"password": "opensesame12"}}},
        ):
            answer = await flywheel.ask("How do I pay the invoice by card?", **given)  # type: ignore[arg-type]
            assert (answer.reason, answer.key) == (Reason.REDACTED, None)
        answer = await flywheel.ask("How do I pay the invoice by card?", instructions="Be brief.")
        assert answer.outcome is Outcome.MISS
        assert answer.key


async def test_an_answer_with_personal_data_is_given_whole_and_kept_for_nobody(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"teller": teller}, privacy_redact="all") as flywheel:
        for _ in range(2):
            answer = await flywheel.ask("How is a card blocked?", session="s1")
            assert TOLD in answer.text
            assert (answer.outcome, answer.reason, answer.key) == (Outcome.BYPASS, Reason.REDACTED, None)
            assert answer.warnings == ("The answer holds personal data: it is kept without, and for nobody else.",)
        kept = (await flywheel.sessions.show("s1")).turns
        assert [HOLES in turn.answer for turn in kept] == [True, True]


async def test_values_that_are_kept_are_stored_with_their_answer(valkey: Server, tmp_path: Path) -> None:
    def support(question: FlowQuestion) -> str:
        return "Write to help@acme.example or call +33 1 99 00 12 34."

    keep = "*@acme.example, 01 99 00 12 34"
    async with opened(valkey, tmp_path, {"support": support}, privacy_redact="all", privacy_keep=keep) as flywheel:
        assert (await flywheel.ask("How do I reach support people?")).outcome is Outcome.MISS
        assert (await flywheel.ask("How do I reach support people?")).outcome is Outcome.HIT
        assert (await flywheel.ask("Is help@acme.example read daily?")).scope == "team"


async def test_those_who_wait_for_another_process_ask_themselves(valkey: Server, tmp_path: Path) -> None:
    asked, go_on = 0, asyncio.Event()

    async def slow(question: FlowQuestion) -> AsyncIterator[str]:
        nonlocal asked
        asked += 1
        for part in ("Call ", "+33 6 39 98", " 12 34", " now."):
            yield part
        await go_on.wait()

    flows, settings = {"slow": slow}, {"privacy_redact": "all"}
    async with opened(valkey, tmp_path, flows, **settings) as one, opened(valkey, tmp_path, flows, **settings) as two:
        first = asyncio.create_task(one.ask("How is a card blocked?"))
        await until(lambda: asked == 1, "the first call")
        second = asyncio.create_task(two.ask("How is a card blocked?"))
        with valkey.client() as redis:
            await until(lambda: redis.info("clients")["blocked_clients"] == 1, "the second to wait")
        assert places(valkey, ["39 98"]) == []
        go_on.set()
        answers = await asyncio.gather(first, second)
        assert [answer.text for answer in answers] == ["Call +33 6 39 98 12 34 now."] * 2
        assert [answer.outcome for answer in answers] == [Outcome.BYPASS] * 2
        assert asked == 2
        await one.flush()
        await two.flush()
        assert places(valkey, ["39 98"]) == []


async def test_a_clean_answer_is_shared_as_ever(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}, privacy_redact="all") as flywheel:
        question = "How do I enable Redis persistence?"
        outcomes = [(await flywheel.ask(question)).outcome for _ in range(3)]
        assert outcomes == [Outcome.MISS, Outcome.HIT, Outcome.HIT]
        assert oracle.calls == 1


async def test_what_was_stored_before_is_not_served_with_it(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"teller": teller}) as flywheel:
        assert (await flywheel.ask("How is a card blocked?")).outcome is Outcome.MISS
    async with opened(valkey, tmp_path, {"teller": teller}, privacy_redact="all") as flywheel:
        answer = await flywheel.ask("How is a card blocked?")
        assert (answer.outcome, answer.reason) == (Outcome.BYPASS, Reason.REDACTED)


async def test_policies_redact_more_than_the_setting_says(valkey: Server, tmp_path: Path) -> None:
    strict = PrivacyPolicy(redact=frozenset({"phone"}))
    flows = {"open": Oracle(), "strict": (Oracle(), {"privacy": strict})}
    question = "Is +33 6 39 98 12 34 or ann@example.org right?"
    async with opened(valkey, tmp_path, flows, privacy_redact="email") as flywheel:
        await flywheel.policies.set(Whose.USER, "eve", policy=PrivacyPolicy(redact=frozenset({"all"})))
        await flywheel.ask(question, flow="open", session="s1")
        await flywheel.ask(question, flow="strict", session="s2")
        await flywheel.ask(question, flow="open", session="s3", user="eve")
        kept = [(await flywheel.sessions.show(session)).turns[0].question for session in ("s1", "s2", "s3")]
        assert kept[0] == "Is +33 6 39 98 12 34 or [e-mail] right?"
        assert kept[1:] == ["Is [phone] or [e-mail] right?"] * 2
        told = await flywheel.privacy.test(question, flow="open", user="eve")
        assert told.stored == "Is [phone] or [e-mail] right?"


@pytest.mark.parametrize("user", ["bob", ""])
async def test_a_question_with_personal_data_is_its_askers_alone(valkey: Server, tmp_path: Path, user: str) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        question = "Which plan has ann@example.org?"
        answer = await flywheel.ask(question, user=user)
        assert answer.scope == ("user" if user else "session")
        assert answer.warnings == ("Private, since there is an e-mail address in the question.",)
        assert (await flywheel.ask(question, user="eve")).outcome is Outcome.MISS
        again = await flywheel.ask(question, user=user)
        assert again.outcome is (Outcome.HIT if user else Outcome.MISS)
        await flywheel.flush()
        (turn,) = (await flywheel.sessions.show(answer.session_id)).turns
        assert turn.private
        assert await flywheel.popular.list() == []
        told = await flywheel.similar.explain(question, user=user)
        assert told.scope == ("user" if user else "session")
        assert "Private, since there is an e-mail address in the question." in told.notes


async def test_more_than_is_looked_through_passes_for_personal_data(valkey: Server, tmp_path: Path) -> None:
    """What comes along may be of any length, and nobody else's question waits while it is read."""
    oracle = Oracle()
    long = [Exchange("What is written there?", "word " * 19_000), Exchange("And further down?", "word " * 2_000)]
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        short = await flywheel.ask("What does it come to?", user="ann", history=long[:1])
        assert (short.scope, short.warnings) == ("team", ())
        for history, config in ((long, {}), ((), {f"setting {n}": n for n in range(2_500)})):
            answer = await flywheel.ask("What does it come to?", user="ann", history=history, config=config)
            (warning,) = answer.warnings
            assert "looked through" in warning
            assert answer.scope == "user"
            (turn,) = (await flywheel.sessions.show(answer.session_id)).turns
            assert turn.private
    async with opened(valkey, tmp_path, {"oracle": oracle}, privacy_redact="email") as flywheel:
        unkept = await flywheel.ask("What does it come to?", user="ann", history=long)
        assert (unkept.key, unkept.reason) == (None, Reason.REDACTED)
    async with opened(valkey, tmp_path, {"oracle": oracle}, privacy_sensitive="off") as flywheel:
        assert (await flywheel.ask("What does it come to?", user="ann", history=long)).scope == "team"


async def test_detection_can_be_off(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, privacy_sensitive="off") as flywheel:
        answer = await flywheel.ask("Which plan has ann@example.org?")
        assert (answer.scope, answer.warnings) == ("team", ())


async def test_traces_carry_none_of_it_with_all_text_on(valkey: Server, tmp_path: Path, taken: Sink) -> None:
    where: dict[str, Any] = {"trace_exporter": "otlp", "trace_endpoint": f"{taken.url}/v1/traces", "trace_text": "on"}
    for sensitive in ("private", "off"):
        async with opened(
            valkey, tmp_path, FLOWS, privacy_redact="all", privacy_sensitive=sensitive, **where
        ) as flywheel:
            await lived(flywheel, f"s-{sensitive}")
    told = repr(taken.spans)
    assert not [secret for secret in ALL if secret in told]
    shown = [span.said[Attribute.QUESTION] for span in taken.spans if Attribute.QUESTION in span.said]
    assert HOLES in shown


async def test_names_are_redacted_where_somebody_finds_them(valkey: Server, tmp_path: Path) -> None:
    named = {"privacy_redact": "name", "privacy_names": "python:redaction_names:titled"}
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, **named) as flywheel:
        answer = await flywheel.ask("What does Mr Brown owe?", session="s1")
        assert answer.reason is Reason.REDACTED
        assert (await flywheel.sessions.show("s1")).turns[0].question == "What does [name] owe?"


async def test_where_the_detector_fails_nothing_of_the_text_is_kept(valkey: Server, tmp_path: Path) -> None:
    named = {"privacy_redact": "name", "privacy_names": "python:redaction_names:broken"}
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, **named) as flywheel:
        answer = await flywheel.ask("What does Mr Brown owe?", session="s1")
        assert answer.text == "oracle 1: What does Mr Brown owe?"
        assert answer.reason is Reason.REDACTED
        kept = (await flywheel.sessions.show("s1")).turns[0]
        assert (kept.question, kept.answer) == ("[name]", "[name]")


async def test_what_would_be_kept_is_told_without_asking(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    flows = {"oracle": oracle, "none": (Oracle(), {"sharing": "none"})}
    async with opened(valkey, tmp_path, flows, privacy_redact="email") as flywheel:
        told = await flywheel.privacy.test("Mail ann@example.org from 203.0.113.7", flow="oracle", user="bob")
        assert told.stored == "Mail [e-mail] from 203.0.113.7"
        assert [(one.kind, one.redacted) for one in told.found] == [("email", True), ("ip", False)]
        assert (told.private, told.scope, told.counts) == (True, "", {"email": 1, "ip": 1})
        clean = await flywheel.privacy.test("How long are answers kept?", flow="oracle")
        assert (clean.private, clean.scope, clean.why) == (False, "team", ())
        assert (await flywheel.privacy.test("How long?", flow="none")).scope == ""
        assert (await flywheel.privacy.test("From 203.0.113.7", flow="oracle", user="bob")).scope == "user"
        assert oracle.calls == 0
