"""What a question adds to the counters: words of ours alone, and nobody where a session keeps it to itself."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentic_flywheel.counting import OTHER_INTENT, IntentLabels, answered, called, failed, hit_time
from agentic_flywheel.errors import FlowTimeout, StoreUnavailable
from agentic_flywheel.flows.protocol import AnswerDone, Tokens
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.insight.latency import bucket_of
from agentic_flywheel.model import (
    Answer,
    Directives,
    Entry,
    FlowState,
    Lifetime,
    Outcome,
    Reason,
    Session,
    Sharing,
    Turn,
)
from agentic_flywheel.policy.decision import Ask, Facts
from agentic_flywheel.policy.visibility import counts_asker
from agentic_flywheel.questions import Planner
from agentic_flywheel.recollection import Read
from agentic_flywheel.redacting import Redacting
from agentic_flywheel.remembered import Conversation
from agentic_flywheel.settings import load_settings
from agentic_flywheel.steps import Step
from agentic_flywheel.store.counters import asker_digest
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Patience
from agentic_flywheel.store.recalled import Recalled
from flywheels import nothing_said

HOUR = 3600.0


def turn(number: int) -> Turn:
    return Turn(
        id=f"t{number}", session_id="s", at=0.0, question="Q?", answer="A.", flow="docs", fingerprint="",
        outcome=Outcome.MISS, reason=Reason.NOT_STORED, trace_id="",
    )  # fmt: skip


class Scene:
    """A question on its way, with what is known of its session."""

    def __init__(self, folder: Path) -> None:
        settings = load_settings({}, environ={"AFW_CONFIG_DIR": str(folder)}, directory=folder)
        self.registry = Registry(settings)
        self.registry.register("docs", str.upper, intent_keywords=["Créer un compte"])
        policies = nothing_said()
        self.planner = Planner(settings, self.registry, Keys("t"), policies, Redacting(settings, policies))

    def step(
        self, recalled: Recalled | None = None, *, at: float = 100 * HOUR, error: Any = None, **asked: Any
    ) -> Step:
        question = self.planner.admit("What is kept?", flow="docs", **asked)
        question = msgspec.structs.replace(question, at=at)
        known = Conversation(recalled or Recalled())
        facts = Facts(
            directives=question.directives, found=(), fingerprint="", generation=0, now=at,
            lifetime=Lifetime(ttl=timedelta(1)),
        )  # fmt: skip
        return Step(
            asked=question,
            plan=self.planner.plan(question, known),
            read=Read(known=known, state=FlowState(), type_ttl=None, found=(), error=error),
            facts=facts,
            decision=Ask(Reason.NOT_STORED),
            considered=(),
            patience=Patience(1.0),
        )

    def fields(self, step: Step, **facts: Any) -> dict[str, int]:
        return dict(answered(step, answer(**facts), None, IntentLabels()).fields)


def answer(outcome: Outcome = Outcome.MISS, reason: Reason = Reason.NOT_STORED, elapsed_ms: float = 0.0) -> Answer:
    return Answer(
        text="A.", flow="docs", flow_id="docs", flow_name="docs", session_id="s", turn_id="t", trace_id="x",
        outcome=outcome, reason=reason, question="What is kept?", elapsed_ms=elapsed_ms,
    )  # fmt: skip


def entry(flow_ms: float | None = 2000.0) -> Entry:
    return Entry(
        question="what is kept", identity="", answer="A.", flow="docs", flow_id="docs", flow_name="docs",
        fingerprint="", generation=0, created_at=time.time(), ttl_seconds=60.0, trace_id="o", turn_id="o",
        flow_ms=flow_ms, tokens_in=30, tokens_out=4,
    )  # fmt: skip


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def sessions(fields: dict[str, int]) -> set[str]:
    return {name.removeprefix("session:") for name in fields if name.startswith("session:")}


def known(last: float, turns: int = 3, damaged: int = 0) -> Recalled:
    read = tuple(turn(number) for number in range(turns))
    return Recalled(Session(id="s", turns=turns, last_active_at=last), read, read[0] if read else None, damaged)


@pytest.mark.parametrize(
    ("recalled", "counted"),
    [
        (Recalled(), {"begun", "active@hour", "active@day"}),
        (known(0.0, turns=0), {"begun", "active@hour", "active@day"}),  # configured, and nothing asked yet
        (known(100 * HOUR - 1), {"known", "kept", "active@hour"}),  # the hour has just turned
        (known(100 * HOUR), {"known", "kept"}),
        (known(100 * HOUR - 1799), {"known", "kept", "active@hour"}),
        (known(100 * HOUR - 1800), {"known", "kept", "active@hour", "paused"}),
        (known(96 * HOUR), {"known", "kept", "active@hour", "paused"}),  # since midnight
        (known(96 * HOUR - 1), {"known", "kept", "active@hour", "active@day", "paused"}),
        (known(100 * HOUR, damaged=1), {"known"}),
    ],
)
def test_how_a_question_stands_to_its_session(scene: Scene, recalled: Recalled, counted: set[str]) -> None:
    assert sessions(scene.fields(scene.step(recalled, session="s"))) == counted


def test_a_session_that_could_not_be_read(scene: Scene) -> None:
    away = StoreUnavailable("away", command="")
    assert sessions(scene.fields(scene.step(session="s", error=away))) == {"unread"}
    assert sessions(scene.fields(scene.step(known(100 * HOUR), session="s", error=away))) == {"known", "kept"}
    assert sessions(scene.fields(scene.step())) == {"alone", "active@hour", "active@day"}
    assert sessions(scene.fields(scene.step(directives=Directives(no_store=True)))) == set()


def test_what_is_saved_is_what_the_flow_took_less_what_the_asker_waited(scene: Scene) -> None:
    step = scene.step()

    def saved(outcome: Outcome, reason: Reason, waited: float, call: Entry | None) -> tuple[int | None, int | None]:
        fields = answered(step, answer(outcome, reason, waited), call, IntentLabels()).fields
        assert ("saved_us" in fields) == any(name[0] == "s" and name[1:].isdigit() for name in fields)
        return fields.get("saved_us"), fields.get("saved_in")

    assert saved(Outcome.HIT, Reason.EXACT, 5.0, entry()) == (1_995_000, 30)
    assert saved(Outcome.JOINED, Reason.IN_FLIGHT, 1500.0, entry()) == (500_000, 30)
    assert saved(Outcome.JOINED, Reason.IN_FLIGHT, 2500.0, entry()) == (0, 30)
    assert saved(Outcome.STALE, Reason.MAX_STALE, 0.0, entry()) == (2_000_000, 30)
    assert saved(Outcome.STALE, Reason.FLOW_FAILED, 0.0, entry()) == (None, None)  # the flow was called
    assert saved(Outcome.HIT, Reason.EXACT, 5.0, entry(flow_ms=None)) == (None, 30)
    assert saved(Outcome.MISS, Reason.NOT_STORED, 5.0, None) == (None, None)


def test_times_of_hits_and_of_calls() -> None:
    assert hit_time(Outcome.SIMILAR, 1.5) == {"hit_us": 1500, f"h{bucket_of(1500)}": 1}
    assert hit_time(Outcome.MISS, 1.5) == hit_time(Outcome.JOINED, 1.5) == {}
    told = {"calls": 1, "flow_us": 2_000_000, f"f{bucket_of(2e6)}": 1}
    assert called(AnswerDone(text="A."), 2000.0) == told
    assert called(AnswerDone(text="A.", tokens=Tokens(5, 2)), 2000.0) == told | {"tokens_in": 5, "tokens_out": 2}


def test_intents_are_labels_only_in_the_words_of_the_registry(scene: Scene) -> None:
    labels, snapshot = IntentLabels(), scene.registry.current()
    for intent in ("creer un  COMPTE", "Créer un compte"):
        assert labels.label(intent, snapshot) == "Créer un compte"
    assert labels.label("DOCS", snapshot) == "docs"
    assert labels.label("my cousin's illness", snapshot) == OTHER_INTENT
    scene.registry.register("more", str.upper, intent_keywords=["my cousin's illness"])
    assert labels.label("my cousin's illness", scene.registry.current()) == "my cousin's illness"
    fields = scene.fields(scene.step(intent="what my cousin has"))
    assert fields["intent:~"] == 1
    assert "cousin" not in repr(fields)


def test_an_asker_is_a_digest_and_not_counted_where_a_session_keeps_the_question(scene: Scene) -> None:
    counted = answered(scene.step(user="ana"), answer(Outcome.HIT, Reason.EXACT), entry(), IntentLabels())
    assert (counted.asker, counted.asked) == (asker_digest("ana"), {"asked": 1, "served": 1, "saved_ms": 2000})
    assert failed(scene.step(user="ana"), FlowTimeout("late")).asked == {"failed": 1}
    for directives in (Directives(private=True), Directives(no_store=True)):
        step = scene.step(user="ana", directives=directives)
        assert answered(step, answer(), None, IntentLabels()).asker == ""
        assert failed(step, FlowTimeout("late")).asker == ""
    assert answered(scene.step(), answer(), None, IntentLabels()).asker == ""
    assert [sharing for sharing in Sharing if counts_asker(sharing, private=False)] == [Sharing.TEAM, Sharing.USER]
