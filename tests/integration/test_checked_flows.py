"""A flow that was checked and found as it was leaves what is at hand in place; whatever else is said of it does not.

Both ways: answers that Redis confirms each time (`familiar`), and those of the near cache. Checks and changes are made
by another process's flywheel.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Answer, Directives, Flywheel
from flowise_replay import FLOWS, KEY, ReplayFlowise, Reply, Request
from flywheels import opened, until
from servers import Server

pytestmark = pytest.mark.anyio

QUESTIONS = ("How do I enable Redis persistence?", "Which commands does Redis Cluster refuse?")
STATE = "afw:v1:default:flow:{docs}"
#: No proof runs out and no check is due while a test runs: what ends a hit is what Redis says.
STEADY: dict[str, Any] = {"near_max_staleness_seconds": 600.0, "environ_TEST_KEY": KEY}


class Flowise(ReplayFlowise):
    """A Flowise that can fail to tell its configuration."""

    broken = False

    async def respond(self, request: Request) -> Reply:
        if self.broken and request.method == "GET":
            return Reply.json({"message": "down"}, status=503)
        return await super().respond(request)


@pytest.fixture
async def flowise() -> AsyncIterator[Flowise]:
    async with Flowise() as server:
        yield server


@pytest.fixture(params=[False, True], ids=["redis", "near"])
def near(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def write(folder: Path, flowise: ReplayFlowise, temperature: float = 0.5, check_every: float = 3600) -> None:
    """The registry, as an editor writes it: a new file under the old name."""
    new = folder / "new.yaml"
    new.write_text(
        f"flows:\n  docs:\n    id: {FLOWS['llm']}\n    kind: flowise\n    base_url: {flowise.url}\n"
        f"    api_key_env: TEST_KEY\n    check_every_seconds: {check_every}\n    config:\n"
        f"      temperature: {temperature}\n",
        "utf-8",
    )
    new.replace(folder / "flows.yaml")


def at_hand(flywheel: Flywheel, answer: Answer) -> bool:
    """Whether an answer came without the whole way."""
    if flywheel._near is None:
        return answer.question in {name[0] for name in recognised(flywheel)}
    return answer.near


def recognised(flywheel: Flywheel) -> list[Any]:
    noted: list[Any] = flywheel.__dict__.setdefault("noted", [])
    return noted


def note(flywheel: Flywheel) -> None:
    """Note from now on which questions are recognised."""
    noted, answer = recognised(flywheel), flywheel._familiar.answer

    async def noting(question: str, *arguments: Any, **named: Any) -> Answer | None:
        found = await answer(question, *arguments, **named)
        if found is not None:
            noted.append((question,))
        return found

    flywheel._familiar.answer = noting  # type: ignore[method-assign]


async def ask(flywheel: Flywheel, question: str) -> tuple[Answer, bool]:
    """An answer, and whether it was at hand."""
    recognised(flywheel).clear()
    answer = await flywheel.ask(question, flow="docs")
    return answer, at_hand(flywheel, answer)


async def warmed(flywheel: Flywheel) -> None:
    """Ask until every question is answered without the whole way."""
    if flywheel._near is not None:
        assert await flywheel._near.channel.proven(20), flywheel._near.channel.problem
    deadline = time.monotonic() + 20
    while not all([(await ask(flywheel, question))[1] for question in QUESTIONS]):
        assert time.monotonic() < deadline, "waited 20 s for the answers to be at hand"


@asynccontextmanager
async def pair(
    server: Server, folder: Path, flowise: Flowise, *, near: bool
) -> AsyncIterator[tuple[Flywheel, Flywheel]]:
    """Two flywheels of one flow: one that has every answer at hand and notes its ways, and another process's."""
    write(folder, flowise)
    async with (
        opened(server, folder, near_enabled=near, **STEADY) as one,
        opened(server, folder, **STEADY) as other,
    ):
        note(one)
        await warmed(one)
        yield one, other


async def heard(flywheel: Flywheel) -> None:
    """Wait until the near cache, where there is one, has heard that the flow was written."""
    if flywheel._near is not None:
        flow = flywheel._near._flows["docs"]
        await until(lambda: flow.looked_at < 0, "word of what was written")


async def test_a_check_that_finds_a_flow_as_it_was_leaves_its_answers_at_hand(
    redis_server: Server, flowise: Flowise, tmp_path: Path, near: bool
) -> None:
    async with pair(redis_server, tmp_path, flowise, near=near) as (one, other):
        for _ in range(2):
            await other.flows.refresh("docs")
            await heard(one)
            went = [await ask(one, question) for question in (QUESTIONS[0], *QUESTIONS)]
            assert {answer.outcome for answer, _ in went} == {"hit"}
            # The near cache looks at the flow with the first of them, for all.
            assert [quick for _, quick in went] == [not near, True, True]


