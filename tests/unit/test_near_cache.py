"""The near cache without a server: whatever happens between a read and its keeping, what is known to have changed is
not served."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.model import Answer, Directives, Entry, FlowState, Lifetime, Outcome, Reason
from agentic_flywheel.near import Moment, NearCache
from agentic_flywheel.policy.decision import Facts, Serve
from agentic_flywheel.questions import Planner
from agentic_flywheel.recollection import Read
from agentic_flywheel.redacting import Redacting
from agentic_flywheel.remembered import UNKNOWN
from agentic_flywheel.settings import load_settings
from agentic_flywheel.steps import Step
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Patience
from agentic_flywheel.store.store import Store
from agentic_flywheel.watching import Standing
from flywheels import nothing_said

pytestmark = pytest.mark.anyio

QUESTION = "How is append-only persistence switched on?"


class Bench:
    """A near cache whose channel and queue are the test's own, and questions as they come back from Redis."""

    def __init__(self, folder: Path) -> None:
        (folder / "flows.yaml").write_text("flows: {}\n", "utf-8")
        named = {"registry": str(folder / "flows.yaml"), "redis_url": "redis://127.0.0.1:1/0", "near.enabled": True}
        loaded = load_settings(
            {**named, "near.max_staleness_seconds": 600.0, "flow.check_every_seconds": 600.0},
            environ={"AFW_CONFIG_DIR": str(folder)},
            directory=folder,
        )
        registry = Registry(loaded)
        registry.register("flow", str)
        snapshot = registry.current()
        still = SimpleNamespace(current=lambda: snapshot)  # the file was just written, so it is read again and again
        self.keys = Keys("default")
        policies = nothing_said()
        self._planner = Planner(loaded, registry, self.keys, policies, Redacting(loaded, policies))
        queue = SimpleNamespace(repeat=lambda repeat: True)
        self.near = NearCache(loaded, still, Store(loaded), SimpleNamespace(), queue)  # type: ignore[arg-type]
        self.near.channel = SimpleNamespace(trusted_until=float("inf"), start=lambda: None)  # type: ignore[assignment]

    def read(self, text: str, *, generation: int = 1, state: FlowState | None = None) -> tuple[Moment, Step, Answer]:
        """A question that has just been answered from Redis, with the moment before."""
        since = self.near.now()
        asked = self._planner.admit(QUESTION, flow="flow")
        plan = self._planner.plan(asked, UNKNOWN)
        (wanted,) = plan.wanted
        entry = Entry(
            question=wanted.question,
            identity=wanted.identity,
            answer=text,
            flow="flow",
            flow_id="flow",
            flow_name="flow",
            fingerprint="f",
            generation=generation,
            created_at=time.time(),
            ttl_seconds=1000.0,
            trace_id="origin",
            turn_id="t",
            session_id="s",
        )
        decision = Serve(entry, wanted, Reason.EXACT, 1000.0)
        step = Step(
            asked=asked,
            plan=plan,
            read=Read(state=state or FlowState(generation=generation), type_ttl=None, found=()),
            facts=Facts(
                directives=Directives(),
                found=(),
                fingerprint="f",
                generation=generation,
                lifetime=Lifetime(ttl=timedelta(seconds=1000), sliding=False, origin="default"),
                now=asked.at,
            ),
            decision=decision,
            considered=(),
            patience=Patience(1.0),
        )
        answer = Answer(
            text=text,
            flow="flow",
            flow_id="flow",
            flow_name="flow",
            session_id=asked.session,
            turn_id=asked.turn,
            trace_id=asked.trace,
            outcome=Outcome.HIT,
            reason=Reason.EXACT,
            question=QUESTION,
            key=wanted.key,
        )
        return since, step, answer

    def keep(self, since: Moment, step: Step, answer: Answer) -> None:
        self.near.keep(step, answer, since=since)

    @staticmethod
    def other(step: Step) -> Step:
        """The same for another question."""
        return msgspec.structs.replace(step, asked=msgspec.structs.replace(step.asked, text="?"))

    def ask(self) -> str | None:
        answer = self.near.answer(QUESTION, "flow", None, None)
        return None if answer is None else answer.text

    @property
    def entry_key(self) -> str:
        _, step, _ = self.read("")
        return step.plan.wanted[0].key


