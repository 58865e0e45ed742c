"""Nobody is served what was not meant for them: sessions, users, contexts and private questions, end to end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agentic_flywheel import Directives
from agentic_flywheel.errors import UnknownSession
from agentic_flywheel.flows.protocol import FlowQuestion
from agentic_flywheel.model import Answer, Exchange, Sharing
from flywheels import Oracle, opened
from servers import Server

pytestmark = pytest.mark.anyio

QUESTION = "How do I enable Redis persistence?"
FOLLOW_UP = "What about mobile?"
#: A follow-up without any marker: only the structure of the conversation tells that it is one.
UNMARKED = "Which configuration file settings control durability?"
PRIVATE = Directives(private=True)
STANDALONE = Directives(standalone=True)


def came(answer: Answer) -> tuple[str, str]:
    return answer.outcome.value, answer.reason.value


async def test_a_follow_up_carries_what_was_said(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        first = await flywheel.ask(QUESTION, session="s")
        second = await flywheel.ask(FOLLOW_UP, session="s")
        assert second.context == (first.turn_id,)
        assert [(e.question, e.answer) for e in oracle.asked[1].history] == [(QUESTION, first.text)]
        assert oracle.asked[1].text == FOLLOW_UP
        thread = await flywheel.sessions.show("s")
        assert [t.parent for t in thread.turns] == ["", first.turn_id]
        assert thread.turns[1].context == (first.turn_id,)


async def test_a_flow_without_a_history_of_its_own_is_told_in_words(valkey: Server, tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return f"answer {len(asked)}"

    async with opened(valkey, tmp_path, {"plain": answer}) as flywheel:
        await flywheel.ask(QUESTION, session="s")
        await flywheel.ask(FOLLOW_UP, session="s")
        assert asked[1] == (f"Earlier in this conversation:\nQ: {QUESTION}\nA: answer 1\n\nQuestion: {FOLLOW_UP}")


@pytest.mark.parametrize("follow_up", [FOLLOW_UP, UNMARKED])
async def test_a_follow_up_is_never_answered_from_another_conversation(
    redis_server: Server, tmp_path: Path, follow_up: str
) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}, session_verbatim=False) as flywheel:
        alone = await flywheel.ask(follow_up)
        for session, opening in (("one", QUESTION), ("two", "How large may a Redis key become?")):
            await flywheel.ask(opening, session=session)
            answer = await flywheel.ask(follow_up, session=session)
            assert came(answer) == ("miss", "not_stored")
            assert answer.text != alone.text
        assert oracle.calls == 5
        assert (await flywheel.ask(follow_up)).text == alone.text


async def test_the_same_path_in_another_session_is_served_all_along(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    path = [QUESTION, FOLLOW_UP, "Why?", UNMARKED]
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        once = [await flywheel.ask(question, session="one", user="ana") for question in path]
        again = [await flywheel.ask(question, session="two", user="ben") for question in path]
        assert [came(answer) for answer in again] == [("hit", "exact")] * 4
        assert [answer.text for answer in again] == [answer.text for answer in once]
        assert oracle.calls == 4
        # Leaving the path ends it.
        other = await flywheel.ask("How large may a Redis key become?", session="two", user="ben")
        assert came(other) == ("miss", "not_stored")


async def test_word_for_word_only_what_stood_alone_before(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        first = await flywheel.ask(UNMARKED)
        await flywheel.ask(QUESTION, session="s")
        verbatim = await flywheel.ask(UNMARKED, session="s")
        assert came(verbatim) == ("hit", "exact")
        assert verbatim.text == first.text
        assert verbatim.context == ()  # nothing enriched what is served
        thread = await flywheel.sessions.show("s")
        assert thread.turns[1].context == ()


async def test_word_for_word_is_not_for_answers_from_inside_a_conversation(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await flywheel.ask(QUESTION, session="one")
        await flywheel.ask(UNMARKED, session="one", directives=STANDALONE)
        await flywheel.ask("How large may a Redis key become?", session="two")
        answer = await flywheel.ask(UNMARKED, session="two")
        assert came(answer) == ("miss", "not_first")


async def test_word_for_word_can_be_switched_off(valkey: Server, tmp_path: Path) -> None:
    flows = {"never": (Oracle(), {"verbatim": False, "id": "n"}), "open": (Oracle(), {"verbatim": True, "id": "o"})}
    async with opened(valkey, tmp_path, flows, session_verbatim=False) as flywheel:
        for flow, outcome in (("never", "miss"), ("open", "hit")):
            await flywheel.ask(UNMARKED, flow=flow)
            await flywheel.ask(QUESTION, flow=flow, session=flow)
            assert (await flywheel.ask(UNMARKED, flow=flow, session=flow)).outcome == outcome


async def test_standalone_takes_nothing_along_and_is_shared(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        alone = await flywheel.ask(FOLLOW_UP)
        await flywheel.ask(QUESTION, session="s")
        answer = await flywheel.ask(FOLLOW_UP, session="s", directives=STANDALONE)
        assert (came(answer), answer.text, answer.context) == (("hit", "exact"), alone.text, ())
        await flywheel.ask("And on Windows?", session="s", directives=STANDALONE)
        assert oracle.asked[-1].history == ()


async def test_what_follows_from_ones_own_things_is_ones_own(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        first = await flywheel.ask("What follows from my blood pressure of 180?", session="s", user="ana")
        later = [await flywheel.ask(one, session="s", user="ana") for one in (FOLLOW_UP, UNMARKED, "Why?")]
        assert {answer.scope for answer in (first, *later)} == {"user"}
        assert {answer.scope for answer in [await flywheel.ask("Why?", session="t")]} == {"team"}
        thread = (await flywheel.sessions.show("s")).turns
        assert [(turn.own, turn.private) for turn in thread] == [(False, False), *[(True, False)] * 3]
        for user, found in (("ana", 4), ("ben", 0)):
            assert (await flywheel.history.search("session:s", user=user)).total == found
        # The same path is another's own, and where no user is known the session's.
        await flywheel.ask("What follows from my blood pressure of 180?", session="u", user="ben")
        assert came(await flywheel.ask(FOLLOW_UP, session="u", user="ben")) == ("miss", "not_stored")
        await flywheel.ask("What follows from my blood pressure of 180?", session="v")
        assert (await flywheel.ask(FOLLOW_UP, session="v")).scope == "session"
        # What anybody asked first, word for word, is given all the same, and says nothing of the conversation.
        alone = await flywheel.ask("How large may a Redis key become?")
        again = await flywheel.ask("How large may a Redis key become?", session="s", user="ana")
        assert (came(again), again.scope, again.text) == (("hit", "exact"), "team", alone.text)
        assert not (await flywheel.sessions.show("s")).turns[-1].own


async def test_earlier_exchanges_about_ones_own_things_are_ones_own_too(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        for said, scope in (("What is my salary?", "user"), ("What is a salary?", "team")):
            answer = await flywheel.ask(FOLLOW_UP, user="ana", history=[Exchange(said, "It is what it is.")])
            assert answer.scope == scope


@pytest.mark.parametrize(
    ("sharing", "scope", "private"),
    [(Sharing.TEAM, "team", False), (Sharing.USER, "user", False), (Sharing.SESSION, "session", True)],
)
async def test_an_answer_goes_no_further_than_those_that_it_follows(
    valkey: Server, tmp_path: Path, sharing: Sharing, scope: str, private: bool
) -> None:
    flows = {"first": (Oracle("first"), {"sharing": sharing, "id": "1"}), "open": (Oracle("open"), {"id": "2"})}
    async with opened(valkey, tmp_path, flows) as flywheel:
        await flywheel.ask(QUESTION, session="s", user="ana", flow="first")
        answers = [await flywheel.ask(one, session="s", user="ana", flow="open") for one in (FOLLOW_UP, UNMARKED)]
        assert {answer.scope for answer in answers} == {scope}
        assert {turn.private for turn in (await flywheel.sessions.show("s")).turns[1:]} == {private}


async def test_private_stays_in_its_session(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        private = await flywheel.ask(QUESTION, session="mine", user="ana", directives=PRIVATE)
        assert private.scope == "session"
        assert "session:{mine}" in (private.key or "")
        for session, user in ((None, None), ("other", "ana"), (None, "ben")):
            assert (await flywheel.ask(QUESTION, session=session, user=user)).text != private.text
        # What follows from it stays there too, however far on and without being asked for.
        later = [await flywheel.ask(question, session="mine", user="ana") for question in (FOLLOW_UP, UNMARKED, "Why?")]
        assert {answer.scope for answer in later} == {"session"}
        assert all(turn.private for turn in (await flywheel.sessions.show("mine")).turns)
        with redis_server.client() as client:
            shared = [client.get(key) for key in client.scan_iter("afw:*:team:*")]
        assert all(private.text.encode() not in value for value in shared)


async def test_private_further_back_than_the_context_reaches(valkey: Server, tmp_path: Path) -> None:
    """Each turn that a private one enriched is private itself, so the chain never breaks."""
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, session_turns=1, session_context_tokens=60) as flywheel:
        await flywheel.ask(QUESTION, session="s", directives=PRIVATE)
        for n in range(5):
            answer = await flywheel.ask(f"What is the number {n} called?", session="s")
            assert answer.scope == "session", n


async def test_the_same_private_path_is_served_inside_its_session_alone(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        for session in ("one", "two"):
            await flywheel.ask(QUESTION, session=session, directives=PRIVATE)
            await flywheel.ask(FOLLOW_UP, session=session)
        assert oracle.calls == 4


async def test_who_is_served_by_each_policy(redis_server: Server, tmp_path: Path) -> None:
    flows = {sharing.value: (Oracle(), {"sharing": sharing, "id": sharing.value}) for sharing in Sharing}
    async with opened(redis_server, tmp_path, flows) as flywheel:
        for sharing, scope, same_user, other_user, nobody in (
            ("team", "team", "hit", "hit", "hit"),
            ("user", "user", "hit", "miss", "miss"),
            ("session", "session", "miss", "miss", "miss"),
            ("none", "", "bypass", "bypass", "bypass"),
        ):
            first = await flywheel.ask(QUESTION, flow=sharing, user="ana")
            assert first.scope == scope
            assert (await flywheel.ask(QUESTION, flow=sharing, user="ana")).outcome == same_user, sharing
            assert (await flywheel.ask(QUESTION, flow=sharing, user="ben")).outcome == other_user, sharing
            assert (await flywheel.ask(QUESTION, flow=sharing, user="")).outcome == nobody, sharing
        none = await flywheel.ask(QUESTION, flow="none", session="s")
        assert (came(none), none.key, none.remembered) == (("bypass", "not_shared"), None, True)
        assert len((await flywheel.sessions.show("s")).turns) == 1


async def test_a_team_flow_is_not_told_who_asks(valkey: Server, tmp_path: Path) -> None:
    team, user = Oracle(), Oracle()
    flows = {"team": (team, {"id": "t"}), "user": (user, {"sharing": "user", "id": "u"})}
    async with opened(valkey, tmp_path, flows) as flywheel:
        for flow in flows:
            await flywheel.ask(QUESTION, flow=flow, user="ana")
        assert (team.asked[0].user, user.asked[0].user) == ("", "ana")


async def test_every_call_of_a_flow_is_a_conversation_of_its_own(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        for question in (QUESTION, FOLLOW_UP, "Why?"):
            await flywheel.ask(question, session="s")
        assert len({question.conversation for question in oracle.asked}) == 3


async def test_questions_about_oneself(redis_server: Server, tmp_path: Path) -> None:
    mine = "How large is my Redis database on disk?"
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}) as flywheel:
        first = await flywheel.ask(mine, user="ana")
        assert first.scope == "user"
        assert (await flywheel.ask(mine, user="ana")).outcome == "hit"
        assert (await flywheel.ask(mine, user="ben")).outcome == "miss"
        nobody = await flywheel.ask(mine)
        assert (nobody.scope, nobody.outcome) == ("session", "miss")
        assert (await flywheel.ask(mine)).outcome == "miss"


async def test_another_user_s_session_is_not_there(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        await flywheel.ask(QUESTION, session="s", user="ana")
        with pytest.raises(UnknownSession):
            await flywheel.ask(FOLLOW_UP, session="s", user="ben")
        assert oracle.calls == 1
        assert len((await flywheel.sessions.show("s")).turns) == 1
        assert [s.id for s in (await flywheel.sessions.list(user="ben")).sessions] == []
    # The same in a process that has not seen the session.
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        with pytest.raises(UnknownSession):
            await flywheel.ask(FOLLOW_UP, session="s", user="ben")


async def test_another_user_s_session_is_not_there_either_while_redis_is_away(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        await flywheel.ask(QUESTION, session="s", user="ana")
        valkey.stop()
        with pytest.raises(UnknownSession):
            await flywheel.ask(FOLLOW_UP, session="s", user="ben")
        assert oracle.calls == 1
        mine = await flywheel.ask(FOLLOW_UP, session="s", user="ana")
        assert [e.question for e in oracle.asked[-1].history] == [QUESTION]
        assert came(mine) == ("bypass", "store_unavailable")


async def test_questions_asked_in_one_session_at_the_same_time(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        questions = [f"What is the number {n} called in Redis?" for n in range(40)]
        answers = await asyncio.gather(*(flywheel.ask(question, session="s") for question in questions))
        assert all(question in answer.text for question, answer in zip(questions, answers, strict=True))
        thread = await flywheel.sessions.show("s")
        assert sorted(t.question for t in thread.turns) == sorted(questions)
        assert thread.session.turns == 40
        last = await flywheel.ask(FOLLOW_UP, session="s")
        newest = [turn.id for turn in thread.turns]
        assert (last.context[0], last.context[-5:]) == (newest[0], tuple(newest[-5:]))
        assert [turn for turn in newest if turn in last.context] == list(
            last.context
        )  # some of those between, in order


@pytest.mark.parametrize(
    ("sharing", "directives"), [(Sharing.SESSION, None), (Sharing.USER, None), (Sharing.TEAM, PRIVATE)]
)
async def test_two_users_who_begin_one_session_at_once_get_nothing_of_each_other(
    valkey: Server, tmp_path: Path, sharing: Sharing, directives: Directives | None
) -> None:
    begun, go_on = asyncio.Semaphore(0), asyncio.Event()
    asked: list[FlowQuestion] = []

    async def flow(question: FlowQuestion) -> str:
        asked.append(question)
        begun.release()
        await go_on.wait()
        return f"answer {len(asked)} to {question.user}"

    async with opened(valkey, tmp_path, {"flow": (flow, {"sharing": sharing})}) as flywheel:
        ana, ben = (
            asyncio.create_task(flywheel.ask(question, session="one", user=user, directives=directives))
            for user, question in (("ana", QUESTION), ("ben", QUESTION))
        )
        for _ in range(2):
            await asyncio.wait_for(begun.acquire(), 20)  # neither joins the other
        go_on.set()
        first, second = await ana, await ben
        assert {came(first), came(second)} == {("miss", "not_stored")}
        assert [first.remembered, second.remembered].count(True) == 1
        owner, other = ("ana", "ben") if first.remembered else ("ben", "ana")
        (warning,) = (second if first.remembered else first).warnings
        assert warning == "This turn was not kept: the session belongs to another user by now."
        # What the other one asked waits nowhere, and goes along with nothing.
        assert not flywheel.outbox.waits()
        assert [turn.user for turn in (await flywheel.sessions.show("one")).turns] == [owner]
        follow_up = await flywheel.ask(FOLLOW_UP, session="one", user=owner, directives=directives)
        assert len(follow_up.context) == len(asked[-1].history) == 1
        with pytest.raises(UnknownSession):
            await flywheel.ask(FOLLOW_UP, session="one", user=other)


async def test_an_answer_that_a_session_keeps_is_its_users_though_no_turn_says_so(
    valkey: Server, tmp_path: Path
) -> None:
    oracle = Oracle()
    flows = {"oracle": (oracle, {"sharing": Sharing.SESSION})}
    async with opened(valkey, tmp_path, flows) as flywheel:
        first = await flywheel.ask(QUESTION, session="one", user="ana")
        with valkey.client() as client:  # as where the turn waits on another machine
            client.delete(*client.keys("afw:v1:default:session:{one}"), *client.keys("*session:{one}:[ti]*"))
        second = await flywheel.ask(QUESTION, session="one", user="ben")
        assert (came(second), second.key == first.key) == (("miss", "not_stored"), False)
        assert [question.user for question in oracle.asked] == ["ana", "ben"]


@pytest.mark.parametrize("begun", [False, True])
async def test_who_begins_a_session_that_was_evicted_gets_nothing_of_it(
    redis_server: Server, tmp_path: Path, begun: bool
) -> None:
    """With allkeys-lru Redis may take what is known of a session, its owner with it, and leave its turns."""
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        await flywheel.ask(QUESTION, session="one", user="ana")
    with redis_server.client() as client:
        client.delete("afw:v1:default:session:{one}")
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        if begun:
            await flywheel.sessions.configure("one", {"temperature": 0})
        for question in (UNMARKED, FOLLOW_UP):
            await flywheel.ask(question, session="one", user="ben")
        assert [one.question for one in oracle.asked[-1].history] == [UNMARKED]
        thread = await flywheel.sessions.show("one")
        assert [turn.question for turn in thread.turns] == [UNMARKED, FOLLOW_UP]
        assert (thread.session.owner, thread.session.turns) == ("ben", 2)
