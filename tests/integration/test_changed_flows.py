"""After a flow changed, nothing of before is served as fresh: noticed at the next question, and written down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Directives
from agentic_flywheel.errors import FlowError
from agentic_flywheel.model import Answer
from flowise_replay import FLOWS, KEY, ReplayFlowise, Reply, Request
from flywheels import Oracle, opened, until
from servers import Server

pytestmark = pytest.mark.anyio

QUESTION = "How do I enable Redis persistence?"
OTHER = "Which commands does Redis Cluster refuse?"


def came(answer: Answer) -> tuple[str, str]:
    return answer.outcome.value, answer.reason.value


def write(folder: Path, text: str) -> None:
    """Replace the registry as an editor does: a new file under the old name."""
    file, new = folder / "flows.yaml", folder / "new.yaml"
    new.write_text(text, "utf-8")
    new.replace(file)


class Gated(ReplayFlowise):
    """A Flowise whose configuration is told only when `tell` is set, and which can be out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.tell = asyncio.Event()
        self.tell.set()
        self.asked_for_configuration = 0
        self.broken = False

    async def respond(self, request: Request) -> Reply:
        if request.method == "GET" and ("/chatflows/" in request.path or "chatbotConfig" in request.path):
            self.asked_for_configuration += 1
            reply = await super().respond(request)
            await self.tell.wait()
            return Reply.json({"message": "down"}, status=503) if self.broken else reply
        return await super().respond(request)


@pytest.fixture
async def flowise() -> AsyncIterator[Gated]:
    async with Gated() as server:
        yield server


def flowise_registry(
    server: ReplayFlowise, *, temperature: float = 0.5, check_every: float = 0, name: str = "Docs"
) -> str:
    return (
        "flows:\n  docs:\n"
        f"    id: {FLOWS['llm']}\n    kind: flowise\n    name: {name}\n    base_url: {server.url}\n"
        f"    api_key_env: TEST_KEY\n    check_every_seconds: {check_every}\n"
        f"    config:\n      temperature: {temperature}\n"
    )


async def test_an_edit_at_flowise(redis_server: Server, flowise: Gated, tmp_path: Path) -> None:
    write(tmp_path, flowise_registry(flowise))
    async with opened(redis_server, tmp_path, environ_TEST_KEY=KEY) as flywheel:
        first = await flywheel.ask(QUESTION)
        assert came(first) == ("miss", "not_stored")
        assert came(await flywheel.ask(QUESTION)) == ("hit", "exact")
        flowise.move(FLOWS["llm"])
        assert came(await flywheel.ask(QUESTION)) == ("hit", "exact")
        flowise.edit(FLOWS["llm"], temperature="0.9")
        changed = await flywheel.ask(QUESTION)
        assert came(changed) == ("miss", "flow_changed")
        assert changed.fingerprint != first.fingerprint
        assert "0.9" in changed.text
        newest, oldest = await flywheel.flows.changes("docs")
        assert (newest.old, newest.new) == (first.fingerprint, changed.fingerprint)
        assert (oldest.old, oldest.new) == ("", first.fingerprint)
        assert newest.at > oldest.at
        # Going back does not bring the old answers back: another generation has begun.
        flowise.edit(FLOWS["llm"], temperature=flowise_temperature(flowise, first))
        assert (await flywheel.ask(QUESTION)).outcome == "miss"


def flowise_temperature(server: ReplayFlowise, answer: Answer) -> str:
    return next(str(call.temperature) for call in server.calls if f"temperature {call.temperature} " in answer.text)


async def test_an_edit_at_flowise_is_noticed_within_the_time_allowed(
    valkey: Server, flowise: Gated, tmp_path: Path
) -> None:
    write(tmp_path, flowise_registry(flowise, check_every=3600))
    async with opened(valkey, tmp_path, environ_TEST_KEY=KEY) as flywheel:
        await flywheel.ask(QUESTION)
        asked = flowise.asked_for_configuration
        flowise.edit(FLOWS["llm"], temperature="0.9")
        assert came(await flywheel.ask(QUESTION)) == ("hit", "exact")
        assert flowise.asked_for_configuration == asked
        # An hour later, as Redis has it:
        with valkey.client() as client:
            key = "afw:v1:default:flow:{docs}"
            client.hset(key, "checked_at", float(client.hget(key, "checked_at")) - 3601)
        assert came(await flywheel.ask(QUESTION)) == ("miss", "flow_changed")


