"""Answered questions, one by one, and what people say of them: with and without a place that traces go to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from afw_command import Afw
from agentic_flywheel import Flywheel
from agentic_flywheel.errors import InputError, UnknownSession, UnknownTurn
from agentic_flywheel.model import Directives
from agentic_flywheel.observe.names import Span
from flywheels import Oracle, opened
from mcp_process import called, connected, refused, resource
from servers import Server, wait_until
from sinks import PUBLIC, SECRET, sink

pytestmark = pytest.mark.anyio

QUESTION = "Which port does the server use?"


@pytest.fixture
def keys(valkey: Server) -> Any:
    def of(session: str) -> list[bytes]:
        with valkey.client() as client:
            return list(client.scan_iter(f"afw:v1:*session:{{{session}}}*"))

    return of


async def asked(flywheel: Flywheel) -> tuple[Any, Any, Any]:
    miss = await flywheel.ask(QUESTION, flow="oracle", session="monday", user="ann", intent="setup")
    hit = await flywheel.ask(QUESTION, flow="oracle", session="tuesday", user="bob")
    follow_up = await flywheel.ask("And which host?", session="monday", user="ann")
    return miss, hit, follow_up


async def test_a_trace_tells_what_became_of_a_question(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        miss, hit, follow_up = await asked(flywheel)
        view = await flywheel.traces.view(hit.trace_id)
        assert view.turn.id == hit.turn_id == hit.trace_id
        assert (view.cache_hit, view.exported, view.link) == (True, "", "")
        assert "trace.exporter" in view.notes[0]
        assert view.response_length == len(hit.text)
        steps = {step.name: step.facts for step in view.steps}
        assert list(steps) == [Span.ROUTE, Span.LOOK_UP, Span.ANSWER, Span.REMEMBER]
        assert steps[Span.LOOK_UP]["key"] == hit.key
        assert steps[Span.ANSWER]["computed_in"] == miss.trace_id
        view = await flywheel.traces.view("last", session="monday")
        assert view.turn.id == follow_up.turn_id
        assert view.previous_trace_id == miss.trace_id
        assert Span.CALL in {step.name for step in view.steps}
        assert (await flywheel.traces.view(miss.turn_id)).name == "setup: Which port does the server use?"
        with pytest.raises(UnknownTurn):
            await flywheel.traces.view("0" * 31 + "1")
        with pytest.raises(UnknownSession):
            await flywheel.traces.view(miss.trace_id, user="bob")
        one_off = await flywheel.ask("What is my own port?", flow="oracle")
        private = await flywheel.ask("Which port?", flow="oracle", directives=Directives(private=True))
        for hidden in (one_off, private):
            with pytest.raises(UnknownTurn):
                await flywheel.traces.view(hidden.trace_id, user="bob")
            assert (await flywheel.traces.view(hidden.trace_id)).turn.id == hidden.turn_id


async def test_judgements_stay_with_their_session_and_go_with_it(valkey: Server, tmp_path: Path, keys: Any) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        miss, hit, follow_up = await asked(flywheel)
        await flywheel.traces.judge(3, id=miss.trace_id, user="ann", feedback="No.")
        await flywheel.traces.judge(9, id=miss.trace_id, user="ann", feedback="Yes!")  # she changed her mind
        await flywheel.traces.judge(6, id=miss.trace_id, by="carl")
        await flywheel.traces.judge(2, id=follow_up.turn_id)
        await flywheel.traces.judge(7, session="monday")
        await flywheel.similar.report(hit.turn_id, "outdated", note="Since June.")
        for wrong in ({"value": 11, "session": "monday"}, {"value": 5}, {"value": 0.5, "id": miss.turn_id}):
            with pytest.raises(InputError):
                await flywheel.traces.judge(**wrong)

        said = [(one.name, one.value, one.why, one.by) for one in (await flywheel.traces.view(miss.turn_id)).judgements]
        assert said == [("quality", 9, "Yes!", "ann"), ("quality", 6, "", "carl"), ("quality", 7, "", "")]
        (report,) = (await flywheel.traces.view(hit.turn_id)).judgements
        assert (report.name, report.value, report.why) == ("reported_outdated", 1, "Since June.")

        page = await flywheel.traces.search()
        assert [one.turn.id for one in page.found] == [follow_up.turn_id, hit.turn_id, miss.turn_id]
        assert [one.quality for one in page.found] == [2, None, 7.5]
        assert [one.turn.id for one in (await flywheel.traces.search(most=5)).found] == [follow_up.turn_id]
        assert [one.turn.id for one in (await flywheel.traces.search("port", least=5)).found] == [miss.turn_id]
        assert (await flywheel.traces.search("port", flow="oracle", session="tuesday")).found[0].turn.id == hit.turn_id
        first = await flywheel.traces.search(limit=2)
        rest = await flywheel.traces.search(limit=2, cursor=first.cursor)
        assert [len(first.found), len(rest.found), rest.cursor] == [2, 1, ""]

        await flywheel.sessions.delete_turn("monday", follow_up.turn_id, dry_run=False)
        assert (await flywheel.traces.search(most=5)).found == ()
        assert len((await flywheel.traces.view(miss.turn_id)).judgements) == 3
        assert b"judged" in b"".join(keys("monday"))
        await flywheel.sessions.delete("monday", dry_run=False)
        assert keys("monday") == []
        with pytest.raises(UnknownTurn):
            await flywheel.traces.judge(5, id=miss.turn_id)


async def test_the_command_and_the_tools_link_and_score(valkey: Server, tmp_path: Path) -> None:
    afw = Afw(tmp_path / "afw", valkey.url)
    with sink() as langfuse:
        afw.environ |= {
            "AFW_TRACE_EXPORTER": "langfuse",
            "AFW_TRACE_TEXT": "on",
            "AFW_TRACE_CLOSE_SECONDS": "60",  # a busy machine may take long to begin
            "LANGFUSE_BASE_URL": langfuse.url,
            "LANGFUSE_PUBLIC_KEY": PUBLIC,
            "LANGFUSE_SECRET_KEY": SECRET,
        }
        answer = afw.json("ask", "Echo this", "--flow", "echo", "--session", "one")
        link = f"{langfuse.url}/trace/{answer['trace_id']}"
        shown = afw.ok("trace", "last", "--quality", "8", "--feedback", "Right, but long.").out
        assert link in shown
        assert "8/10" in shown
        assert afw.json("trace", answer["turn_id"])["link"] == link
        assert afw.run("trace", "nothing").code == 1
        async with connected(afw) as client:
            view = await called(client, "flowise_trace_view", trace_id=answer["trace_id"])
            assert (view["link"], view["cache_hit"], view["exported"]) == (link, False, "langfuse")
            assert view["judgements"][0]["why"] == "Right, but long."
            receipt = await called(client, "flowise_quality_score", score=4, session_id="one", feedback="So so.")
            assert (receipt["session_id"], receipt["trace_id"]) == ("one", "")
            await called(client, "flowise_quality_score", score=2, trace_id=answer["trace_id"], user_id="ann")
            page = await called(client, "flowise_trace_search", max_score=6)
            assert [one["trace_id"] for one in page["found"]] == [answer["trace_id"]]
            assert page["found"][0]["quality"] == 5
            traces = await resource(client, "flowise://traces")
            assert traces["found"][0]["link"] == link
            assert (await refused(client, "flowise_trace_view", trace_id="nothing"))["error_type"] == "unknown_turn"
            wait_until(lambda: len(langfuse.scores) == 3, "the scores", 120)
    scores = {score["id"]: score for score in langfuse.scores}
    assert len(scores) == 3
    by_value = {score["value"]: score for score in langfuse.scores}
    assert by_value[8]["traceId"] == by_value[2]["traceId"] == answer["trace_id"]
    assert (by_value[8]["dataType"], by_value[8]["comment"]) == ("NUMERIC", "Right, but long.")
    assert (by_value[4]["sessionId"], "traceId" in by_value[4]) == ("one", False)
