"""What asks for a place in the FAQ by itself, with what answer, and what never does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Directives, Flywheel
from agentic_flywheel.curated import FaqCandidate, FaqState, FaqView
from agentic_flywheel.errors import EditConflict, InputError, UnknownFaqEntry
from agentic_flywheel.model import Origin, Sharing
from flywheels import Oracle, opened, text_anywhere
from meanings import Words
from servers import Server

pytestmark = pytest.mark.anyio

QUESTION = "How do I reset the router password?"


async def ask(
    flywheel: Flywheel, question: str = QUESTION, *, users: Sequence[str] = ("u", "v", "w"), **more: Any
) -> None:
    for user in users:
        await flywheel.ask(question, **{"flow": "oracle", "user": user} | more)


async def candidates(flywheel: Flywheel, **more: Any) -> Sequence[FaqCandidate]:
    return (await flywheel.faq.list(**more)).candidates


async def test_a_question_of_many_asks_for_a_place_and_gets_it(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        await ask(flywheel, users=["u", "u", "u"])
        assert await candidates(flywheel) == (), "one person who asks often is not many"
        await ask(flywheel, users=["v"])
        (one,) = await candidates(flywheel)
        assert (one.question, one.flow, one.asked, one.askers) == (QUESTION, "oracle", 4, 2)
        assert one.answer == f"oracle 1: {QUESTION}"
        assert (await flywheel.faq.candidate(one.id[:8])).id == one.id
        view = await flywheel.faq.approve(one.id[:8], owner="ann", by="ann")
        assert (view.state, view.entry.cluster) == (FaqState.PUBLISHED, one.id)
        answer = await flywheel.ask(QUESTION)
        assert (answer.source, answer.faq, answer.text) == (Origin.FAQ, view.id, one.answer)
        assert [change.what for change in await flywheel.faq.history(view.id)] == ["added", "approved"]
        await ask(flywheel)
        assert await candidates(flywheel) == ()
        assert oracle.calls == 1


async def test_wordings_that_were_taken_for_one_question_come_along(valkey: Server, tmp_path: Path) -> None:
    given = {"embedder": Words(), "comparer": lambda one, two: one.answer == two.answer, "draw": lambda: 1.0}
    similar = {"similar_mode": "fixed", "similar_floor": 0.97}
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, given=given, **similar) as flywheel:
        assert await flywheel.similar.ready()
        await ask(flywheel)
        await ask(flywheel, "How can I reset the router password?", users=["x"])
        (one,) = await candidates(flywheel)
        assert (one.asked, one.wordings) == (4, ("How can I reset the router password?",))
        view = await flywheel.faq.approve(one.id, owner="ann")
        assert (await flywheel.ask("how can i reset the router password")).faq == view.id


async def test_how_many_are_many_is_a_setting(valkey: Server, tmp_path: Path) -> None:
    settings = {"faq_least_asked": 5, "faq_least_askers": 4}
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, **settings) as flywheel:
        await ask(flywheel, users=["u", "v", "w", "w"])
        assert await candidates(flywheel) == ()
        await ask(flywheel, users=["x"])
        assert len(await candidates(flywheel)) == 1
        assert await candidates(flywheel, flow="oracle") == await candidates(flywheel)


async def test_what_was_turned_down_does_not_come_again(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await ask(flywheel)
        (one,) = await candidates(flywheel)
        await flywheel.faq.retire(one.id, reason="Nobody needs it.", by="ann", dry_run=True)
        assert len(await candidates(flywheel)) == 1
        await flywheel.faq.retire(one.id, reason="Nobody needs it.", by="ann", dry_run=False)
        await ask(flywheel)
        listed = await flywheel.faq.list(retired=True)
        assert listed.candidates == ()
        (kept,) = listed.entries
        assert kept.state is FaqState.RETIRED
        assert (await flywheel.faq.list()).entries == ()
        await ask(flywheel, "What else is there to know?")
        (other,) = await candidates(flywheel)
        with pytest.raises(InputError, match="nothing to remove"):
            await flywheel.faq.retire(other.id, purge=True, dry_run=False)
        await flywheel.faq.retire(kept.id, purge=True, dry_run=False)
        assert {one.question for one in await candidates(flywheel)} == {QUESTION, "What else is there to know?"}


async def test_two_who_begin_an_entry_of_one_candidate_make_one(valkey: Server, tmp_path: Path) -> None:
    flows = {"oracle": Oracle()}
    async with opened(valkey, tmp_path, flows) as one, opened(valkey, tmp_path, flows) as other:
        await ask(one)
        (candidate,) = await candidates(one)
        opening = await other.faq._open(candidate.id, 0.0, "bob")
        first = await one.faq.edit(candidate.id, answer="Ann's words.", by="ann")
        with pytest.raises(EditConflict, match="ann has"):
            await other.faq._books.put(opening, opening.entry, by="bob", at=0.0)
        with pytest.raises(UnknownFaqEntry):
            await other.faq.edit(candidate.id, answer="Bob's words.", by="bob")
        assert [view.id for view in await one.faq.entries()] == [first.id]


async def test_an_answer_that_was_reported_is_not_offered(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await ask(flywheel)
        answer = await flywheel.ask(QUESTION, flow="oracle", session="s")
        await flywheel.similar.report(answer.turn_id, "wrong")
        (one,) = await candidates(flywheel)
        assert one.answer == ""
        with pytest.raises(InputError, match="no answer yet"):
            await flywheel.faq.approve(one.id, owner="ann")
        await flywheel.ask(QUESTION, flow="oracle")
        (one,) = await candidates(flywheel)
        assert one.answer == f"oracle 2: {QUESTION}", "what the flow said afterwards may be offered"


async def test_a_reported_answer_that_comes_back_from_a_backup_is_not_offered(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await ask(flywheel)
        await flywheel.backup.export(tmp_path / "b", sections=["entries"])
        answer = await flywheel.ask(QUESTION, flow="oracle", session="s")
        await flywheel.similar.report(answer.turn_id, "outdated")
        await flywheel.backup.restore(tmp_path / "b")
        (one,) = await candidates(flywheel)
        assert one.answer == ""
        again = await flywheel.ask(QUESTION, flow="oracle")
        assert (again.outcome, again.text) == ("miss", f"oracle 2: {QUESTION}")


async def test_an_answer_of_an_older_configuration_is_not_offered(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": (Oracle(), {"options": {"version": "1"}})}) as flywheel:
        await ask(flywheel)
        assert [one.answer for one in await candidates(flywheel)] == [f"oracle 1: {QUESTION}"]
    async with opened(valkey, tmp_path, {"oracle": (Oracle(), {"options": {"version": "2"}})}) as flywheel:
        assert [one.answer for one in await candidates(flywheel)] == [""]


async def test_what_the_team_may_not_see_never_asks_for_a_place(valkey: Server, tmp_path: Path) -> None:
    flows = {"oracle": Oracle(), "closed": (Oracle(), {"sharing": Sharing.USER})}
    async with opened(valkey, tmp_path, flows) as flywheel:
        await ask(flywheel, "What is in my xyzzy account?")
        await ask(flywheel, "Which xyzzy is private?", directives=Directives(private=True))
        await ask(flywheel, "Which xyzzy is kept nowhere?", directives=Directives(no_store=True))
        await ask(flywheel, "Which xyzzy is of one user?", flow="closed")
        await ask(flywheel, "Which xyzzy needs a setting?", config={"temperature": 0})
        for user in "uvw":
            await flywheel.ask("Which things are there in the house?", session=user, user=user, flow="oracle")
            await flywheel.ask("And what about that xyzzy?", session=user, user=user)
        found = await candidates(flywheel)
        assert [one.question for one in found] == ["Which things are there in the house?"]
        assert "xyzzy" not in repr(await flywheel.faq.list(retired=True))


async def test_a_question_that_was_called_private_is_not_even_named(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await ask(flywheel, "Which code opens the xyzzy door?")
        (one,) = await candidates(flywheel)
        answer = await flywheel.ask("Which code opens the xyzzy door?", flow="oracle", session="s")
        await flywheel.similar.report(answer.turn_id, "private")
        assert await candidates(flywheel) == ()
        with pytest.raises(UnknownFaqEntry):
            await flywheel.faq.approve(one.id, owner="ann")


async def test_a_mark_that_came_with_a_backup_counts_as_well(valkey: Server, tmp_path: Path) -> None:
    flows = {"oracle": Oracle()}
    async with opened(valkey, tmp_path, flows) as one, opened(valkey, tmp_path, flows, tenant="other") as other:
        answer = await one.ask("Which code opens the xyzzy door?", flow="oracle", session="s")
        await one.similar.report(answer.turn_id, "private")
        await one.backup.export(tmp_path / "b", sections=["entries"])
        await ask(other, "Which code opens the xyzzy door?")
        assert len(await candidates(other)) == 1
        await other.backup.restore(tmp_path / "b")
        assert await candidates(other) == ()


async def test_what_is_deleted_leaves_no_trace_in_the_faq(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        for user in "uvw":
            await flywheel.ask("Which code opens the xyzzy door?", flow="oracle", user=user, session=user)
        (one,) = await candidates(flywheel)
        await flywheel.faq.edit(one.id, answer="The xyzzy code.")
        for session in "uvw":
            await flywheel.cache.clear(session=session, dry_run=False)
            await flywheel.sessions.delete(session, dry_run=False)
        assert (await flywheel.faq.list(retired=True)).entries == ()
        assert await candidates(flywheel) == ()
        await flywheel.flush()
        # What the flow said is passed on to those who wait for it, and gone 15 s later.
        assert [key for key in text_anywhere(valkey, "xyzzy") if b":lease:" not in key] == []


RESET, FORGOTTEN, RESTORED = QUESTION, "Router password forgotten: how to reset it?", "Reset of a router's password"
LOGS = "Where are the access logs kept?"


def same(question: str) -> str:
    return "The logs are under /var/log." if "log" in question else "Hold the button for ten seconds, then choose one."


async def test_what_seems_to_ask_the_same_is_one_candidate_for_a_person_to_judge(
    redis_server: Server, tmp_path: Path
) -> None:
    async with opened(redis_server, tmp_path, {"oracle": same}) as flywheel:
        await ask(flywheel, RESET, users=["u", "v", "w"])
        await ask(flywheel, LOGS, users=["u", "v", "v", "v"])
        await ask(flywheel, FORGOTTEN, users=["u", "u"])
        await ask(flywheel, RESTORED, users=["x"])
        one, logs = await candidates(flywheel)
        assert (one.question, one.wordings, set(one.alike)) == (RESET, (), {FORGOTTEN, RESTORED})
        assert (one.asked, one.askers, logs.asked, logs.alike) == (6, 4, 4, ())
        assert {(await flywheel.faq.candidate(id_)).id for id_ in one.covers} == {one.id}
        assert [each.asked for each in await flywheel.popular.list()] == [4, 3, 2, 1], "nothing is counted otherwise"

        # A person says that one of them asks something else: it never comes back to it.
        split = await flywheel.faq.split(one.id[:8], RESTORED.upper())
        assert (split.asked, split.alike) == (5, (FORGOTTEN,))
        with pytest.raises(InputError, match="none of its other wordings"):
            await flywheel.faq.split(one.id, RESTORED)
        # ... and that the other one asks the same: it is a wording, and counted with it.
        joined = await flywheel.faq.join(one.id)
        assert (joined.asked, joined.askers, joined.wordings, joined.alike) == (5, 3, (FORGOTTEN,), ())
        assert [each.asked for each in await flywheel.popular.list()] == [5, 4, 1]

        view = await flywheel.faq.approve(one.id, owner="ann")
        assert (await flywheel.ask(FORGOTTEN)).faq == view.id
        assert (await flywheel.ask(RESTORED)).faq == ""
        # What may well belong to an entry says so, and is joined with it by a person.
        await ask(flywheel, "How is the router password reset?", users=["u", "v", "w"])
        logs, late = await candidates(flywheel)
        assert (logs.near, late.near) == ("", view.id)
        longer = await flywheel.faq.join(view.id, late.id)
        assert longer.entry.wordings == (FORGOTTEN, "How is the router password reset?")
        assert longer.entry.pending, "what is served changes once somebody approves it"
        shorter = await flywheel.faq.split(view.id, FORGOTTEN)
        assert shorter.entry.wordings == ("How is the router password reset?",)


async def test_ids_that_are_joined_may_be_shortened_and_are_never_taken_for_words(
    valkey: Server, tmp_path: Path
) -> None:
    async with opened(valkey, tmp_path, {"oracle": same, "other": same}) as flywheel:
        for question in (RESET, LOGS, "What is the colour of the logo?"):
            await ask(flywheel, question, users=["u", "v", "w"], flow="oracle")
        await ask(flywheel, "Who paints the fence?", users=["u", "v", "w"], flow="other")
        found = {one.question: one for one in await candidates(flywheel)}
        ids = {question: one.id[:12] for question, one in found.items()}
        for one, other in ((RESET, LOGS), (LOGS, RESET)):
            joined = await flywheel.faq.join(ids[one], ids[other])
            assert isinstance(joined, FaqCandidate)
            assert (joined.asked, joined.question, joined.wordings) == (6, one, (other,)), "of equals the one it was"
            await flywheel.faq.split(joined.id, other)
        joined = await flywheel.faq.join(ids[RESET], ids[LOGS])
        assert isinstance(joined, FaqCandidate)
        entry = await flywheel.faq.approve(joined.id, owner="ann")
        longer = await flywheel.faq.join(entry.id, ids["What is the colour of the logo?"][:8], "dead beef")
        assert isinstance(longer, FaqView)
        assert longer.entry.wordings[-2:] == ("What is the colour of the logo?", "dead beef")
        with pytest.raises(InputError, match="asks the flow 'other'"):
            await flywheel.faq.join(entry.id, ids["Who paints the fence?"])
        with pytest.raises(InputError, match="is an entry of the FAQ"):
            await flywheel.faq.join(ids["Who paints the fence?"], entry.id)
        with pytest.raises(UnknownFaqEntry, match="0123456789ab"):
            await flywheel.faq.join(entry.id, "0123456789ab")
        assert (await flywheel.faq.show(entry.id)).entry.wordings == longer.entry.wordings


async def test_one_person_in_many_words_is_not_many(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": same}) as flywheel:
        for question in (RESET, FORGOTTEN, RESTORED):
            await ask(flywheel, question, users=["u"])
        assert await candidates(flywheel) == ()
        await ask(flywheel, FORGOTTEN, users=["v"])
        (one,) = await candidates(flywheel)
        assert (one.question, one.asked, one.askers) == (FORGOTTEN, 4, 2)
        assert (await flywheel.faq.split(one.id, RESET, RESTORED)) is None, "alone it was not asked often enough"


async def test_what_was_turned_down_is_turned_down_in_all_its_words(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": same}) as flywheel:
        await ask(flywheel, RESET)
        await ask(flywheel, FORGOTTEN)
        (one,) = await candidates(flywheel)
        await flywheel.faq.retire(one.id, by="ann", dry_run=False)
        assert await candidates(flywheel) == ()


async def test_a_deleted_wording_is_in_no_candidate(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": same}) as flywheel:
        await ask(flywheel, RESET)
        await flywheel.ask(FORGOTTEN, flow="oracle", user="x", session="s")
        (one,) = await candidates(flywheel)
        assert one.alike == (FORGOTTEN,)
        await flywheel.sessions.delete("s", dry_run=False)
        (left,) = await candidates(flywheel)
        assert (left.alike, left.asked) == ((), 3)