async def test_an_edit_of_the_registry_holds_at_once_in_every_process(
    redis_server: Server, flowise: Gated, tmp_path: Path
) -> None:
    write(tmp_path, flowise_registry(flowise, check_every=3600))
    async with (
        opened(redis_server, tmp_path, environ_TEST_KEY=KEY) as one,
        opened(redis_server, tmp_path, environ_TEST_KEY=KEY) as other,
    ):
        first = await one.ask(QUESTION)
        assert came(await other.ask(QUESTION)) == ("hit", "exact")
        write(tmp_path, flowise_registry(flowise, check_every=3600, temperature=0.7))
        changed = await other.ask(QUESTION)
        assert came(changed) == ("miss", "flow_changed")
        assert came(await one.ask(QUESTION)) == ("hit", "exact")
        newest = (await one.flows.changes("docs"))[0]
        assert (newest.old, newest.new) == (first.fingerprint, changed.fingerprint)
        # What decides no answer changes nothing.
        write(tmp_path, flowise_registry(flowise, check_every=3600, temperature=0.7, name="Documentation"))
        assert came(await one.ask(QUESTION)) == ("hit", "exact")


async def test_an_edit_of_the_registry_while_the_flow_is_being_checked(
    valkey: Server, flowise: Gated, tmp_path: Path
) -> None:
    """Whoever asks under the new registry is not judged by a check that began under the old one."""
    write(tmp_path, flowise_registry(flowise))
    async with opened(valkey, tmp_path, environ_TEST_KEY=KEY) as flywheel:
        first = await flywheel.ask(QUESTION)
        flowise.tell.clear()
        before = flowise.asked_for_configuration
        old = asyncio.create_task(flywheel.ask(QUESTION))
        await until(lambda: flowise.asked_for_configuration > before, "the check to begin")
        write(tmp_path, flowise_registry(flowise, temperature=0.7))
        new = asyncio.create_task(flywheel.ask(QUESTION))
        await asyncio.sleep(0.05)
        flowise.tell.set()
        assert (await old).text == first.text
        changed = await new
        assert changed.outcome == "miss"
        assert changed.fingerprint != first.fingerprint
        assert flowise.calls[-1].config["temperature"] == 0.7


async def test_an_edit_while_the_answer_is_being_computed(valkey: Server, flowise: Gated, tmp_path: Path) -> None:
    write(tmp_path, flowise_registry(flowise))
    async with opened(valkey, tmp_path, environ_TEST_KEY=KEY) as flywheel:
        flowise.hold()
        asking = asyncio.create_task(flywheel.ask(QUESTION))
        await until(lambda: flowise.waiting, "the question to arrive")
        flowise.edit(FLOWS["llm"], temperature="0.9")
        assert (await flywheel.flows.refresh("docs")).fingerprint
        flowise.release()
        early = await asking
        later = await flywheel.ask(QUESTION)
        assert later.outcome == "miss"
        assert later.fingerprint != early.fingerprint


async def test_a_flow_that_cannot_be_checked_is_said_to_be_unverified(
    valkey: Server, flowise: Gated, tmp_path: Path
) -> None:
    write(tmp_path, flowise_registry(flowise))
    async with opened(valkey, tmp_path, environ_TEST_KEY=KEY, flow_max_unverified_seconds=0) as flywheel:
        first = await flywheel.ask(QUESTION)
        flowise.broken = True
        with valkey.client() as client:
            client.hincrbyfloat("afw:v1:default:flow:{docs}", "checked_at", -60)
        stale = await flywheel.ask(QUESTION)
        assert came(stale) == ("stale", "flow_unverified")
        assert stale.text == first.text
        flowise.broken = False
        assert came(await flywheel.ask(QUESTION)) == ("hit", "exact")


async def test_a_short_outage_of_the_flow_is_bridged(valkey: Server, flowise: Gated, tmp_path: Path) -> None:
    write(tmp_path, flowise_registry(flowise))
    async with opened(valkey, tmp_path, environ_TEST_KEY=KEY) as flywheel:
        await flywheel.ask(QUESTION)
        flowise.broken = True
        assert came(await flywheel.ask(QUESTION)) == ("hit", "exact")


