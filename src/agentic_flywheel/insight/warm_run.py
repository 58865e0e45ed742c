"""One warm-up at work: which question comes next, what came of it, and when to stop.

Invariant: a call is taken from the budget before it is made; a follow-up is asked only after the question before it
has its answer, with exactly that answer in front of it; what was found out is written down question by question, so
whoever goes on with a warm-up that was cut off asks nothing twice. What is under way when a bound is reached is waited
for.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress

import msgspec

from agentic_flywheel.admission import GaveWay
from agentic_flywheel.errors import FlowError, InputError, NotFound, StoreError
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.insight.figures import Price
from agentic_flywheel.model import Entry, Reason
from agentic_flywheel.policy.decision import Ask, ServeStale
from agentic_flywheel.policy.identity import digest
from agentic_flywheel.remembered import UNKNOWN, Conversation
from agentic_flywheel.steps import Step
from agentic_flywheel.store.warm_jobs import BEAT_SECONDS, WarmJob, WarmJobs
from agentic_flywheel.warmer import Called, Warmer, followed
from agentic_flywheel.warmups import NotWarmed, WarmBound, WarmItem, WarmOutcome, WarmPath, WarmProgress

#: A flow that failed so often in a row is left alone: the budget is better spent elsewhere.
FAILURES_IN_A_ROW = 3
#: How often a question gives way to people before it is given up.
MOST_ATTEMPTS = 5


class Node:
    """A question with its follow-ups. `told` says that its words were given by whoever ordered the warm-up, so that
    they may be written down; those of popular questions may not."""

    def __init__(self, question: str, before: Node | None, *, flow: str, standalone: bool, told: bool) -> None:
        self.question = question
        self.path: tuple[str, ...] = (*before.path, before.question) if before else ()
        self.flow = flow
        self.standalone = standalone
        self.told = told
        self.name = digest("warm", flow, *self.path, question)
        self.follow_ups: list[Node] = []
        self.after: Conversation = UNKNOWN
        self.attempts = 0
        self.order = 0

    def __lt__(self, other: Node) -> bool:
        return (self.attempts, self.order) < (other.attempts, other.order)


def roots_of(paths: Sequence[tuple[WarmPath, bool]]) -> tuple[list[Node], int]:
    """Paths as trees, what they begin with in common only once; and how many questions there are. Each path comes with
    whether its words were told (see `Node`)."""
    roots: list[Node] = []
    known: dict[str, Node] = {}
    for path, told in paths:
        before: Node | None = None
        for question in path.questions:
            node = Node(question, before, flow=path.flow, standalone=path.standalone, told=told)
            if (same := known.get(node.name)) is None:
                node.order = len(known)
                known[node.name] = node
                (before.follow_ups if before else roots).append(node)
            else:
                same.standalone |= node.standalone
                same.told |= node.told
            before = known[node.name]
    return roots, len(known)


class WarmRun:
    """A warm-up under way: iterate over `events`, once. `jobs` None is a dry run, which asks and writes nothing."""

    def __init__(
        self,
        warmer: Warmer,
        jobs: WarmJobs | None,
        job: WarmJob,
        roots: Sequence[Node],
        total: int,
        *,
        items: Mapping[str, WarmItem],
        concurrency: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.job = job
        self.total = total
        self.items = dict(items)
        self.calls = job.calls
        self.money = job.money
        self.bound: WarmBound | None = None
        self.left: Counter[str] = Counter()
        self.ended = False
        self._announced = self._to_stop = False
        self._warmer = warmer
        self._jobs = jobs
        self._concurrency = concurrency
        self._tokens: dict[str, tuple[int, int]] = {}  # the most that a call of a flow took
        self._clock = clock
        self._began = self._told = clock()
        self._ready = list(roots)
        heapq.heapify(self._ready)
        self._busy = 0
        self._calling = 0
        self._failures: Counter[str] = Counter()
        self._changed = asyncio.Condition()
        self._news: asyncio.Queue[WarmProgress | None] = asyncio.Queue()
        self._done = 0

    @property
    def seconds(self) -> float:
        """The time that this warm-up has taken, earlier runs of it included."""
        return self.job.seconds + self._clock() - self._began

    async def announce(self) -> None:
        """Write down that it is ordered and goes on, once."""
        if self._jobs is not None and not self._announced:
            await self._jobs.order(self.job.order, self.job.budget)
            await self._beat()
        self._announced = True

    async def events(self) -> AsyncGenerator[WarmProgress, None]:
        """Do the work, and tell of each question that is done. Closing it stops it, as does a `StoreError`."""
        await self.announce()
        workers = [asyncio.create_task(self._work()) for _ in range(self._concurrency)]
        beating = asyncio.create_task(self._beats())
        watching = asyncio.create_task(self._watch(workers))
        try:
            while (told := await self._news.get()) is not None:
                yield told
            if not self._to_stop:
                await watching
                self.ended = True
        finally:
            for task in (*workers, beating, watching):
                task.cancel()
            await asyncio.gather(*workers, beating, watching, return_exceptions=True)
            if not self.ended:
                self.bound = WarmBound.STOPPED
            await asyncio.shield(self._end())

    async def _watch(self, workers: Sequence[asyncio.Task[None]]) -> None:
        """Wait for all workers, or the first that fails, and say that this was all."""
        try:
            done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            for worker in done:
                worker.result()
        finally:
            self._news.put_nowait(None)

    async def _work(self) -> None:
        while (node := await self._next()) is not None:
            item = await self._one(node)
            async with self._changed:
                self._busy -= 1
                if item is None:  # it gave way: its turn comes again, after all others
                    node.attempts += 1
                    heapq.heappush(self._ready, node)
                self._changed.notify_all()

    async def _next(self) -> Node | None:
        async with self._changed:
            while not self._ready:
                if not self._busy:
                    return None
                await self._changed.wait()
            self._busy += 1
            return heapq.heappop(self._ready)

    async def _one(self, node: Node) -> WarmItem | None:
        """See to one question; None where it gave way and is to be tried again."""
        try:
            item, after = await self._settled(node)
        except (InputError, NotFound, FlowError) as error:
            item, after = self._item(node, WarmOutcome.FAILED, error.code, error.message), None
        if item is None:
            return None
        await self._tell(item, node)
        if after is None:
            await self._leave(node, item)
        else:
            for follow_up in node.follow_ups:
                follow_up.after = after
                heapq.heappush(self._ready, follow_up)
        return item

    async def _settled(self, node: Node) -> tuple[WarmItem | None, Conversation | None]:
        """What came of a question, and the conversation that goes on from its answer, where there is one."""
        if self.bound is WarmBound.STOPPED:
            return self._left(node, WarmBound.STOPPED), None
        if self._seconds_left() == 0:
            return self._left(node, WarmBound.TIME), None
        step = await self._look(node)
        known = self._without_asking(node, step)
        if known is not None:
            return known
        if self._jobs is None:
            return self._item(node, WarmOutcome.DUE, step.reason.value, "it would be asked", step), None
        return await self._ask(self._jobs, node, step)

    async def _ask(self, jobs: WarmJobs, node: Node, step: Step) -> tuple[WarmItem | None, Conversation | None]:
        spec = step.plan.spec
        if self._failures[spec.key] >= FAILURES_IN_A_ROW:
            return self._left(node, WarmBound.FLOW, step), None
        price = Price.of(spec).sum(1, *self._tokens.get(spec.key, (0, 0))) or 0.0
        if (bound := await self._take(jobs, price)) is not None:
            return self._left(node, bound, step), None
        spent: float | None = None
        try:
            async with AsyncExitStack() as held:
                try:
                    async with asyncio.timeout(self._seconds_left()):
                        spare = await held.enter_async_context(self._warmer.place(step))
                except TimeoutError:
                    return self._left(node, WarmBound.TIME, step), None
                step = await self._look(node)  # it may have taken long to get the place
                if (known := self._without_asking(node, step)) is not None:
                    return known
                spent = price  # from here on, unless it is known better
                called = await self._warmer.call(step, spare)
                spent = self._cost(spec, called, price)
        finally:
            await asyncio.shield(self._settle(jobs, price, spent))
        return self._came_of(node, step, called)

    def _came_of(self, node: Node, step: Step, called: Called) -> tuple[WarmItem | None, Conversation | None]:
        landed, error = called.landed, called.error
        reason, note = "incomplete", "the flow gave no full answer"
        if landed is not None:
            self._failures[step.plan.spec.key] = 0
            if landed.complete and landed.stored:
                outcome = WarmOutcome.STORED if landed.own else WarmOutcome.WARM
                told = step.reason.value if landed.own else Reason.IN_FLIGHT.value
                item = self._item(node, outcome, told, "", step, called=called.called, entry=landed.entry)
                return item, followed(node.after, step, landed.entry)
            if landed.complete:
                reason, note = "store_unavailable", "Redis did not take the answer"
        elif isinstance(error, GaveWay):
            if node.attempts + 1 < MOST_ATTEMPTS:
                return None, None
            reason, note = "gave_way", f"it gave way to people {MOST_ATTEMPTS} times"
        elif error is not None:
            self._failures[step.plan.spec.key] += 1
            reason, note = error.code, error.message
        return self._item(node, WarmOutcome.FAILED, reason, note, step, called=called.called), None

    async def _look(self, node: Node) -> Step:
        return await self._warmer.look(node.question, flow=node.flow, after=node.after)

    def _without_asking(self, node: Node, step: Step) -> tuple[WarmItem, Conversation | None] | None:
        """What comes of a question that need not, or may not, be asked; None where it is to be asked."""
        refused = self._warmer.refusal(step, standalone=node.standalone)
        if refused is not None:
            reason, note = refused
            return self._item(node, WarmOutcome.REFUSED, reason.value, note, step), None
        entry = self._warmer.fresh(step)
        again = self.job.order.refresh and step.decision.reason is not Reason.CURATED  # nobody's words but a person's
        if entry is not None and not (again and entry.created_at < self.job.order.at):
            item = self._item(node, WarmOutcome.WARM, step.reason.value, "", step, entry=entry)
            return item, followed(node.after, step, entry)
        if isinstance(step.decision, ServeStale):
            note = "the flow's configuration could not be confirmed"
            return self._item(node, WarmOutcome.FAILED, step.reason.value, note, step), None
        if entry is None and not isinstance(step.decision, Ask) and not step.plan.wanted:
            return self._item(node, WarmOutcome.REFUSED, NotWarmed.NOT_SHARED.value, "nothing is kept", step), None
        return None

    async def _take(self, jobs: WarmJobs, price: float) -> WarmBound | None:
        """Take a call from the budget; where it is used up, first wait for calls that may be given back."""
        while True:
            bound = await jobs.take(self.job.order.id, price=price)
            if bound is None:
                self._calling += 1
                return None
            async with self._changed:
                if not self._calling or bound is WarmBound.STOPPED:
                    return bound
                await self._changed.wait()

    def _cost(self, spec: FlowSpec, called: Called, expected: float) -> float | None:
        """What a call cost, None where none was made; `expected` where the flow does not tell its tokens."""
        if not called.called:
            return None
        if called.landed is None:
            return expected
        tokens = called.landed.entry.tokens_in, called.landed.entry.tokens_out
        self._tokens[spec.key] = max(self._tokens.get(spec.key, (0, 0)), tokens, key=sum)
        cost = Price.of(spec).sum(1, *tokens)
        return expected if cost is None else cost

    async def _settle(self, jobs: WarmJobs, price: float, spent: float | None) -> None:
        """Give a call back that was not made, or pay what it cost beyond its expected price."""
        try:
            if spent is None:
                await jobs.give_back(self.job.order.id, price=price)
            else:
                self.calls += 1
                self.money += spent
                if spent != price:
                    await jobs.pay(self.job.order.id, spent - price)
        finally:
            async with self._changed:
                self._calling -= 1
                self._changed.notify_all()

    def _seconds_left(self) -> float | None:
        """What is left of the time; None where it has no bound."""
        most = self.job.budget.seconds
        return None if most is None else max(0.0, most - self.seconds)

    async def _leave(self, node: Node, item: WarmItem) -> None:
        """Tell of the follow-ups of a question that has no answer to go on from."""
        outcome, reason, note = item.outcome, item.reason, item.note
        if outcome in {WarmOutcome.REFUSED, WarmOutcome.FAILED}:
            reason, note = NotWarmed.PATH.value, "the question before it has no answer to go on from"
        for follow_up in node.follow_ups:
            await self._tell(self._item(follow_up, outcome, reason, note), follow_up)
            await self._leave(follow_up, item)

    def _left(self, node: Node, bound: WarmBound, step: Step | None = None) -> WarmItem:
        self.bound = self.bound or bound
        return self._item(node, WarmOutcome.LEFT, bound.value, _NOTES[bound], step)

    def _item(
        self,
        node: Node,
        outcome: WarmOutcome,
        reason: str,
        note: str,
        step: Step | None = None,
        *,
        called: bool = False,
        entry: Entry | None = None,
    ) -> WarmItem:
        wanted = step.plan.wanted if step else ()
        return WarmItem(
            name=node.name,
            outcome=outcome,
            reason=reason,
            note=note,
            question=node.question,
            path=node.path,
            flow=step.plan.spec.key if step else node.flow,
            key=wanted[0].key if wanted else "",
            called=called,
            flow_ms=entry.flow_ms if entry and called else None,
            at=time.time(),
        )

    async def _tell(self, item: WarmItem, node: Node) -> None:
        if item.outcome is WarmOutcome.LEFT:
            self.left[item.reason] += 1
        else:
            before = self.items.get(item.name)
            if before is None or before.outcome is not WarmOutcome.STORED or item.outcome is WarmOutcome.STORED:
                self.items[item.name] = item
            if self._jobs is not None:
                kept = item if node.told else msgspec.structs.replace(item, question="", path=())
                await self._jobs.note(self.job.order.id, kept)
        self._done += 1
        self._news.put_nowait(
            WarmProgress(job=self.job.order.id, item=item, done=self._done, total=self.total, asked=self.calls)
        )

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            with suppress(StoreError):  # what matters fails where it matters
                await self._beat()

    async def _beat(self) -> None:
        if self._jobs is not None:
            taken = self._since_told()
            goes_on = await self._jobs.beat(self.job.order.id, seconds=taken, total=self.total, now=time.time())
            if not goes_on and self._announced:  # whoever waits for a place, or for a flow, does not hear of it else
                self._to_stop = True
                self._news.put_nowait(None)

    async def _end(self) -> None:
        if self._jobs is not None:
            with suppress(StoreError):  # whoever looks sees that it has not been heard of for a while
                await self._jobs.end(
                    self.job.order.id, seconds=self._since_told(), total=self.total, bound=self.bound, now=time.time()
                )

    def _since_told(self) -> float:
        now = self._clock()
        taken, self._told = now - self._told, now
        return taken


_NOTES = {
    WarmBound.CALLS: "the calls that were allowed are made",
    WarmBound.TIME: "the time that was allowed is over",
    WarmBound.MONEY: "the money that was allowed is spent",
    WarmBound.FLOW: f"the flow failed {FAILURES_IN_A_ROW} times in a row",
    WarmBound.STOPPED: "it was stopped",
}
