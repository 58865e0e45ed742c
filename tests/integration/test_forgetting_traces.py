"""What is forgotten goes from where its traces went as well: at once where that is possible, later where it is not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from afw_command import Afw
from agentic_flywheel import Flywheel
from agentic_flywheel.erasing import LOOK_AGAIN_SECONDS, Erasing
from agentic_flywheel.errors import NotFound
from agentic_flywheel.model import Receipt
from agentic_flywheel.observe.spans import outward_id
from flywheels import Oracle, opened, text_anywhere, until
from servers import Server
from sinks import PUBLIC, SECRET, Sink, nobody, sink

pytestmark = pytest.mark.anyio

QUESTION = "Where does the heron live?"


def langfuse(url: str) -> dict[str, Any]:
    return {
        "trace_exporter": "langfuse",
        "environ_LANGFUSE_BASE_URL": url,
        "environ_LANGFUSE_PUBLIC_KEY": PUBLIC,
        "environ_LANGFUSE_SECRET_KEY": SECRET,
        "trace_timeout_seconds": 1.0,
        "trace_text": "on",
    }


@asynccontextmanager
async def traced(server: Server, folder: Path, url: str, **more: Any) -> AsyncIterator[Flywheel]:
    async with opened(server, folder, {"oracle": Oracle()}, **langfuse(url), **more) as flywheel:
        yield flywheel


class Later:
    """A clock that can be put forward."""

    def __init__(self, flywheel: Flywheel) -> None:
        self.ahead = 0.0
        erasing = flywheel.erasing
        now = erasing._clock
        erasing._clock = lambda: now() + self.ahead
        self._store = flywheel._store
        self._erasing: Erasing = erasing

    async def look(self) -> None:
        """Housekeeping, once its time has come."""
        self.ahead += LOOK_AGAIN_SECONDS + 1
        await self._store.drop_mark("erasing")
        await self._erasing.keep_at_it()


async def lived(flywheel: Flywheel, received: Sink) -> dict[str, set[str]]:
    """Two people ask; the traces of each, once they have arrived."""
    said: dict[str, set[str]] = {}
    for user in ("ann", "bob"):
        answers = [
            await flywheel.ask(QUESTION, session=f"{user} é", user=user),
            await flywheel.ask("And where in winter?", session=f"{user} é", user=user),
            await flywheel.ask(QUESTION, user=user),
        ]
        said[user] = {answer.trace_id for answer in answers}
        await flywheel.traces.judge(8, session=f"{user} é", user=user)
        await flywheel.traces.judge(3, id=answers[0].turn_id, session=f"{user} é", user=user)
    await flywheel.flush()
    await until(lambda: received.traces == said["ann"] | said["bob"], "all traces to arrive")
    await until(lambda: len(received.scores) == 4, "all scores to arrive")
    return said


@pytest.mark.parametrize("version", [4, 3])
async def test_the_traces_of_a_person_go_and_nobody_elses(valkey: Server, tmp_path: Path, version: int) -> None:
    with sink() as received:
        received.version, received.page = version, 2
        async with traced(valkey, tmp_path, received.url) as flywheel:
            said = await lived(flywheel, received)
            later = Later(flywheel)
            dry = await flywheel.forgetting.user("ann", dry_run=True)
            assert dry.removed["traces"] == 3
            assert received.deletions == 0
            done = await forgotten(flywheel, "user", "ann")
            assert done.removed == dry.removed
            assert done.waiting == 0
            assert received.traces == said["bob"]
            assert {score.get("traceId") or score["sessionId"] for score in received.scores} == {
                outward_id("bob é"),
                *(score["traceId"] for score in received.scores if score.get("traceId")),
            }
            assert len(received.scores) == 2
            assert (await flywheel.erasing.receipt(done.erasure)).signature == ""
            await later.look()
            end = await flywheel.erasing.receipt(done.erasure)
            assert (end.removed, end.waiting, end.by) == ({"traces": 3}, 0, "housekeeping")
            for receipt in (done, end):
                assert (await flywheel.audit.verify_receipt(receipt)).valid
            entries, _ = await flywheel.audit.list()
            assert [(entry.action, entry.target) for entry in entries] == [
                ("traces.forget", done.erasure),
                ("user.forget", "ann"),
            ]
            assert received.traces == said["bob"]


async def forgotten(flywheel: Flywheel, kind: str, target: str) -> Receipt:
    """As every interface has it done."""
    work = getattr(flywheel.forgetting, kind)
    return await flywheel.audit.carry_out(
        f"{kind}.forget", target, lambda only_look: work(target, dry_run=only_look), by="test"
    )


async def test_sessions_and_words(valkey: Server, tmp_path: Path) -> None:
    with sink() as received:
        async with traced(valkey, tmp_path, received.url) as flywheel:
            said = await lived(flywheel, received)
            first, second = (turn.trace_id for turn in (await flywheel.sessions.show("ann é")).turns)
            done = await forgotten(flywheel, "matching", "in winter")
            assert second not in received.traces
            assert first in received.traces
            # Bob's words were the same, so his trace had them as well.
            assert done.removed["traces"] == 2
            done = await forgotten(flywheel, "session", "ann é")
            assert done.removed["traces"] == 1
            assert received.traces & said["ann"] == said["ann"] - {first, second}
            assert len(received.traces & said["bob"]) == 2


@pytest.mark.parametrize("how", ["hang", "refuse", "busy", "deny", "drip", "absent"])
async def test_what_langfuse_does_not_take_now_waits(valkey: Server, tmp_path: Path, how: str) -> None:
    with sink() as received:
        async with traced(valkey, tmp_path, received.url) as flywheel:
            said = await lived(flywheel, received)
        received.how = how if how != "absent" else "take"
        url = nobody() if how == "absent" else received.url
        async with traced(valkey, tmp_path, url) as flywheel:
            done = await forgotten(flywheel, "user", "ann")
            assert done.removed["traces"] == 0
            assert done.removed["turns"] == 3
            assert done.waiting == 4  # three traces, and what was said of the session
            assert any("afw forget --traces" in note for note in done.notes)
            assert (await flywheel.audit.verify_receipt(done)).valid
            assert (await flywheel.ask("Anything else?", user="bob")).text
            assert text_anywhere(valkey, QUESTION) != []  # bob's
        received.how = "take"
        assert said["ann"] <= received.traces
        # Another process goes on with it, whoever it is.
        async with traced(valkey, tmp_path, received.url) as flywheel:
            later = Later(flywheel)
            await later.look()
            assert received.traces & said["ann"] == set()
            assert received.traces >= said["bob"]
            await later.look()
            end = await flywheel.erasing.receipt(done.erasure)
            assert (end.removed, end.waiting) == ({"traces": 3}, 0)
            assert (await flywheel.audit.verify_receipt(end)).valid
            with pytest.raises(NotFound):
                await flywheel.erasing.receipt("another")


async def test_traces_that_arrive_late_go_too(valkey: Server, tmp_path: Path) -> None:
    with sink() as received:
        received.later = True  # deleted behind the answer, as Langfuse does it
        async with traced(valkey, tmp_path, received.url) as flywheel:
            said = await lived(flywheel, received)
            later = Later(flywheel)
            under_way = [span for span in received.spans if span.trace == min(said["ann"])]
            received.spans = [span for span in received.spans if span not in under_way]
            done = await forgotten(flywheel, "user", "ann")
            received.work()
            received.asked_to_delete.clear()
            received.spans += under_way
            await later.look()
            assert (await flywheel.erasing.receipt(done.erasure)).signature == ""
            received.work()
            assert received.traces == said["bob"]
            await later.look()
            assert (await flywheel.erasing.receipt(done.erasure)).signature != ""


async def test_what_is_not_of_this_tenant_is_left_alone(valkey: Server, tmp_path: Path) -> None:
    """One project of Langfuse may hold what other tenants and other programs say of a user of the same name."""
    with sink() as received:
        async with traced(valkey, tmp_path, received.url, tenant="other") as flywheel:
            others = (await lived(flywheel, received))["ann"]
        theirs = next(span for span in received.spans if span.name == "afw.ask")._replace(trace="ab" * 16, said={})
        received.spans.append(theirs._replace(name="chat", said={"user.id": "ann"}))
        async with traced(valkey, tmp_path, received.url) as flywheel:
            await flywheel.ask(QUESTION, user="ann")
            await flywheel.flush()
            assert (await forgotten(flywheel, "user", "ann")).removed["traces"] == 1
        assert received.traces >= others | {"ab" * 16}


async def test_a_collector_cannot_be_asked(valkey: Server, tmp_path: Path) -> None:
    with sink() as received:
        where = {"trace_exporter": "otlp", "trace_endpoint": f"{received.url}/v1/traces"}
        async with opened(valkey, tmp_path, {"oracle": Oracle()}, **where) as flywheel:
            await flywheel.ask(QUESTION, user="ann")
            done = await forgotten(flywheel, "user", "ann")
            assert "traces" not in done.removed
            assert any("OpenTelemetry" in note for note in done.notes)
        assert received.deletions == 0


async def test_many_traces_go_in_parts_and_are_gone_on_with(valkey: Server, tmp_path: Path) -> None:
    """Cut off in the middle, the rest waits; nothing is asked for twice before the last look."""
    from agentic_flywheel.observe.langfuse_erasing import AT_ONCE

    with sink() as received:
        async with traced(valkey, tmp_path, received.url) as flywheel:
            pending = flywheel.erasing.begin(dry_run=False)
            await pending.add(traces=[f"{number:032x}" for number in range(1, 3 * AT_ONCE)])
            take = received.delete

            def once(path: str, body: bytes) -> tuple[int, Any]:
                received.how = "busy"
                return take(path, body)

            received.delete = once  # type: ignore[method-assign]
            done = await pending.done()
            assert (done.traces, done.waiting) == (AT_ONCE, 2 * AT_ONCE - 1)
            received.how, received.delete = "take", take  # type: ignore[method-assign]
            went = await flywheel.erasing.go_on()
            assert (went.removed["traces"], went.waiting) == (2 * AT_ONCE - 1, 0)
            assert len(received.asked_to_delete) == len(set(received.asked_to_delete)) == 3 * AT_ONCE - 1


def test_the_command_goes_on_and_shows_the_receipt(valkey: Server, tmp_path: Path) -> None:
    with sink("refuse") as received:
        where = {
            "AFW_TRACE_EXPORTER": "langfuse",
            "LANGFUSE_BASE_URL": received.url,
            "LANGFUSE_PUBLIC_KEY": PUBLIC,
            "LANGFUSE_SECRET_KEY": SECRET,
            "AFW_TRACE_CLOSE_SECONDS": "0.1",
        }
        afw = Afw(tmp_path, valkey.url)
        afw.environ |= where
        afw.ok("ask", "--flow", "echo", "--user", "ann", "--session", "s", QUESTION)
        done = afw.json("forget", "--user", "ann", "--yes")
        assert done["waiting"] == 1
        shown = afw.run("forget", "--traces")
        assert (shown.code, "would remove 1 trace" in shown.out) == (1, True)
        received.how = "take"
        went = afw.json("forget", "--traces", "--yes")
        assert (went["removed"], went["waiting"]) == ({"traces": 1}, 0)
        (tmp_path / "went.json").write_text(json.dumps(went), "utf-8")
        assert afw.json("audit", "receipt", str(tmp_path / "went.json"))["valid"]
        assert received.asked_to_delete
        later = afw.run("forget", "--receipt", done["erasure"])
        assert later.code == 1
        assert "not complete" in later.err
        assert afw.run("forget", "--receipt", "another").code == 1