async def test_what_was_stored_unverified_is_not_served_once_the_flow_is_known_to_have_changed(
    valkey: Server, flowise: Gated, tmp_path: Path
) -> None:
    write(tmp_path, flowise_registry(flowise))
    async with opened(valkey, tmp_path, environ_TEST_KEY=KEY) as flywheel:
        await flywheel.ask(QUESTION)
        flowise.broken = True
        flowise.edit(FLOWS["llm"], temperature="0.9")
        unverified = await flywheel.ask(OTHER)
        flowise.broken = False
        assert (await flywheel.ask(OTHER)).origin_trace_id != unverified.trace_id


async def test_a_python_flow_of_another_version(redis_server: Server, tmp_path: Path) -> None:
    def flow(version: str) -> dict[str, Any]:
        return {"oracle": (Oracle(version), {"options": {"version": version}})}

    async with opened(redis_server, tmp_path, flow("1")) as flywheel:
        first = await flywheel.ask(QUESTION)
    async with opened(redis_server, tmp_path, flow("1")) as flywheel:
        assert (await flywheel.ask(QUESTION)).text == first.text
    async with opened(redis_server, tmp_path, flow("2")) as flywheel:
        assert came(await flywheel.ask(QUESTION)) == ("miss", "flow_changed")
        assert len(await flywheel.flows.changes("oracle")) == 2


async def test_a_python_flow_with_other_code(redis_server: Server, tmp_path: Path) -> None:
    def one(question: str) -> str:
        return f"one says {question}"

    def other(question: str) -> str:
        return f"other says {question}"

    other.__qualname__ = one.__qualname__
    for answer, outcome in ((one, "miss"), (one, "hit"), (other, "miss"), (other, "hit")):
        async with opened(redis_server, tmp_path, {"code": answer}) as flywheel:
            assert (await flywheel.ask(QUESTION)).outcome == outcome


async def test_documents_that_change(redis_server: Server, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    page = docs / "redis.md"
    page.write_text("# Persistence\n\nTo enable Redis persistence, set appendonly to yes.\n", "utf-8")
    write(tmp_path, f"flows:\n  docs:\n    id: docs\n    kind: documents\n    folder: {docs}\n")
    async with opened(redis_server, tmp_path) as flywheel:
        first = await flywheel.ask(QUESTION)
        assert "appendonly" in first.text
        assert came(await flywheel.ask(QUESTION)) == ("hit", "exact")
        page.write_text("# Persistence\n\nTo enable Redis persistence, call the operator.\n", "utf-8")
        changed = await flywheel.ask(QUESTION)
        assert came(changed) == ("miss", "flow_changed")
        assert "operator" in changed.text
        (docs / "more.md").write_text("# More\n\nRedis persistence costs some throughput.\n", "utf-8")
        assert came(await flywheel.ask(QUESTION)) == ("miss", "flow_changed")


@pytest.mark.parametrize(
    "broken", [Reply.json({"text": "  "}), Reply(200, "text/html", (b"<html>login</html>",)), Reply(500)], ids=str
)
async def test_failures_and_empty_answers_are_not_stored(
    valkey: Server, flowise: Gated, tmp_path: Path, broken: Reply
) -> None:
    write(tmp_path, flowise_registry(flowise))
    async with opened(valkey, tmp_path, environ_TEST_KEY=KEY) as flywheel:
        flowise.queue(FLOWS["llm"], *[broken] * 5)
        with pytest.raises(FlowError) as caught:
            await flywheel.ask(QUESTION, session="s")
        assert caught.value.details["flow"] == "docs"
        assert caught.value.details["session_id"] == "s"
        assert len(caught.value.details["trace_id"]) == 32
        assert (await flywheel.cache.list())[0] == []
        assert (await flywheel.sessions.list()).sessions == ()
        flowise._scripts.clear()
        assert came(await flywheel.ask(QUESTION, session="s")) == ("miss", "not_stored")


async def test_a_failing_flow_names_itself_and_only_if_cached_does_not_need_it(valkey: Server, tmp_path: Path) -> None:
    calls: list[str] = []

    def fails(question: str) -> str:
        calls.append(question)
        if len(calls) > 1:
            raise RuntimeError("no more")
        return "the only answer"

    async with opened(valkey, tmp_path, {"once": fails}) as flywheel:
        await flywheel.ask(QUESTION)
        with pytest.raises(FlowError, match="no more"):
            await flywheel.ask(OTHER)
        cached = await flywheel.ask(QUESTION, directives=Directives(only_if_cached=True))
        assert cached.text == "the only answer"
