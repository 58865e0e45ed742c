"""What counters come to: rates, percentiles, time and money saved, sessions.

Invariant: pure, and nothing is made up: a rate without anything to rate, a percentile of nothing and money without a
price are None. Figures of a whole follow from the sums of its parts' counters, never from their rates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.insight.latency import Latency, latency_of, percentile
from agentic_flywheel.model import Outcome
from agentic_flywheel.store.counters import added

#: Outcomes of questions that needed no call of the flow of their own.
SERVED = (Outcome.HIT.value, Outcome.SIMILAR.value, Outcome.STALE.value, Outcome.JOINED.value)


class SessionFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What questions came to as parts of conversations.

    `new` sessions began, `alone` of them with a question that named none. `active` had a question (told of an hour or a
    day; of more than that only for all flows up to now). `resumed` counts questions in a session that was there,
    `after_pause` those of them after half an hour or more. `continuity` is the share of questions in a session that was
    there, or could not be read, that got its turns.
    """

    new: int = 0
    alone: int = 0
    active: int | None = None
    resumed: int = 0
    after_pause: int = 0
    unread: int = 0
    continuity: float | None = None


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What became of questions: of one flow (`name`), or of all (""), in some time.

    `questions` were answered, `served` of them without a call of the flow of their own; `failed` ended in an error,
    `refused` wanted a stored answer or none; `damaged` stored values were met. `calls` of the flow were answered, in
    the background too (`warm_calls` of them a warm-up's), `failed_calls` were not (`errors`, by code). `saved_seconds`
    is what the flow took for answers that were served again, less what askers waited. Money is in the currency of the
    report, None without a price.
    """

    name: str = ""
    questions: int = 0
    served: int = 0
    hit_rate: float | None = None
    miss_rate: float | None = None
    outcomes: dict[str, int]
    reasons: dict[str, int] = {}
    failed: int = 0
    failures: dict[str, int] = {}
    refused: int = 0
    damaged: int = 0
    hits: Latency = Latency()
    flow: Latency = Latency()
    calls: int = 0
    warm_calls: int = 0
    failed_calls: int = 0
    errors: dict[str, int] = {}
    error_rate: float | None = None
    saved_seconds: float = 0.0
    saved_p50_seconds: float | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    saved_tokens_in: int = 0
    saved_tokens_out: int = 0
    spent: float | None = None
    saved: float | None = None
    sessions: SessionFigures = SessionFigures()


class Price(msgspec.Struct, frozen=True):
    """What a call of a flow costs; None where the registry does not say."""

    per_call: float | None = None
    per_1000_in: float | None = None
    per_1000_out: float | None = None

    @classmethod
    def of(cls, spec: FlowSpec | None) -> Price:
        """The price of a flow; of one that is not in the registry (any more) nothing is known."""
        if spec is None:
            return cls()
        return cls(spec.price_per_call, spec.price_per_1000_tokens_in, spec.price_per_1000_tokens_out)

    def sum(self, calls: int, tokens_in: int, tokens_out: int) -> float | None:
        """What so many calls cost; None without a price, or where tokens have one and the flow tells of none.

        >>> Price(0.01, None, 0.002).sum(3, 5000, 1000), Price().sum(3, 5000, 1000), Price(None, 0.5, 1.0).sum(3, 0, 0)
        (0.032, None, None)
        """
        by_token = self.per_1000_in is not None or self.per_1000_out is not None
        if self.per_call is None and (not by_token or (calls and not tokens_in and not tokens_out)):
            return None
        tokens = (tokens_in * (self.per_1000_in or 0.0) + tokens_out * (self.per_1000_out or 0.0)) / 1000
        return calls * (self.per_call or 0.0) + tokens


def figures_of(name: str, fields: Mapping[str, int], price: Price, *, active: int | None = None) -> Figures:
    """The figures of counters; `active` sessions where something else than these counters knows."""
    outcomes = {outcome.value: fields.get(f"outcome:{outcome}", 0) for outcome in Outcome}
    questions = sum(outcomes.values())
    served = sum(outcomes[name] for name in SERVED)
    calls, failed_calls = fields.get("calls", 0), fields.get("errors", 0)
    spent, saved = _money(fields, price)
    saved_p50_us = percentile(_buckets(fields, "s"), 0.5)
    return Figures(
        name=name,
        questions=questions,
        served=served,
        hit_rate=served / questions if questions else None,
        miss_rate=outcomes["miss"] / questions if questions else None,
        outcomes=outcomes,
        reasons=_named(fields, "reason:"),
        failed=fields.get("failed", 0),
        failures=_named(fields, "failed:"),
        refused=fields.get("refused", 0),
        damaged=fields.get("damaged", 0),
        hits=latency_of(_buckets(fields, "h"), fields.get("hit_us", 0)),
        flow=latency_of(_buckets(fields, "f"), fields.get("flow_us", 0)),
        calls=calls,
        warm_calls=fields.get("warm_calls", 0),
        failed_calls=failed_calls,
        errors=_named(fields, "error:"),
        error_rate=failed_calls / (calls + failed_calls) if calls + failed_calls else None,
        saved_seconds=fields.get("saved_us", 0) / 1e6,
        saved_p50_seconds=None if saved_p50_us is None else saved_p50_us / 1e6,
        tokens_in=fields.get("tokens_in", 0),
        tokens_out=fields.get("tokens_out", 0),
        saved_tokens_in=fields.get("saved_in", 0),
        saved_tokens_out=fields.get("saved_out", 0),
        spent=spent,
        saved=saved,
        sessions=_sessions_of(fields, active),
    )


def whole_of(parts: Sequence[tuple[Mapping[str, int], Price]], *, active: int | None = None) -> Figures:
    """The figures of several flows together, each with a price of its own."""
    money = [_money(fields, price) for fields, price in parts]
    whole = figures_of("", added([fields for fields, _ in parts]), Price(), active=active)
    return msgspec.structs.replace(
        whole, spent=_total(spent for spent, _ in money), saved=_total(saved for _, saved in money)
    )


def _money(fields: Mapping[str, int], price: Price) -> tuple[float | None, float | None]:
    """What calls cost, and those that were not needed."""
    served = sum(fields.get(f"outcome:{name}", 0) for name in SERVED)
    spared = served - fields.get("reason:flow_failed", 0)  # where an answer stands in, the flow was called
    return (
        price.sum(fields.get("calls", 0), fields.get("tokens_in", 0), fields.get("tokens_out", 0)),
        price.sum(spared, fields.get("saved_in", 0), fields.get("saved_out", 0)),
    )


def _total(amounts: Iterable[float | None]) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None


def _sessions_of(fields: Mapping[str, int], active: int | None) -> SessionFigures:
    known, unread = fields.get("session:known", 0), fields.get("session:unread", 0)
    alone = fields.get("session:alone", 0)
    return SessionFigures(
        new=alone + fields.get("session:begun", 0),
        alone=alone,
        active=active,
        resumed=known,
        after_pause=fields.get("session:paused", 0),
        unread=unread,
        continuity=fields.get("session:kept", 0) / (known + unread) if known + unread else None,
    )


def _named(fields: Mapping[str, int], prefix: str) -> dict[str, int]:
    """The counts whose names begin so, largest first."""
    found = {name.removeprefix(prefix): n for name, n in fields.items() if name.startswith(prefix) and n}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _buckets(fields: Mapping[str, int], letter: str) -> dict[int, int]:
    return {int(name[1:]): n for name, n in fields.items() if name[:1] == letter and name[1:].isdigit()}
