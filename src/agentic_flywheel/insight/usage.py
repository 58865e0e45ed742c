"""What a tenant's memory comes to: hits and misses over time, what they took, what they saved, by flow, reason, user.

Invariant: everything is read from counters (`store.counters`), which hold no words of people. What each user asked is
told to the operator, who names no caller, and to that user; to nobody else. Names of users are not kept with the
counters: they are found again among the owners of sessions that are still there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.counting import OTHER_INTENT
from agentic_flywheel.durations import parse_duration
from agentic_flywheel.errors import InputError
from agentic_flywheel.flows.protocol import FlowHealth
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.insight.condition import FlowCondition, HealthReport, condition_of
from agentic_flywheel.insight.figures import Price, figures_of, whole_of
from agentic_flywheel.insight.rows import Breakdown, Row, Series, UsageReport, row_of, series_of
from agentic_flywheel.insight.windows import FEW, Window, buckets_of, step_of, window_of
from agentic_flywheel.model import Receipt
from agentic_flywheel.policy.admission import admit_id
from agentic_flywheel.search.history.query import moment_of
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.counters import KEPT, OTHERS, Fields, Tier, added, asker_digest
from agentic_flywheel.store.store import Store

if TYPE_CHECKING:
    from agentic_flywheel.model import Session

#: What the figures of usage may be broken down by.
DIMENSIONS = ("hour", "day", "flow", "reason", "intent", "user")
_WEEK = 7 * 86400.0
_DEFAULT_SECONDS = {"hour": 86400.0}
#: Sessions whose owners are looked through to find the names of users again.
_NAMED_SESSIONS = 5000
_PAGE = 500
_OTHERS = "(others)"
_NO_INTENT = "(none named)"

Moment = str | float | None


class Usage:
    """The figures of one tenant.

    async with Flywheel.open() as flywheel:
        report = await flywheel.usage.report(since="2 days")
        print(report.total.hit_rate, report.total.hits.p95_ms, report.total.saved_seconds)
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        store: Store,
        behind: WriteBehind,
        check: Callable[[str], Awaitable[FlowHealth]],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._user = settings.text("user")
        self._currency = settings.text("usage.currency")
        self._check_seconds = settings.number("flow.check_timeout_seconds")
        self._registry = registry
        self._store = store
        self._behind = behind
        self._check = check  # looks whether a flow could be asked
        self._clock = clock

    async def report(self, *, since: Moment = None, until: Moment = None, flow: str | None = None) -> UsageReport:
        """What questions came to, in all and by flow; of the last 7 days if nothing else is said.

        `since` and `until` are dates, durations ("2 days" ago) or epoch seconds; they are widened to whole hours.
        Raises `InputError`, `UnknownFlow` and `StoreError`.
        """
        window, now = self._window(since, until, _WEEK)
        window = window.aligned(Tier.HOUR)
        rows = await self._by_flow(flow, window, now)
        prices = {name: self._price(name) for name in rows}
        active = None
        if flow is None and window.until >= now:
            active = await self._store.counters.sessions_since(window.since)
        return UsageReport(
            since=window.since,
            until=min(window.until, now),
            flow=flow or "",
            currency=self._currency,
            total=whole_of([(fields, prices[name]) for name, fields in rows.items()], active=active),
            flows=tuple(figures_of(name, fields, prices[name]) for name, fields in rows.items()),
        )

    async def series(
        self,
        *,
        since: Moment = None,
        until: Moment = None,
        flow: str | None = None,
        step: str | float | None = None,
        most: int = FEW,
    ) -> Series:
        """The same over time, for charts: steps without gaps, those without questions as zeros.

        `step` is a duration ("5m", "1h", "1d") or seconds; without one there are no more steps than `most`. Steps of
        less than an hour tell outcomes and failures, of the last 7 days; wider ones times, too. Steps begin on whole
        minutes, hours and days of UTC. Raises `InputError`, `UnknownFlow` and `StoreError`.
        """
        window, now = self._window(since, until, _WEEK)
        seconds = parse_duration(step).total_seconds() if isinstance(step, str) else step
        width = step_of(window, seconds, now=now, most=most)
        tier = Tier.DAY if width % Tier.DAY == 0 else Tier.HOUR if width >= Tier.HOUR else Tier.MINUTE
        starts, buckets = _starts(window, width), width // tier
        first = int(starts[0] // tier)
        found = await self._spans(await self._names(flow), tier, range(first, first + len(starts) * buckets))
        steps: list[Fields] = [{} for _ in starts]
        for span in found:
            for at, fields in enumerate(span):
                if fields:
                    own = steps[at // buckets]
                    for field, amount in fields.items():
                        own[field] = own.get(field, 0) + amount
        return series_of(starts, steps, step_seconds=width, until=min(starts[-1] + width, now), flow=flow or "")

    async def by(
        self,
        dimension: str,
        *,
        since: Moment = None,
        until: Moment = None,
        flow: str | None = None,
        user: str | None = None,
    ) -> Breakdown:
        """The same in rows, by one of `DIMENSIONS`; of the last 7 days, by hour of the last one, if nothing is said.

        `user` is who looks, as for `History.search`: by user, somebody sees their own row, and the operator ("") all.
        Raises `InputError`, `UnknownFlow` and `StoreError`.
        """
        if dimension not in DIMENSIONS:
            raise InputError(f"{dimension!r} is none of {', '.join(DIMENSIONS)}")
        window, now = self._window(since, until, _DEFAULT_SECONDS.get(dimension, _WEEK))
        tier = Tier.DAY if dimension in {"day", "user"} else Tier.HOUR
        window = window.aligned(tier)
        caller = self._user if user is None else user
        rows: list[Row]
        match dimension:
            case "user":
                if flow is not None:
                    raise InputError("users are counted over all flows; leave the flow out")
                rows = await self._by_user(window, "" if caller == "" else admit_id(caller, "user"))
            case "hour" | "day":
                rows = await self._by_time(window, tier, flow)
            case "flow":
                found = await self._by_flow(flow, window, now)
                rows = [row_of(figures_of(name, fields, self._price(name))) for name, fields in found.items()]
                rows.sort(key=lambda row: -row.questions)
            case _:
                fields = added(list((await self._by_flow(flow, window, now)).values()))
                rows = _by_reason(fields) if dimension == "reason" else _by_intent(fields)
        return Breakdown(
            by=dimension,
            since=window.since,
            until=min(window.until, now),
            flow=flow or "",
            currency=self._currency,
            rows=tuple(rows),
        )

    async def health(self, *, since: Moment = None, flow: str | None = None, check: bool = True) -> HealthReport:
        """How flows do: times, failed calls, reports, and with `check` whether they can be reached now; of the last
        day if nothing else is said. Raises `InputError`, `UnknownFlow` and `StoreError`."""
        window, now = self._window(since, None, 86400.0)
        window = window.aligned(Tier.HOUR)
        counted = await self._by_flow(flow, window, now)
        snapshot = self._registry.current()
        specs = [snapshot.get(flow, inactive=True)] if flow is not None else list(snapshot.flows.values())
        checks: dict[str, FlowHealth] = {}
        if check:
            active = [spec.key for spec in specs if spec.active]
            checks = dict(zip(active, await asyncio.gather(*map(self._checked, active)), strict=True))
        found: list[FlowCondition] = []
        for spec in specs:
            fields = counted.get(spec.key, {})
            figures = figures_of(spec.key, fields, Price.of(spec))
            reports = {name.removeprefix("report:"): n for name, n in fields.items() if name.startswith("report:")}
            found.append(condition_of(spec, figures, reports, checks.get(spec.key)))
        return HealthReport(since=window.since, until=now, flows=tuple(found))

    async def forget(self, user: str, *, dry_run: bool) -> Receipt:
        """Remove what was counted of a user from all days; in the figures of flows it stays, where nobody is named.
        Raises `InputError` and `StoreError`."""
        await self._behind.flush()
        today = int(self._clock() // Tier.DAY)
        days = [today - back for back in range(KEPT.days + 1)]
        removed = await self._store.counters.forget_asker(asker_digest(admit_id(user, "user")), days, dry_run=dry_run)
        return Receipt(
            action="forget a user's counts",
            target=f"user {user}",
            dry_run=dry_run,
            removed={"days": removed},
            at=self._clock(),
        )

    async def _checked(self, flow: str) -> FlowHealth:
        try:
            async with asyncio.timeout(2 * self._check_seconds):
                return await self._check(flow)
        except TimeoutError:
            return FlowHealth(ok=False, notes=(f"It said nothing in {2 * self._check_seconds:g} s.",))

    def _window(self, since: Moment, until: Moment, default_seconds: float) -> tuple[Window, float]:
        now = self._clock()
        begin = moment_of(since, end=False, now=now) if isinstance(since, str) else since
        end = moment_of(until, end=True, now=now) if isinstance(until, str) else until
        return window_of(begin, end, now=now, default_seconds=default_seconds), now

    def _price(self, flow: str) -> Price:
        return Price.of(self._registry.current().flows.get(flow))

    async def _names(self, flow: str | None) -> list[str]:
        """The flows to read: the one named, or all that are known."""
        snapshot = self._registry.current()
        if flow is None:
            return sorted({*snapshot.flows, *await self._store.flows.known()})
        # Of one that was removed, the figures are still there.
        return [flow if flow in await self._store.flows.known() else snapshot.get(flow, inactive=True).key]

    async def _by_flow(self, flow: str | None, window: Window, now: float) -> dict[str, Fields]:
        """What was counted of each flow in a window; those of which nothing was are left out, unless named."""
        await self._behind.flush()
        names, places = await self._names(flow), buckets_of(window, now=now)
        found = await self._store.counters.buckets([(name, tier, n) for name in names for tier, n in places])
        sums = {name: added(found[at * len(places) : (at + 1) * len(places)]) for at, name in enumerate(names)}
        return {name: fields for name, fields in sums.items() if fields or flow is not None}

    async def _spans(self, names: Sequence[str], tier: Tier, numbers: range) -> list[list[Fields]]:
        """For each flow, what was counted in buckets that follow each other; of minutes, outcomes and failures."""
        await self._behind.flush()
        counters = self._store.counters
        if tier is Tier.MINUTE:
            return await counters.minutes(names, numbers)
        found = await counters.buckets([(name, tier, number) for name in names for number in numbers])
        return [found[at : at + len(numbers)] for at in range(0, len(found), len(numbers))]

    async def _by_time(self, window: Window, tier: Tier, flow: str | None) -> list[Row]:
        names = await self._names(flow)
        starts = _starts(window, tier)
        first = int(starts[0] // tier)
        spans = await self._spans(names, tier, range(first, first + len(starts)))
        prices = [self._price(name) for name in names]
        rows = []
        for at, start in enumerate(starts):
            parts = [(span[at], price) for span, price in zip(spans, prices, strict=True)]
            active = sum(fields.get("session:active", 0) for fields, _ in parts)
            moment = datetime.fromtimestamp(start, UTC)
            name = moment.strftime("%Y-%m-%d" if tier is Tier.DAY else "%Y-%m-%dT%H:00Z")
            rows.append(row_of(whole_of(parts, active=active), name=name, at=start))
        return rows

    async def _by_user(self, window: Window, caller: str) -> list[Row]:
        await self._behind.flush()
        days = [int(start // Tier.DAY) for start in _starts(window, Tier.DAY)]
        counted = await self._store.counters.askers(days)
        if caller:
            own = counted.get(asker_digest(caller))
            return [_user_row(caller, own)] if own else []
        others = counted.pop(OTHERS, None)
        names = await self._owners(set(counted))
        rows = [_user_row(names.get(digest, f"~{digest}"), fields) for digest, fields in counted.items()]
        rows.sort(key=lambda row: (-row.questions, row.name))
        return [*rows, _user_row(_OTHERS, others)] if others else rows

    async def _owners(self, digests: set[str]) -> dict[str, str]:
        """The names of users, as far as they own a session that is still there."""
        found: dict[str, str] = {}
        offset = 0
        while len(found) < len(digests) and offset < _NAMED_SESSIONS:
            page = await self._store.sessions.recent(user="", offset=offset, count=_PAGE)
            headers: Sequence[Session] = await self._store.sessions.headers(page)
            named = {asker_digest(header.owner): header.owner for header in headers if header.owner}
            found |= {digest: name for digest, name in named.items() if digest in digests}
            offset += _PAGE
            if len(page) < _PAGE:
                break
        return found


def _starts(window: Window, width: int) -> list[float]:
    """Where the steps of a window begin: on whole multiples of their width."""
    first = int(window.since // width) * width
    return [float(start) for start in range(first, max(first + 1, int(-(-window.until // 1))), width)]


def _by_reason(fields: Mapping[str, int]) -> list[Row]:
    counts = figures_of("", fields, Price()).reasons
    total = sum(counts.values())
    return [Row(name=name, questions=count, share=count / total) for name, count in counts.items()]


def _by_intent(fields: Mapping[str, int]) -> list[Row]:
    whole = figures_of("", fields, Price())
    named = {name.removeprefix("intent:"): n for name, n in fields.items() if name.startswith("intent:")}
    served = {name: fields.get(f"intent_served:{name}", 0) for name in named}
    if (rest := whole.questions - sum(named.values())) > 0:
        named[""], served[""] = rest, whole.served - sum(served.values())
    shown = {OTHER_INTENT: _OTHERS, "": _NO_INTENT}
    return [
        Row(
            name=shown.get(name, name),
            questions=count,
            served=served[name],
            hit_rate=served[name] / count,
            share=count / whole.questions,
        )
        for name, count in sorted(named.items(), key=lambda item: (item[0] in shown, -item[1], item[0]))
    ]


def _user_row(name: str, fields: Mapping[str, int]) -> Row:
    questions, served = fields.get("asked", 0), fields.get("served", 0)
    return Row(
        name=name,
        questions=questions,
        served=served,
        hit_rate=served / questions if questions else None,
        failed=fields.get("failed", 0),
        saved_seconds=fields.get("saved_ms", 0) / 1000,
    )