Change = Callable[[Flywheel, Flowise, Path], Awaitable[object]]


async def _edited(other: Flywheel, flowise: Flowise, folder: Path) -> None:
    flowise.edit(FLOWS["llm"], temperature="0.9")
    await other.flows.refresh("docs")


async def _edited_and_put_back(other: Flywheel, flowise: Flowise, folder: Path) -> None:
    before = flowise.flows[FLOWS["llm"]].input("temperature")
    await _edited(other, flowise, folder)
    flowise.edit(FLOWS["llm"], temperature=before)
    await other.flows.refresh("docs")


async def _registry(other: Flywheel, flowise: Flowise, folder: Path) -> None:
    write(folder, flowise, temperature=0.7)
    await other.flows.refresh("docs")


async def _cleared(other: Flywheel, flowise: Flowise, folder: Path) -> None:
    await other.cache.clear(flow="docs", dry_run=False)
    await other.flows.refresh("docs")


@pytest.mark.parametrize(
    "change", [_edited, _edited_and_put_back, _registry, _cleared], ids=lambda change: change.__name__.strip("_")
)
async def test_a_flow_that_is_another_one_is_asked_from_the_next_question_on(
    valkey: Server, flowise: Flowise, tmp_path: Path, near: bool, change: Change
) -> None:
    async with pair(valkey, tmp_path, flowise, near=near) as (one, other):
        await other.flows.refresh("docs")  # what follows differs from a check that was already taken in
        await heard(one)
        await warmed(one)
        await change(other, flowise, tmp_path)
        await heard(one)
        for question in QUESTIONS:
            answer, quick = await ask(one, question)
            assert (answer.outcome, quick) == ("miss", False)


async def test_a_lifetime_that_is_set_beside_a_check_holds(
    valkey: Server, flowise: Flowise, tmp_path: Path, near: bool
) -> None:
    async with pair(valkey, tmp_path, flowise, near=near) as (one, other):
        await other.lifetimes.set("docs", timedelta(seconds=1000))
        await other.flows.refresh("docs")
        await heard(one)
        for question in QUESTIONS:
            answer, quick = await ask(one, question)
            assert not quick
            assert answer.ttl_seconds is not None
            assert answer.ttl_seconds <= 1050


async def test_an_answer_that_is_replaced_beside_a_check_is_another_one(
    valkey: Server, flowise: Flowise, tmp_path: Path, near: bool
) -> None:
    async with pair(valkey, tmp_path, flowise, near=near) as (one, other):
        replaced = await other.ask(QUESTIONS[1], flow="docs", directives=Directives(no_cache=True))
        await other.flows.refresh("docs")
        await heard(one)
        assert [await ask(one, question) for question in QUESTIONS][1][0].text == replaced.text


async def test_a_flow_that_cannot_be_checked_any_more_is_said_to_be_unverified(
    valkey: Server, flowise: Flowise, tmp_path: Path, near: bool
) -> None:
    write(tmp_path, flowise)
    async with opened(valkey, tmp_path, near_enabled=near, flow_max_unverified_seconds=0, **STEADY) as flywheel:
        note(flywheel)
        await warmed(flywheel)
        flowise.broken = True
        with valkey.client() as client:  # nothing but the time of the check differs
            client.hincrbyfloat(STATE, "checked_at", -7200)
        await heard(flywheel)
        for question in (*QUESTIONS, *QUESTIONS):
            answer, quick = await ask(flywheel, question)
            assert (answer.outcome, answer.reason, quick) == ("stale", "flow_unverified", False)
        flowise.broken = False
        answer, quick = await ask(flywheel, QUESTIONS[0])
        assert (answer.outcome, answer.reason, quick) == ("hit", "exact", False)
        await warmed(flywheel)


@pytest.mark.parametrize("damage", [("checked_at", "nonsense"), ("revision", b"\xff"), None], ids=str)
async def test_a_state_that_cannot_be_read_is_no_check(
    valkey: Server, flowise: Flowise, tmp_path: Path, near: bool, damage: tuple[str, Any] | None
) -> None:
    write(tmp_path, flowise)
    async with opened(valkey, tmp_path, near_enabled=near, **STEADY) as flywheel:
        note(flywheel)
        await warmed(flywheel)
        with valkey.client() as client:
            if damage is None:
                client.set(STATE, "not a flow")
            else:
                client.hset(STATE, *damage)
        await heard(flywheel)
        for question in QUESTIONS:
            answer, quick = await ask(flywheel, question)
            assert (answer.outcome, answer.reason, quick) == ("bypass", "store_unavailable", False)