class Interleavings(RuleBasedStateMachine):
    """Reads, keeps, changes and the server's word of them, in any order; the value of an answer is how many changes
    came before it was read."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.bench = Bench(Path(self.folder.name))
        keys = self.bench.keys
        self.deciding = (self.bench.entry_key, keys.flow("flow"), keys.lifetimes)
        self.version = 0
        self.state = FlowState(generation=1)
        self.told = 0
        self.untold: deque[tuple[int, list[bytes] | None]] = deque()
        self.under_way: list[tuple[Moment, Step, Answer]] = []
        self.served = 0

    def teardown(self) -> None:
        self.folder.cleanup()

    @precondition(lambda self: len(self.under_way) < 4)
    @rule()
    def read(self) -> None:
        self.under_way.append(self.bench.read(str(self.version), generation=self.state.generation, state=self.state))

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 3))
    def keep(self, which: int) -> None:
        since, step, answer = self.under_way.pop(which % len(self.under_way))
        self.bench.near.keep(step, answer, since=since)

    @rule(what=st.integers(0, 3), cleared=st.booleans())
    def change(self, what: int, cleared: bool) -> None:
        self.version += 1
        if what == 1 and cleared:
            self.state = msgspec.structs.replace(self.state, generation=self.state.generation + 1)
        elif what == 1:
            self.state = msgspec.structs.replace(self.state, ttl_seconds=1000.0 + self.version)
        keys = None if what == 3 else [self.deciding[what].encode()]
        self.untold.append((self.version, keys))

    @rule()
    def check(self) -> None:
        """The flow was found as it was, and that was written down."""
        self.state = msgspec.structs.replace(self.state, checked_at=self.state.checked_at + 1.0)
        self.untold.append((self.version, [self.deciding[1].encode()]))

    @precondition(lambda self: self.untold)
    @rule()
    def be_told(self) -> None:
        self.told, keys = self.untold.popleft()
        self.bench.near._changed(keys)

    @rule(count=st.sampled_from([1, 255, 300]))
    def be_told_of_others(self, count: int) -> None:
        for number in range(count):
            self.bench.near._changed([b"afw:v1:default:team:flow:flow:q:{%d}" % number])

    @rule()
    def change_it_here(self) -> None:
        """By this process itself: it knows before the server tells."""
        self.version += 1
        self.untold.append((self.version, [self.deciding[0].encode()]))
        self.bench.near.forget(self.deciding[0])
        for _ in range(len(self.untold)):
            self.be_told()

    @rule()
    def ask(self) -> None:
        text = self.bench.ask()
        if text is not None:
            assert int(text) >= self.told, f"version {text} was served after word of {self.told}"


Interleavings.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestInterleavings = Interleavings.TestCase


def test_what_did_not_change_is_served(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    since, step, answer = bench.read("first")
    bench.near._changed([b"afw:v1:default:team:flow:flow:q:{other}"])
    bench.near.keep(step, answer, since=since)
    assert bench.ask() == "first"


def test_a_change_between_read_and_keep_forbids_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for changed in ([bench.entry_key.encode()], [bench.keys.flow("flow").encode()], None):
        since, step, answer = bench.read("old")
        bench.near._changed(changed)
        bench.near.keep(step, answer, since=since)
        assert bench.ask() is None


def test_a_flow_that_answers_with_something_else_takes_its_older_answers_along(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    since, step, answer = bench.read("old")
    bench.near.keep(step, answer, since=since)
    assert bench.ask() == "old"
    since, step, answer = bench.read("another question's", generation=2)
    bench.keep(since, bench.other(step), answer)
    assert bench.ask() is None


def test_what_is_believed_of_a_channel_that_is_silent_is_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    since, step, answer = bench.read("first")
    bench.near.keep(step, answer, since=since)
    bench.near.channel.trusted_until = time.monotonic() - 0.001
    assert bench.ask() is None


CHECKED = FlowState(generation=1, checked_at=5.0, etag="2")


def test_a_flow_that_was_checked_serves_once_a_question_has_found_it_as_it_was(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.keep(*bench.read("first"))
    bench.near._changed([bench.keys.flow("flow").encode()])
    assert bench.ask() is None
    since, step, answer = bench.read("another question's", state=CHECKED)
    bench.keep(since, bench.other(step), answer)
    assert bench.ask() == "first"


def test_a_question_that_began_before_a_flow_was_written_says_nothing_of_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.keep(*bench.read("first"))
    since, step, answer = bench.read("another question's")
    bench.near._changed([bench.keys.flow("flow").encode()])
    bench.keep(since, bench.other(step), answer)
    assert bench.ask() is None


async def test_a_look_that_began_before_a_flow_was_written_says_nothing_of_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.keep(*bench.read("first"))
    flow = bench.near._flows["flow"]

    async def current(*_: Any, **__: Any) -> Standing:
        bench.near._changed([bench.keys.flow("flow").encode()])
        return flow.standing

    bench.near._watch = SimpleNamespace(current=current)  # type: ignore[assignment]
    await bench.near._look_ahead(flow)
    assert bench.ask() is None


@pytest.mark.parametrize(
    "changed",
    [{"ttl_seconds": 9.0}, {"faq": "another"}, {"gone": b"somebody"}, {"generation": 2}, {"fingerprint": "f2"}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_flow_that_was_checked_and_changed_takes_its_older_answers_along(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    bench = Bench(tmp_path)
    bench.keep(*bench.read("first"))
    bench.near._changed([bench.keys.flow("flow").encode()])
    since, step, answer = bench.read("another question's", state=msgspec.structs.replace(CHECKED, **changed))
    bench.keep(since, bench.other(step), answer)
    assert bench.ask() is None
    assert bench.near.size_bytes < 4000, "the older answer is still there"
