"""Whatever is given to the public names: it works, or is refused in words, before anything is touched."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Flywheel
from agentic_flywheel.errors import (
    FlywheelError,
    IdError,
    InputError,
    NotFound,
    QuestionError,
    SettingsError,
    UnknownFlow,
    UnknownKey,
    UnknownSession,
)
from agentic_flywheel.likeness import ReportKind
from agentic_flywheel.policy.context import Domain
from flywheels import Oracle, opened
from servers import Server

pytestmark = pytest.mark.anyio

QUESTION = "How do I enable Redis persistence?"
LOOP: dict[str, Any] = {}
LOOP["loop"] = LOOP


@pytest.fixture
async def flywheel(valkey: Server, tmp_path: Path) -> AsyncIterator[Flywheel]:
    flows = {"oracle": Oracle(), "silent": (Oracle(), {"sharing": "none", "id": "silent"})}
    async with opened(valkey, tmp_path, flows) as opened_:
        yield opened_


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"question": ""}, QuestionError),
        ({"question": None}, QuestionError),
        ({"question": 7}, QuestionError),
        ({"question": b"bytes"}, QuestionError),
        ({"question": "x" * 16_001}, QuestionError),
        ({"question": "\ud800"}, QuestionError),
        ({"session": ""}, IdError),
        ({"session": "x" * 257}, IdError),
        ({"session": "a\nb"}, IdError),
        ({"session": 7}, IdError),
        ({"user": "a\x00"}, IdError),
        ({"user": 7}, IdError),
        ({"user": ["ana"]}, IdError),
        ({"user": 0}, IdError),
        ({"turn_id": ""}, IdError),
        ({"turn_id": 7}, IdError),
        ({"flow": "oracel"}, UnknownFlow),
        ({"flow": 7}, InputError),
        ({"flow": ["oracle"]}, InputError),
        ({"intent": 7}, InputError),
        ({"intent": "a\ud800"}, InputError),
        ({"directives": "no-cache"}, InputError),
        ({"directives": {"no_cache": True}}, InputError),
        ({"domain": "Redis"}, InputError),
        ({"domain": Domain(name="Redis", description=7)}, InputError),  # type: ignore[arg-type]
        ({"config": "temperature=0"}, InputError),
        ({"config": ["temperature"]}, InputError),
        ({"config": {"a": object()}}, InputError),
        ({"config": {1: "a"}}, InputError),
        ({"config": {"a": {2: "b"}}}, InputError),
        ({"config": {"a": "\ud800"}}, InputError),
        ({"config": {"a": 2**70}}, InputError),
        ({"config": {"a": float("nan")}}, InputError),
        ({"config": LOOP}, InputError),
    ],
)
async def test_questions_that_are_refused(
    flywheel: Flywheel, valkey: Server, arguments: dict[str, Any], kind: type[FlywheelError]
) -> None:
    with pytest.raises(kind) as caught:
        await flywheel.ask(**{"question": QUESTION, "session": "s", "flow": "oracle", **arguments})
    assert len(caught.value.suggestions) >= 3
    with valkey.client() as client:
        assert client.dbsize() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"session": "é:{x}|*?[] 日本"},
        {"user": "Ana María"},
        {"turn_id": "turn {1}"},
        {"config": {"nested": {"list": [1, 2.5, None, True, "é"]}}},
        {"config": {"tuple": (1, 2)}},
        {"config": {}},
        {"question": "x" * 16_000},
        {"question": "🎉 \U0010ffff"},
        {"intent": ""},
        {"user": ""},
    ],
)
async def test_odd_questions_that_are_answered_and_remembered(flywheel: Flywheel, arguments: dict[str, Any]) -> None:
    whole = {"question": QUESTION, "session": "s", "flow": "oracle", **arguments}
    first = await flywheel.ask(**whole)
    assert first.outcome == "miss"
    assert (await flywheel.ask(**{**whole, "session": "another"})).outcome in {"hit", "miss"}
    shown = await flywheel.sessions.show(whole["session"])
    assert shown.turns[0].answer == first.text
    stored = await flywheel.cache.show(str(first.key))
    assert stored.entry.config == {name: list(v) if isinstance(v, tuple) else v for name, v in first.config.items()}


async def test_answers_that_cannot_be_written_down(valkey: Server, tmp_path: Path) -> None:
    def broken(question: str) -> str:
        return "half a character: \ud83d"

    async with opened(valkey, tmp_path, {"broken": broken}) as flywheel:
        answer = await flywheel.ask(QUESTION, session="s")
        assert answer.text.startswith("half a character: ")
        answer.text.encode()
        assert (await flywheel.sessions.show("s")).turns[0].answer == answer.text


_HALF = "\udcff"
REFUSED: dict[str, tuple[Callable[[Flywheel], Awaitable[Any]], type[FlywheelError]]] = {
    "search a flow in half a character": (lambda f: f.history.search("x", flow=_HALF), InputError),
    "search a session in half a character": (lambda f: f.history.search("x", session=_HALF), InputError),
    "search a tag in half a character": (lambda f: f.history.search("x", tag=_HALF), InputError),
    "report half a character": (lambda f: f.similar.report(_HALF, ReportKind.WRONG), IdError),
    "look at half a character": (lambda f: f.traces.view(_HALF), IdError),
    "take half a character into the FAQ": (lambda f: f.faq.add(turn=_HALF), IdError),
    "add to the FAQ as a number": (lambda f: f.faq.add("What is it?", "It.", flow="oracle", by=7), InputError),  # type: ignore[arg-type]
    "add to the FAQ as half a character": (
        lambda f: f.faq.add("What is it?", "It.", flow="oracle", by=_HALF),
        InputError,
    ),
    "approve until no time": (lambda f: f.faq.approve("some", review_at=float("nan")), InputError),
    "warm half a character": (lambda f: f.warming.begin([_HALF]), InputError),
    "list nothing": (lambda f: f.sessions.list(limit=0), InputError),
    "list from nowhere": (lambda f: f.sessions.list(cursor="x"), InputError),
    "list from before the start": (lambda f: f.sessions.list(cursor="-5"), InputError),
    "list from beyond all ends": (lambda f: f.sessions.list(cursor="9" * 20), InputError),
    "list from beyond what waits": (lambda f: f.sessions.list(cursor="1+" + "9" * 20), InputError),
    "show none": (lambda f: f.sessions.show("none"), UnknownSession),
    "show no turn": (lambda f: f.sessions.show("s", limit=0), InputError),
    "show an impossible id": (lambda f: f.sessions.show("\n"), IdError),
    "resume none": (lambda f: f.sessions.resume(), UnknownSession),
    "resume another": (lambda f: f.sessions.resume("none"), UnknownSession),
    "rename none": (lambda f: f.sessions.rename("none", "x"), UnknownSession),
    "rename to nothing": (lambda f: f.sessions.rename("s", "  "), InputError),
    "rename to too much": (lambda f: f.sessions.rename("s", "x" * 201), InputError),
    "rename to half a character": (lambda f: f.sessions.rename("s", "\ud800"), InputError),
    "tag none": (lambda f: f.sessions.tag("none", add=["x"]), UnknownSession),
    "tag with nothing": (lambda f: f.sessions.tag("s", add=[""]), IdError),
    "tag with letters": (lambda f: f.sessions.tag("s", add="urgent"), InputError),
    "untag letters": (lambda f: f.sessions.tag("s", remove="urgent"), InputError),
    "configure with text": (lambda f: f.sessions.configure("s", "temperature"), InputError),  # type: ignore[arg-type]
    "configure with objects": (lambda f: f.sessions.configure("s", {"a": object()}), InputError),
    "configure an impossible id": (lambda f: f.sessions.configure("", {}), IdError),
    "delete none": (lambda f: f.sessions.delete("none", dry_run=True), UnknownSession),
    "list no answers": (lambda f: f.cache.list(limit=0), InputError),
    "list answers from nowhere": (lambda f: f.cache.list(cursor="x"), InputError),
    "list answers from before the start": (lambda f: f.cache.list(cursor="-1"), InputError),
    "list answers from beyond all ends": (lambda f: f.cache.list(cursor="9" * 5000), InputError),
    "list answers of no flow": (lambda f: f.cache.list(flow="none"), UnknownFlow),
    "figures of no day": (lambda f: f.cache.stats(days=0), InputError),
    "figures of too many days": (lambda f: f.cache.stats(days=91), InputError),
    "figures of no flow": (lambda f: f.cache.stats(flow="none"), UnknownFlow),
    "show no answer": (lambda f: f.cache.show("afw:v1:default:team:flow:f:q:{" + "0" * 32 + "}"), UnknownKey),
    "show what is no answer": (lambda f: f.cache.show("afw:v1:default:flows"), UnknownKey),
    "show another tenant's": (lambda f: f.cache.show("afw:v1:x:team:flow:f:q:{" + "0" * 32 + "}"), UnknownKey),
    "show an impossible key": (lambda f: f.cache.show("\ud800"), UnknownKey),
    "key of nothing": (lambda f: f.cache.key(""), QuestionError),
    "key where nothing is kept": (lambda f: f.cache.key(QUESTION, flow="silent"), InputError),
    "clear nothing": (lambda f: f.cache.clear(dry_run=True), InputError),
    "clear two things": (lambda f: f.cache.clear(flow="oracle", session="s", dry_run=True), InputError),
    "clear no flow": (lambda f: f.cache.clear(flow="none", dry_run=True), UnknownFlow),
    "clear no session": (lambda f: f.cache.clear(session="none", dry_run=True), UnknownSession),
    "clear no key": (lambda f: f.cache.clear(key="none", dry_run=True), UnknownKey),
    "no flow's state": (lambda f: f.flows.state("none"), UnknownFlow),
    "no flow's changes": (lambda f: f.flows.changes("none"), UnknownFlow),
    "no flow's health": (lambda f: f.flows.check("none"), UnknownFlow),
    "test no flow": (lambda f: f.flows.test("none", QUESTION), UnknownFlow),
    "lifetime of nothing": (lambda f: f.lifetimes.set("none", timedelta(days=1)), UnknownFlow),
    "no lifetime": (lambda f: f.lifetimes.set("oracle", timedelta(0)), InputError),
    "a lifetime before": (lambda f: f.lifetimes.set("oracle", timedelta(seconds=-5)), InputError),
    "a lifetime for ever": (lambda f: f.lifetimes.set("oracle", timedelta(days=99_999)), InputError),
    "reset nothing": (lambda f: f.lifetimes.reset("none"), UnknownFlow),
    "get nothing": (lambda f: f.plain_get(""), InputError),
    "get what is ours": (lambda f: f.plain_get("afw:v1:default:flows"), InputError),
    "set what is ours": (lambda f: f.plain_set("afw:x", b"", None), InputError),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused(flywheel: Flywheel, valkey: Server, name: str) -> None:
    call, kind = REFUSED[name]
    if kind is not UnknownSession:
        await flywheel.ask(QUESTION, session="s", flow="oracle")
        await flywheel.flush()
    with pytest.raises(kind) as caught:
        await call(flywheel)
    assert len(caught.value.suggestions) >= 3
    assert isinstance(caught.value, InputError | NotFound)


async def test_the_nearest_flow_is_named(flywheel: Flywheel) -> None:
    with pytest.raises(UnknownFlow, match="did you mean 'oracle'"):
        await flywheel.ask(QUESTION, flow="oracel")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tenent": "x"}, "tenant"),
        ({"session_turn": 3}, "session.turns"),
        ({"session_turns": "three"}, "whole number"),
        ({"redis_url": "localhost"}, "redis://"),
        ({"redis_url": "http://localhost"}, "scheme"),
    ],
)
def test_flywheels_that_cannot_be_opened(arguments: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        Flywheel.open(**arguments)
    assert words in caught.value.message + " ".join(caught.value.suggestions)


@pytest.mark.parametrize("tenant", ["", " ", "a\nb", "x" * 257])
def test_tenants_that_cannot_be(tenant: str) -> None:
    with pytest.raises(InputError):
        Flywheel.open(tenant=tenant)
