"""Traces: what arrives at a real server that takes OTLP, from every interface; and questions that go on without one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from afw_command import Afw
from agentic_flywheel import Flywheel
from agentic_flywheel.errors import FlowError, NotCached
from agentic_flywheel.flows.protocol import FlowQuestion
from agentic_flywheel.model import Answer, Directives, Outcome
from agentic_flywheel.observe.names import Attribute, Langfuse, Score, Span
from agentic_flywheel.observe.spans import span_id
from flywheels import Oracle, opened, until
from http_process import served
from mcp_process import called, connected
from model_stubs import StubOpenAI
from servers import Server, wait_until
from sinks import PUBLIC, SECRET, Received, Sink, nobody, sink

pytestmark = pytest.mark.anyio

ALONE = [Span.ROUTE, Span.IDENTIFY, Span.LOOK_UP, Span.VERIFY, Span.DECIDE, Span.ANSWER, Span.REMEMBER]
IN_SESSION = sorted([*ALONE, Span.RECALL])
QUESTION = "Which port does the server use?"


@pytest.fixture
def taken() -> Iterator[Sink]:
    with sink() as received:
        yield received


@asynccontextmanager
async def tracing(
    server: Server, folder: Path, received: Sink | str, flows: Any = None, kind: str = "otlp", **more: Any
) -> AsyncIterator[Flywheel]:
    url = received if isinstance(received, str) else received.url
    where: dict[str, Any] = {"trace_exporter": kind}
    if kind == "langfuse":
        where |= {"environ_LANGFUSE_BASE_URL": url, "environ_LANGFUSE_PUBLIC_KEY": PUBLIC}
        where |= {"environ_LANGFUSE_SECRET_KEY": SECRET}
    else:
        where["trace_endpoint"] = f"{url}/v1/traces"
    async with opened(server, folder, {"oracle": Oracle()} if flows is None else flows, **where, **more) as flywheel:
        yield flywheel


def spoken(question: str, session: str = "three") -> dict[str, Any]:
    said = [{"role": "user", "content": question}]
    return {"model": "echo", "messages": said, "metadata": {"session_id": session}}


def whole(spans: list[Received]) -> Received:
    (root,) = [span for span in spans if span.name == Span.ASK]
    return root


def under(spans: list[Received], parent: Received) -> list[str]:
    return sorted(span.name for span in spans if span.parent == parent.span)


async def test_each_way_of_a_question_is_one_trace(valkey: Server, tmp_path: Path, taken: Sink) -> None:
    def falls_over(_question: FlowQuestion) -> str:
        raise ValueError("no")

    flows = {"oracle": Oracle(), "broken": falls_over}
    async with tracing(valkey, tmp_path, taken, flows) as flywheel:
        # A young registry file is read with every question, and none is familiar then.
        await until(lambda: flywheel.registry.current() is flywheel.registry.current(), "the registry to settle")
        miss = await flywheel.ask(QUESTION, flow="oracle", user="ann")
        hit = await flywheel.ask(QUESTION, flow="oracle")
        familiar = await flywheel.ask(QUESTION, flow="oracle")
        first = await flywheel.ask(QUESTION, flow="oracle", session="monday")
        follow_up = await flywheel.ask("And which host?", session="monday")
        with pytest.raises(NotCached):
            await flywheel.ask("Never asked", flow="oracle", directives=Directives(only_if_cached=True))
        with pytest.raises(FlowError) as failure:
            await flywheel.ask("Broken?", flow="broken", session="monday")
        failed = failure.value.details["trace_id"]
        streamed = [event async for event in flywheel.stream("A stream?", flow="oracle")][-1]
        assert isinstance(streamed, Answer)

        spans = taken.trace(miss.trace_id, spans=9)
        root = whole(spans)
        assert root.parent == ""
        assert under(spans, root) == sorted(ALONE)
        (answer,) = [span for span in spans if span.name == Span.ANSWER]
        assert under(spans, answer) == [Span.CALL]
        assert root.said[Attribute.OUTCOME] == "miss"
        assert root.said[Attribute.CACHE_HIT] is False
        assert root.said[Attribute.USER] == "ann"
        assert root.said[Attribute.SESSION] == root.said[Attribute.CONVERSATION] == miss.session_id
        assert root.said[Attribute.TURN] == miss.turn_id
        assert root.said[Attribute.ANSWER_LENGTH] == len(miss.text)
        assert root.resource[Attribute.SERVICE_NAME] == "agentic-flywheel"
        assert all(root.start <= span.start <= span.end <= root.end for span in spans)
        (call,) = [span for span in spans if span.name == Span.CALL]
        assert call.said[Attribute.CALL_FOR] == "answer"

        spans = taken.trace(hit.trace_id, spans=8)
        assert under(spans, whole(spans)) == sorted(ALONE)
        for served in (hit, familiar):
            root = whole(taken.trace(served.trace_id, spans=8 if served is hit else 2))
            assert root.said[Attribute.CACHE_HIT] is True
            assert root.said[Attribute.ORIGIN_TRACE] == miss.trace_id == served.origin_trace_id
            assert root.links == ((miss.trace_id, call.span),)
            assert root.said[Attribute.AGE] >= 0
        assert [span.name for span in taken.trace(familiar.trace_id, spans=2)] == [Span.ASK, Span.LOOK_UP]

        spans = taken.trace(follow_up.trace_id, spans=10)
        assert under(spans, whole(spans)) == IN_SESSION
        assert (first.trace_id, span_id(first.turn_id, Span.ASK)) in whole(spans).links
        assert whole(spans).said[Attribute.CONTEXT] == 1
        assert {span.said[Attribute.SESSION] for span in spans} == {"monday"}

        spans = taken.trace(failed, spans=9)
        assert whole(spans).error == "flow_unavailable"
        assert {span.name: span.error for span in spans}[Span.CALL] == "flow_unavailable"
        assert Span.REMEMBER not in under(spans, whole(spans))

        taken.trace(streamed.trace_id, spans=9)
        refused = [span for span in taken.spans if span.error == "not_cached" and span.name == Span.ASK]
        assert len(refused) == 1
        assert under(taken.trace(refused[0].trace, spans=6), refused[0]) == sorted(ALONE[:-2])
    assert not any({Attribute.QUESTION, Attribute.ANSWER} & span.said.keys() for span in taken.spans)
    assert "port" not in repr(taken.spans)  # text is off unless somebody says otherwise


async def test_callers_of_every_kind_are_traced_alike(valkey: Server, tmp_path: Path, taken: Sink) -> None:
    afw = Afw(tmp_path / "afw", valkey.url)
    afw.environ |= {"AFW_TRACE_EXPORTER": "otlp", "AFW_TRACE_ENDPOINT": f"{taken.url}/v1/traces"}
    afw.environ["AFW_TRACE_CLOSE_SECONDS"] = "60"  # a busy machine may take long to begin

    def arrived(trace: str) -> list[tuple[str, str]]:
        spans = taken.trace(trace, spans=10)
        names = {span.span: span.name for span in spans}
        return sorted((span.name, names.get(span.parent, "")) for span in spans)

    by_command = arrived(afw.json("ask", "Echo this", "--flow", "echo", "--session", "one")["trace_id"])
    assert sorted(name for name, _ in by_command) == sorted([*IN_SESSION, Span.ASK, Span.CALL])
    async with connected(afw) as client:
        said = await called(client, "flowise_query", question="Echo that", flow_override="echo", session_id="two")
        assert arrived(said["trace_id"]) == by_command
    theirs, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with served(afw) as service, service.client() as client:
        answer = client.post("/v1/chat/completions", json=spoken("Echo it all"))
        assert arrived(answer.headers["X-AFW-Trace"]) == by_command
        # Whoever asks within a trace is answered within it.
        for flags, number in (("01", 1), ("00", 2)):
            asked = spoken(f"Echo number {number}")
            within = {"traceparent": f"00-{theirs}-{parent}-{flags}"}
            answer = client.post("/v1/chat/completions", json=asked, headers=within)
            assert answer.headers["X-AFW-Trace"] == theirs
        spans = taken.trace(theirs, spans=10)  # the second one's caller wanted none
        assert whole(spans).parent == parent
        repeated = client.post(
            "/v1/chat/completions", json=asked, headers=within | {"traceparent": f"00-{theirs}-{parent}-01"}
        )
        assert repeated.headers["X-AFW-Trace"] == theirs
        wait_until(lambda: len([span for span in taken.spans if span.trace == theirs]) > 10, "the next question", 120)
        text = client.get("/metrics").text
        assert 'afw_trace_parts_total{end="sent"}' in text
        assert 'afw_trace_parts_total{end="dropped"}' not in text


async def test_langfuse_files_a_question_with_its_session_user_model_and_cost(
    valkey: Server, tmp_path: Path, taken: Sink
) -> None:
    with StubOpenAI() as model:
        flow = f"kind: openai, id: stub, base_url: '{model.url}', type: technical"
        (tmp_path / "flows.yaml").write_text(f"flows:\n  oracle: {{{flow}}}\n")
        more = {"trace_text": "masked", "trace_environment": "tests", "privacy_sensitive": "off"}
        await _asked_with_tokens(valkey, tmp_path, taken, more)


async def _asked_with_tokens(valkey: Server, folder: Path, taken: Sink, more: dict[str, Any]) -> None:
    async with tracing(valkey, folder, taken, {}, "langfuse", **more) as flywheel:
        question = "Which port, ann@example.org?"
        miss = await flywheel.ask(question, flow="oracle", session="Zoë's", user="u" * 240)
        hit = await flywheel.ask(question, flow="oracle", session="other")
        secret = await flywheel.ask("My own port?", flow="oracle", directives=Directives(private=True))
        await flywheel.similar.report(hit.turn_id, "wrong", note="Ask bob@example.org", session="other")
        spans, again = taken.trace(miss.trace_id, spans=10), taken.trace(hit.trace_id, spans=9)
        wait_until(lambda: len(taken.scores) == 1, "the score", 120)
        hidden = taken.trace(secret.trace_id, spans=9)

    root = whole(spans)
    assert root.said[Langfuse.TRACE_NAME] == "oracle: Which port, [e-mail]?"
    assert root.said[Langfuse.INPUT] == "Which port, [e-mail]?"
    assert root.said[Langfuse.TRACE_TAGS] == ("cache:miss", "flow:oracle")
    metadata = {name.removeprefix("langfuse.trace.metadata."): value for name, value in root.said.items()}
    assert metadata["flow_key"] == "oracle"
    assert metadata["cache_hit"] == "false"
    assert metadata["response_length"] == str(len(miss.text))
    assert {span.said[Attribute.SESSION] for span in spans} == {root.said[Attribute.SESSION]}
    assert root.said[Attribute.SESSION].startswith("~")
    for id_ in (root.said[Attribute.SESSION], root.said[Attribute.USER]):
        assert id_.isascii()
        assert len(id_) <= 200
    kinds = {span.name: span.said[Langfuse.KIND] for span in spans}
    assert kinds[Span.ASK] == "agent"
    assert kinds[Span.CALL] == "generation"
    (call,) = [span for span in spans if span.name == Span.CALL]
    assert call.said[Langfuse.MODEL] == "stub"
    assert call.said[Langfuse.USAGE] == '{"input": 3, "output": 5}'
    # Served again: linked, and costing nothing.
    assert whole(again).said["langfuse.trace.metadata.source_trace_id"] == miss.trace_id
    assert whole(again).links[0] == (miss.trace_id, call.span)
    for span in again:
        assert not {Langfuse.MODEL, Langfuse.USAGE, Attribute.TOKENS_IN} & set(span.said)
        assert span.said[Langfuse.KIND] != "generation"
    assert all(Attribute.QUESTION not in span.said for span in hidden)
    (score,) = taken.scores
    assert score["traceId"] == hit.trace_id
    assert score["observationId"] == whole(again).span
    assert (score["name"], score["value"], score["dataType"]) == (Score.REPORTED["wrong"], 1.0, "BOOLEAN")
    assert score["comment"] == "Ask [e-mail]"
    assert {headers["authorization"] for headers in taken.headers} == {"Basic cGstbGYtdGVzdDpzay1sZi10ZXN0"}
    assert {span.resource[Langfuse.ENVIRONMENT] for span in spans} == {"tests"}


async def test_flywheels_that_end_do_not_wait_for_whoever_takes_traces(valkey: Server, tmp_path: Path) -> None:
    """The server hangs for as long as the test runs, and requests would wait for it for ten minutes."""
    patient = {"AFW_TRACE_EXPORTER": "otlp", "AFW_TRACE_TIMEOUT_SECONDS": "600"}
    afw = Afw(tmp_path / "afw", valkey.url)
    with sink("hang") as stuck:
        afw.environ |= {**patient, "AFW_TRACE_ENDPOINT": f"{stuck.url}/v1/traces"}
        assert afw.json("ask", "Echo this", "--flow", "echo")["outcome"] == "miss"
        async with connected(afw) as client:  # has ended when the block has
            assert (await called(client, "flowise_query", question="Echo this"))["outcome"] == "hit"
        with served(afw) as service:
            before = stuck.requests
            with service.client() as client:
                assert client.post("/v1/chat/completions", json=spoken("Echo this")).status_code == 200
            wait_until(lambda: stuck.requests > before, "a trace to be handed over", 120)
            assert service.end() == 0
        assert stuck.spans == []


@pytest.mark.parametrize("how", ["hang", "drip", "refuse", "deny", "absent"])
async def test_questions_are_answered_whatever_becomes_of_their_traces(
    valkey: Server, tmp_path: Path, how: str
) -> None:
    with sink(how) as received:
        url = nobody() if how == "absent" else received.url
        async with tracing(valkey, tmp_path, url, trace_queue=2, trace_timeout_seconds=600) as flywheel:
            asked = 0
            assert flywheel._tracing is not None
            while not flywheel._tracing.delivery.dropped and asked < 1000:
                answer = await flywheel.ask(f"Question {asked}?", flow="oracle", session="s")
                assert answer.outcome is Outcome.MISS
                assert not answer.warnings
                asked += 1
                if how == "deny":
                    break  # refused for good: nothing piles up
            if how == "deny":
                wait_until(lambda: bool(flywheel._tracing.delivery.failed), "the refusal", 120)
                assert "credentials" in flywheel._tracing.delivery.problem
            else:
                assert flywheel._tracing.delivery.dropped
        delivery = flywheel._tracing.delivery
        assert delivery.sent == delivery.waiting == 0


async def test_the_doctor_says_whether_traces_arrive(valkey: Server, tmp_path: Path, taken: Sink) -> None:
    async with tracing(valkey, tmp_path, taken) as flywheel:
        (check,) = [check for check in await flywheel.doctor() if check.name == "traces"]
        assert (check.state, taken.empty) == ("ok", 1)
        assert taken.url in check.message
    for how in ("hang", "refuse", "deny"):
        with sink(how) as received:
            async with tracing(valkey, tmp_path, received, trace_timeout_seconds=0.1) as flywheel:
                (check,) = [check for check in await flywheel.doctor() if check.name == "traces"]
                assert check.state == "warn"
                assert received.url in check.message
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, trace_exporter="langfuse") as flywheel:
        (check,) = [check for check in await flywheel.doctor() if check.name == "traces"]
        assert check.state == "fail"
        assert "LANGFUSE_PUBLIC_KEY" in check.advice
        assert (await flywheel.ask("Still?", flow="oracle")).outcome is Outcome.MISS


def test_nothing_of_tracing_is_imported_where_none_is_made(valkey: Server, tmp_path: Path) -> None:
    program = (
        "import sys, asyncio; from agentic_flywheel import Flywheel\n"
        "async def main():\n"
        "    async with Flywheel.open() as flywheel: await flywheel.ping()\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'google', 'agentic_flywheel.tracing',"
        " 'agentic_flywheel.spelling', 'langfuse')) or name.startswith('agentic_flywheel.observe.')])"
    )
    afw = Afw(tmp_path / "afw", valkey.url)
    done = subprocess.run([sys.executable, "-c", program], env=afw.environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['agentic_flywheel.observe.names']"
