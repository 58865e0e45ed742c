"""The FAQ in people's hands: two who edit at once, history, what may be picked, reports, deletion, documents."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Directives, Flywheel
from agentic_flywheel.curated import FaqState, FaqView
from agentic_flywheel.errors import EditConflict, InputError, UnknownFaqEntry, UnknownFlow, UnknownTurn
from agentic_flywheel.model import Origin, Outcome, Sharing, Source
from flywheels import Oracle, everything, opened, text_anywhere
from servers import Server

pytestmark = pytest.mark.anyio

QUESTION = "How do I reset the router password?"
ANSWER = "Hold the button for ten seconds."


async def approved(flywheel: Flywheel, question: str = QUESTION, answer: str = ANSWER, **more: Any) -> FaqView:
    draft = await flywheel.faq.add(question, answer, flow="oracle", by="ann", **more)
    return await flywheel.faq.approve(draft.id, owner="ann", by="ann")


async def test_of_two_who_edit_the_same_entry_the_second_is_told(redis_server: Server, tmp_path: Path) -> None:
    flows = {"oracle": Oracle()}
    async with opened(redis_server, tmp_path, flows) as one, opened(redis_server, tmp_path, flows) as other:
        draft = await one.faq.add(QUESTION, ANSWER, flow="oracle", by="ann")
        seen = draft.entry.revision
        await one.faq.edit(draft.id, answer="Ann's words.", by="ann", revision=seen)
        with pytest.raises(EditConflict, match="ann has changed the entry") as caught:
            await other.faq.edit(draft.id, answer="Bob's words.", by="bob", revision=seen)
        assert caught.value.details["revision"] == 2
        with pytest.raises(EditConflict):
            await other.faq.approve(draft.id, owner="bob", revision=seen)
        assert (await one.faq.show(draft.id)).entry.answer == "Ann's words."
        assert (await other.faq.approve(draft.id, owner="bob", revision=2)).state is FaqState.PUBLISHED


async def test_of_many_at_the_same_moment_none_overwrites_another(redis_server: Server, tmp_path: Path) -> None:
    flows = {"oracle": Oracle()}
    async with opened(redis_server, tmp_path, flows) as one, opened(redis_server, tmp_path, flows) as other:
        draft = await one.faq.add(QUESTION, ANSWER, flow="oracle")
        edits = [
            flywheel.faq.edit(draft.id, answer=f"{number}", by=f"{number}", revision=1)
            for number, flywheel in enumerate([one, other] * 4)
        ]
        ends = await asyncio.gather(*edits, return_exceptions=True)
        assert sum(isinstance(end, EditConflict) for end in ends) == len(ends) - 1
        (won,) = (end for end in ends if isinstance(end, FaqView))
        assert (await one.faq.show(draft.id)).entry.answer == won.entry.answer
        assert [change.what for change in await one.faq.history(draft.id)] == ["added", "edited"]
        # Entries of their own are no conflict, although they stand in one book.
        added = await asyncio.gather(
            *(
                flywheel.faq.add(f"What is thing {n}?", "It.", flow="oracle")
                for n, flywheel in enumerate([one, other] * 4)
            )
        )
        assert len({view.id for view in added}) == len(await one.faq.entries()) - 1 == 8


async def test_history_says_who_did_what_and_what_was_said(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        view = await approved(flywheel)
        await flywheel.faq.edit(view.id, answer="Other words.", wordings=["Router reset?"], by="bob")
        review = time.time() + 86400 * 10
        await flywheel.faq.approve(view.id, owner="eve", review_at=review, by="bob")
        await flywheel.faq.retire(view.id, reason="No router any more.", by="eve", dry_run=False)
        history = await flywheel.faq.history(view.id)
        assert [(change.what, change.by, change.revision) for change in history] == [
            ("added", "ann", 1),
            ("approved", "ann", 2),
            ("edited", "bob", 3),
            ("approved", "bob", 4),
            ("retired", "eve", 5),
        ]
        assert history[0].said == {"question": QUESTION, "answer": ANSWER}
        assert history[2].said == {"answer": "Other words.", "wordings": "Router reset?"}
        assert history[3].said["owner"] == "eve"
        assert history[4].said == {"reason": "No router any more."}
        again = await flywheel.faq.approve(view.id, owner="ann")
        assert again.state is FaqState.PUBLISHED
        assert (await flywheel.ask(QUESTION)).text == "Other words."


async def test_no_two_entries_answer_the_same_words(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle(), "other": Oracle()}) as flywheel:
        view = await approved(flywheel, wordings=["Router reset?"])
        twin = await flywheel.faq.add(
            "How is a router reset?", "Differently.", flow="oracle", wordings=["router RESET"]
        )
        with pytest.raises(InputError, match=f"answered by the entry {view.id}"):
            await flywheel.faq.approve(twin.id, owner="ann")
        elsewhere = await flywheel.faq.add(QUESTION, "Other flow.", flow="other")
        await flywheel.faq.approve(elsewhere.id, owner="ann")
        assert (await flywheel.ask(QUESTION, flow="other")).text == "Other flow."
        await flywheel.faq.retire(view.id, dry_run=False)
        assert (await flywheel.faq.approve(twin.id, owner="ann")).state is FaqState.PUBLISHED


async def test_what_cannot_be_approved_says_why(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        with pytest.raises(UnknownFlow):
            await flywheel.faq.add(QUESTION, ANSWER, flow="orcale")
        with pytest.raises(InputError, match="of which flow"):
            await flywheel.faq.add(QUESTION, ANSWER)
        empty = await flywheel.faq.add(QUESTION, flow="oracle")
        with pytest.raises(InputError, match="no answer yet"):
            await flywheel.faq.approve(empty.id, owner="ann")
        draft = await flywheel.faq.edit(empty.id, answer=ANSWER)
        with pytest.raises(InputError, match="has an owner"):
            await flywheel.faq.approve(draft.id)
        for unknown in ("nothing", "zz", draft.id + "0"):
            with pytest.raises(UnknownFaqEntry):
                await flywheel.faq.approve(unknown, owner="ann")
        assert (await flywheel.faq.approve(draft.id[:6], owner="ann")).state is FaqState.PUBLISHED
        assert (await flywheel.ask(QUESTION)).source is Origin.FAQ


async def test_the_answer_of_a_turn_can_be_picked_with_its_sources(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        answer = await flywheel.ask(QUESTION, session="s")
        view = await flywheel.faq.add(turn=answer.turn_id, by="ann")
        entry = view.entry
        assert (entry.question, entry.answer, entry.flow) == (QUESTION, answer.text, "oracle")
        assert (entry.turn_id, entry.session_id, entry.trace_id) == (answer.turn_id, "s", answer.trace_id)
        assert entry.flow_ms == answer.flow_ms
        await flywheel.faq.approve(view.id, owner="ann")
        served = await flywheel.ask(QUESTION)
        assert served.origin_trace_id == answer.trace_id
        published = (await flywheel.faq.show(view.id)).entry.published
        assert published is not None
        assert published.flow_ms == answer.flow_ms, "so that the time it saves is known"
        rewritten = await flywheel.faq.edit(view.id, answer="In other words.")
        assert (rewritten.entry.trace_id, rewritten.entry.turn_id) == ("", answer.turn_id)
        other = await flywheel.ask("Which router is it?", session="s", directives=Directives(standalone=True))
        picked = await flywheel.faq.edit(view.id, turn=other.turn_id)
        assert (picked.entry.question, picked.entry.answer) == (QUESTION, other.text)


async def test_what_the_team_may_not_see_cannot_be_picked(valkey: Server, tmp_path: Path) -> None:
    flows = {"oracle": Oracle(), "closed": (Oracle(), {"sharing": Sharing.USER})}
    async with opened(valkey, tmp_path, flows) as flywheel:

        async def refused(question: str, why: str, **more: Any) -> None:
            answer = await flywheel.ask(question, **{"flow": "oracle", "session": "s"} | more)
            with pytest.raises(InputError, match=why):
                await flywheel.faq.add(turn=answer.turn_id)

        await refused("Which secret is kept in the router?", "private", directives=Directives(private=True))
        await refused("What is in my router?", "belongs to the asker", directives=Directives(standalone=True))
        await flywheel.ask("Which router is there in the hall?", session="w", flow="oracle")
        await refused("And what about that one?", "earlier turns", session="w")
        await refused("Which router is it?", "does not share", flow="closed", session="t", user="u")
        reported = await flywheel.ask("Which cable goes into the router?", session="v")
        await flywheel.similar.report(reported.turn_id, "wrong")
        with pytest.raises(InputError, match="reported"):
            await flywheel.faq.add(turn=reported.turn_id)
        with pytest.raises(UnknownTurn):
            await flywheel.faq.add(turn="t" * 32)


@pytest.mark.parametrize("kind", ["wrong", "outdated"])
async def test_a_report_takes_it_out_until_somebody_approves_it_again(
    valkey: Server, tmp_path: Path, kind: str
) -> None:
    flows = {"oracle": Oracle()}
    async with opened(valkey, tmp_path, flows) as flywheel, opened(valkey, tmp_path, flows) as other:
        view = await approved(flywheel)
        answer = await other.ask(QUESTION, session="s")
        assert answer.faq == view.id
        receipt, fresh = await other.similar.report(answer.turn_id, kind, note="It is blue now.", user="u", fresh=True)
        assert any("FAQ" in done for done in receipt.done)
        assert fresh is not None
        assert fresh.source is Origin.FLOW
        assert (await flywheel.ask(QUESTION)).source is Origin.CACHE
        reported = await flywheel.faq.show(view.id)
        assert (reported.state, reported.entry.reported) == (FaqState.REPORTED, kind)
        assert (await flywheel.faq.history(view.id))[-1].said == {"reason": kind, "note": "It is blue now."}
        assert (await flywheel.faq.list()).entries[0].id == view.id
        await flywheel.faq.approve(view.id)
        assert (await other.ask(QUESTION)).faq == view.id
        assert (await flywheel.faq.show(view.id)).entry.reported == ""


async def test_an_answer_that_is_called_private_leaves_nothing_behind(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        view = await approved(flywheel, answer="The code is xyzzy.")
        await flywheel.faq.edit(view.id, answer="The code is xyzzy, still.")
        answer = await flywheel.ask(QUESTION, session="s")
        await flywheel.similar.report(answer.turn_id, "private")
        with pytest.raises(UnknownFaqEntry):
            await flywheel.faq.show(view.id)
        assert (await flywheel.ask(QUESTION)).outcome is Outcome.BYPASS
        await flywheel.sessions.delete("s", dry_run=False)
        await flywheel.flush()
        assert text_anywhere(valkey, "xyzzy") == []
        again = await flywheel.faq.add(QUESTION, ANSWER, flow="oracle")
        with pytest.raises(InputError, match="called private"):
            await flywheel.faq.approve(again.id, owner="ann")


async def test_purging_removes_every_word(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        view = await approved(flywheel, question="What does xyzzy do?", answer="xyzzy opens it.")
        assert text_anywhere(valkey, "xyzzy")
        tried = await flywheel.faq.retire(view.id, purge=True, dry_run=True)
        assert (tried.dry_run, tried.removed, tried.unreachable) == (True, {"FAQ entries": 1}, 1)
        before = everything(valkey)
        await flywheel.faq.retire(view.id, purge=True, dry_run=True)
        assert everything(valkey) == before
        done = await flywheel.faq.retire(view.id, purge=True, dry_run=False)
        assert done.removed == {"FAQ entries": 1}
        assert text_anywhere(valkey, "xyzzy") == []


async def test_a_draft_goes_with_the_session_that_its_answer_is_from(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        first = await flywheel.ask("What does xyzzy do?", session="s")
        second = await flywheel.ask("What does plugh do?", session="s", directives=Directives(standalone=True))
        draft = await flywheel.faq.add(turn=first.turn_id)
        published = await flywheel.faq.add(turn=second.turn_id)
        await flywheel.faq.approve(published.id, owner="ann")
        await flywheel.sessions.delete("s", dry_run=True)
        assert len(await flywheel.faq.entries()) == 2
        await flywheel.sessions.delete("s", dry_run=False)
        assert [view.id for view in await flywheel.faq.entries()] == [published.id]
        with pytest.raises(UnknownFaqEntry):
            await flywheel.faq.history(draft.id)


async def test_documents_hold_what_is_served(valkey: Server, tmp_path: Path) -> None:
    flows = {"oracle": (Oracle(), {"name": "The Oracle"}), "other": Oracle()}
    async with opened(valkey, tmp_path, flows) as flywheel:
        view = await approved(flywheel, answer="# Hold it\n\nFor ten seconds.", wordings=["Router reset?"])
        await flywheel.faq.add("What is not approved?", "Hidden.", flow="oracle")
        gone = await approved(flywheel, question="What is retired?", answer="Hidden.")
        await flywheel.faq.retire(gone.id, dry_run=False)
        await flywheel.faq.edit(view.id, answer="Hidden: not approved yet.")
        text = await flywheel.faq.export()
        assert "## The Oracle\n\n### How do I reset the router password?" in text
        assert "Also asked as: Router reset?" in text
        assert "#### Hold it" in text
        assert "owner ann" in text
        assert "Hidden" not in text
        document = json.loads(await flywheel.faq.export(form="json"))
        assert [entry["answer"] for entry in document["entries"]] == ["# Hold it\n\nFor ten seconds."]
        assert document["entries"][0]["state"] == "published"
        assert json.loads(await flywheel.faq.export(form="json", flow="other"))["entries"] == []
        with pytest.raises(InputError, match="markdown or json"):
            await flywheel.faq.export(form="html")


async def test_what_is_served_is_found_by_its_words(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        router = await approved(flywheel, wordings=["Router reset?"])
        answer = await approved(flywheel, question="Where does the printer stand?", answer="Beside the router.")
        await flywheel.faq.add("What about drafts of routers?", "Hidden.", flow="oracle")
        assert [view.id for view in await flywheel.faq.published()] == [router.id, answer.id]
        assert [view.id for view in await flywheel.faq.published(query="routers")] == [router.id, answer.id]
        assert [view.id for view in await flywheel.faq.published(query="printers, where?")] == [answer.id]
        assert await flywheel.faq.published(query="zebra") == []
        assert (await flywheel.faq.get(router.id)).id == router.id


def test_sources_are_shown_with_their_places() -> None:
    from agentic_flywheel.curated import FaqEntry, Publication
    from agentic_flywheel.insight.faq_page import as_markdown

    sources = (Source("The manual", "manual.md#reset"), Source("manual.md", "manual.md"))
    said = Publication("Why?", (), "So.", "fp", 0.0, "ann", "ann", sources=sources)
    entry = FaqEntry("id", "f", "Why?", (), "So.", 0.0, 0.0, "ann", published=said)
    text = as_markdown([FaqView(state=FaqState.PUBLISHED, entry=entry)], {})
    assert "- The manual (manual.md#reset)\n- manual.md\n" in text
