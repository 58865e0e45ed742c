"""What traces are told of questions: by the way of a question while it is gone, by reports and audits later.

Invariant: a question's way hands over what it has anyway (its records, and clock readings); spans are made of that in
the sender's thread. Whatever is amiss with traces, no question hears of it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from agentic_flywheel.errors import FlywheelError
from agentic_flywheel.flows.protocol import AnswerDone
from agentic_flywheel.model import Answer, Entry, Turn
from agentic_flywheel.observe.marks import CALLER, Marks, context_of
from agentic_flywheel.observe.names import Score
from agentic_flywheel.observe.places import OFF, Place, place_of
from agentic_flywheel.observe.sending import Delivery, Sender, Unreachable
from agentic_flywheel.observe.texts import shown_by
from agentic_flywheel.questions import Asked
from agentic_flywheel.settings import Settings
from agentic_flywheel.steps import Step
from agentic_flywheel.traced import QUALITY, Judgement

if TYPE_CHECKING:
    from agentic_flywheel.observe.courier import HttpCourier

_log = logging.getLogger(__name__)


class Answered(NamedTuple):
    """A question that was answered. `origin` is what it was computed as, where it was served again."""

    step: Step
    answer: Answer
    origin: Entry | None


class AtHand(NamedTuple):
    """A question that was answered as one like it had been a moment ago, without being thought through again."""

    answer: Answer
    user: str
    parent: str
    at: float


class Failed(NamedTuple):
    """A question that was not answered; `step` is None where it had not been decided yet."""

    asked: Asked
    step: Step | None
    code: str
    message: str
    at: float


class Called(NamedTuple):
    """A call of a flow, however it ended; `purpose` says for whom: answer, refresh, audit, warm."""

    step: Step
    purpose: str
    began: float
    ended: float
    done: AnswerDone | None
    code: str
    message: str


class Scored(NamedTuple):
    """What was said of an answer afterwards; `turn` is "" where it was said of its session."""

    turn: str
    trace: str
    session: str
    user: str
    name: str
    value: float
    why: str
    at: float
    truth: bool = True
    by: str = ""


#: A caller's trace, its span, and whether it is recorded.
Context = tuple[str, str, bool]
Told = Answered | AtHand | Failed | Called | Scored


class Tracing:
    """The traces of one flywheel; made only where they go somewhere."""

    def __init__(
        self, settings: Settings, place: Place, version: str, told: Callable[[str, int], None] | None = None
    ) -> None:
        self.place = place
        self.text = settings.text("trace.text")
        self._version = version
        self._settings = settings
        self._sender = Sender(
            self._courier,
            most=int(settings["trace.queue"]),
            close_seconds=settings.number("trace.close_seconds"),
            told=told,
        )

    def begin(self, own: str) -> Marks:
        """The trace of a question that is asked now: its `own`, or the one that its caller is in."""
        context = _caller()
        if context is None:
            return Marks(own)
        trace, span, wanted = context
        return Marks(trace, span, wanted=wanted)

    def caller(self) -> Context | None:
        """The trace that whoever asks now is in, None for none."""
        return _caller()

    def answered(self, step: Step, answer: Answer, origin: Entry | None) -> None:
        """A question was answered, and its turn remembered."""
        marks = step.asked.marks
        if marks is not None and marks.wanted:
            self._sender.put(Answered(step, answer, origin))

    def at_hand(self, answer: Answer, user: str, caller: Context | None) -> None:
        """A question was answered without going the whole way."""
        if caller is None:
            self._sender.put(AtHand(answer, user, "", time.time()))
        elif caller[2]:
            self._sender.put(AtHand(answer, user, caller[1], time.time()))

    def failed(self, asked: Asked, error: FlywheelError, step: Step | None = None) -> None:
        """A question was not answered."""
        if asked.marks is not None and asked.marks.wanted:
            self._sender.put(Failed(asked, step, error.code, error.message, time.time()))

    def called(
        self,
        step: Step,
        purpose: str,
        began: float,
        *,
        done: AnswerDone | None = None,
        error: FlywheelError | None = None,
    ) -> None:
        """A flow was called; `began` is by the performance counter."""
        if step.asked.marks is not None and step.asked.marks.wanted:
            code, message = (error.code, error.message) if error else ("", "")
            self._sender.put(Called(step, purpose, began, time.perf_counter(), done, code, message))

    def judged(self, turn: Turn, judgement: Judgement) -> None:
        """Somebody said something of an answer, or ("" as the judgement's turn) of its session."""
        self._sender.put(
            Scored(
                judgement.turn_id,
                turn.trace_id,
                turn.session_id,
                turn.user,
                judgement.name,
                judgement.value,
                judgement.why,
                judgement.at,
                truth=judgement.name != QUALITY,
                by=judgement.by,
            )
        )

    def audited(self, step: Step, *, right: bool) -> None:
        """A similar question's answer was checked by asking the flow."""
        asked = step.asked
        if asked.marks is not None and asked.marks.wanted:
            self._sender.put(
                Scored(asked.turn, asked.trace, asked.session, asked.user, Score.AUDIT, float(right), "", time.time())
            )

    @property
    def delivery(self) -> Delivery:
        """How traces fare in this process."""
        return self._sender.delivery

    async def knock(self) -> Exception | None:
        """Why traces would not be taken now, None if they would; known within `trace.timeout_seconds`, and a second."""
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[Exception | None] = loop.create_future()

        def tell(problem: Exception | None) -> None:
            if not heard.done():
                heard.set_result(problem)

        def ask() -> None:
            problem: Exception | None = None
            try:
                courier = self._courier()
                try:
                    courier.knock()
                finally:
                    courier.close()
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is why they are not taken
                problem = error
            with suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(tell, problem)

        # Not the loop's own threads: the program would wait for those at its end.
        threading.Thread(target=ask, name="afw-traces-knock", daemon=True).start()
        try:
            async with asyncio.timeout(self._settings.number("trace.timeout_seconds") + 1):
                return await heard
        except TimeoutError:
            return Unreachable(f"{self.place.shown} did not answer in time")

    async def handed_over(self) -> None:
        """Wait a moment for what is queued to be handed over, as far as it can be."""
        await self._sender.idle(self._settings.number("trace.close_seconds"))

    def hurry(self) -> None:
        """The program is about to end."""
        self._sender.hurry()

    async def aclose(self) -> None:
        """Hand over what waits, for as long as `trace.close_seconds` say."""
        await self._sender.aclose()

    def _courier(self) -> HttpCourier:
        from agentic_flywheel.observe.courier import HttpCourier
        from agentic_flywheel.spelling import Spelling

        settings = self._settings
        spelling = Spelling(settings.text("tenant"), shown_by(settings), langfuse=bool(self.place.scores))
        return HttpCourier(
            self.place, spelling.records, timeout=settings.number("trace.timeout_seconds"), version=self._version
        )


def _caller() -> Context | None:
    """The trace that whoever asks is in: as the call says that is being served, or as the program's own OpenTelemetry
    says (which is where the MCP SDK leaves what its clients say)."""
    if written := CALLER.get():
        return context_of(written)
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    context = api.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", bool(context.trace_flags & 1)


def tracing_of(
    settings: Settings, version: str, told: Callable[[str, int], None] | None = None
) -> tuple[Tracing | None, FlywheelError | None]:
    """The traces that the settings ask for; None where none are, or where they cannot be made, and then why."""
    if settings.text("trace.exporter") == OFF:
        return None, None
    try:
        place = place_of(settings)
    except FlywheelError as error:
        _log.error("no traces are made: %s", error)
        return None, error
    return (None if place is None else Tracing(settings, place, version, told)), None
