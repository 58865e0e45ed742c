"""The decision of every question: serve what is stored, or ask the flow, and why.

Invariant: pure and total. Time, candidates and what is known of the flow are arguments; every path ends in one of
five values, each with its reason. What cannot be justified is asked: any doubt about an entry makes it no candidate.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agentic_flywheel.curated import Approved
from agentic_flywheel.model import Candidate, Directives, Entry, Lifetime, Reason
from agentic_flywheel.policy.lifetime import remaining_seconds


class Wanted(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """One place where a stored answer is looked for. `first_only` is the word-for-word exception: the entry counts
    only if its question was the first of a session, so that it has been shown to stand alone."""

    key: str
    scope: str
    question: str
    identity: str
    first_only: bool = False


class Found(msgspec.Struct, gc=False, frozen=True):
    """What was in one wanted place: an entry, nothing, or something damaged."""

    wanted: Wanted
    entry: Entry | None = None
    damaged: bool = False


class Facts(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """All that the decision rests on. `verified` says that the flow's configuration is confirmed recently enough;
    `shareable` is False where the flow's policy keeps nothing for anybody, `forbidden` True where a privacy policy lets
    no answer be kept or served, `unkeyed` where what would name the answer may not be kept. After the share
    `refresh_after` of its
    lifetime a served answer is to be refreshed; `stale_seconds` is how long after it an answer may stand in for a
    flow that fails. `curated` is the approved answer of the flow's FAQ to this very question, where there is one and
    the team's answers may be served at all."""

    directives: Directives
    found: Sequence[Found]
    fingerprint: str
    generation: int
    lifetime: Lifetime
    now: float
    jitter: float = 0.0
    verified: bool = True
    shareable: bool = True
    forbidden: bool = False
    unkeyed: bool = False
    refresh_after: float = 1.0
    stale_seconds: float = 0.0
    curated: Found | None = None


class Serve(msgspec.Struct, gc=False, frozen=True):
    """Serve this entry: it is what the flow would say. `refresh` says that its end is near: ask the flow as well,
    without letting the asker wait."""

    entry: Entry
    wanted: Wanted
    reason: Reason
    ttl_seconds: float
    refresh: bool = False


class ServeStale(msgspec.Struct, gc=False, frozen=True):
    """Serve this entry although it may be out of date, and say so."""

    entry: Entry
    wanted: Wanted
    reason: Reason
    ttl_seconds: float


class Ask(msgspec.Struct, gc=False, frozen=True):
    """Ask the flow and keep the answer; the reason says why nothing stored would do."""

    reason: Reason


class Bypass(msgspec.Struct, gc=False, frozen=True):
    """Ask the flow and keep no entry."""

    reason: Reason


class Refuse(msgspec.Struct, gc=False, frozen=True):
    """Do not ask: the asker wanted a stored answer or none."""

    reason: Reason


Decision = Serve | ServeStale | Ask | Bypass | Refuse

#: What the place of a good answer is worth.
_GOOD = frozenset({Reason.EXACT, Reason.CURATED})
# Of several candidates, the one that came nearest to being served explains best why none was.
_TELLING = (
    Reason.TOO_OLD,
    Reason.EXPIRED,
    Reason.FLOW_CHANGED,
    Reason.CLEARED,
    Reason.DAMAGED,
    Reason.COLLISION,
    Reason.NOT_FIRST,
    Reason.NOT_STORED,
)


def decide(facts: Facts) -> tuple[Decision, tuple[Candidate, ...]]:
    """The decision, and what became of each place that was looked at, in the order in which they were given."""
    directives = facts.directives
    if directives.no_store:
        return _unless_cached_only(directives, Bypass(Reason.NO_STORE)), ()
    if facts.forbidden:
        return _unless_cached_only(directives, Bypass(Reason.POLICY)), ()
    if not facts.shareable:
        return _unless_cached_only(directives, Bypass(Reason.NOT_SHARED)), ()
    if facts.unkeyed:
        return _unless_cached_only(directives, Bypass(Reason.REDACTED)), ()
    if any(found.entry is not None and found.entry.withdrawn for found in facts.found):
        return _unless_cached_only(directives, Bypass(Reason.WITHDRAWN)), _candidates(facts)
    if directives.no_cache:
        return _unless_cached_only(directives, Ask(Reason.NO_CACHE)), ()
    candidates, places = _candidates(facts), _places(facts)
    for found, candidate in zip(places, candidates, strict=True):
        if found.entry is not None and candidate.verdict in _GOOD:
            left = remaining_seconds(found.entry, facts.lifetime, jitter=facts.jitter, now=facts.now)
            if not facts.verified:
                return ServeStale(found.entry, found.wanted, Reason.FLOW_UNVERIFIED, left), candidates
            soon = ends_soon(found.entry, facts, left)
            return Serve(found.entry, found.wanted, candidate.verdict, left, soon), candidates
    for found, candidate in zip(places, candidates, strict=True):
        if found.entry is not None and candidate.verdict is Reason.EXPIRED and directives.max_stale is not None:
            left = remaining_seconds(found.entry, facts.lifetime, jitter=facts.jitter, now=facts.now)
            if -left <= directives.max_stale.total_seconds():
                return ServeStale(found.entry, found.wanted, Reason.MAX_STALE, left), candidates
    verdicts = {candidate.verdict for candidate in candidates}
    reason = next((reason for reason in _TELLING if reason in verdicts), Reason.NOT_STORED)
    return _unless_cached_only(directives, Ask(reason)), candidates


def _places(facts: Facts) -> Sequence[Found]:
    """Where an answer to this very question may be, the place that counts most first: what a person approved."""
    return facts.found if facts.curated is None else (facts.curated, *facts.found)


def _candidates(facts: Facts) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(
            key=found.wanted.key,
            scope="faq" if found is facts.curated else found.wanted.scope,
            verdict=verdict(found, facts),
            age_seconds=max(0.0, facts.now - found.entry.created_at) if found.entry else None,
        )
        for found in _places(facts)
    )


def stand_in(facts: Facts) -> ServeStale | None:
    """The answer to serve in place of a flow's failure: one that is right but for its age, not older than allowed.

    An asker who named a `max_age` is not given an older answer (RFC 5861, 4: `stale-if-error`), and one who wants it
    afresh is given none.
    """
    if facts.directives.no_cache:
        return None
    for found in facts.found:
        if found.entry is not None and verdict(found, facts) is Reason.EXPIRED:
            left = remaining_seconds(found.entry, facts.lifetime, jitter=facts.jitter, now=facts.now)
            if -left <= facts.stale_seconds:
                return ServeStale(found.entry, found.wanted, Reason.FLOW_FAILED, left)
    return None


def ends_soon(entry: Entry, facts: Facts, left: float) -> bool:
    """Whether the last part of an entry's life has begun. A sliding life begins anew with every hit."""
    if facts.lifetime.sliding or facts.refresh_after >= 1:
        return False
    whole = facts.now - entry.created_at + left
    return left < (1 - facts.refresh_after) * whole


def verdict(found: Found, facts: Facts) -> Reason:
    """What one stored value is worth to this question: `EXACT` (`CURATED` for what a person approved, which neither
    time nor clearing takes), or why it may not be served as fresh."""
    entry, wanted = found.entry, found.wanted
    approved = isinstance(entry, Approved)
    if found.damaged:
        return Reason.DAMAGED
    if entry is None:
        return Reason.NOT_STORED
    if entry.withdrawn:
        return Reason.WITHDRAWN
    if entry.question != wanted.question or entry.identity != wanted.identity:
        return Reason.COLLISION
    if entry.fingerprint != facts.fingerprint:
        return Reason.FLOW_CHANGED
    if not approved and entry.generation != facts.generation:
        return Reason.CLEARED
    if wanted.first_only and not entry.first:
        return Reason.NOT_FIRST
    limit = facts.directives.max_age
    if limit is not None and facts.now - entry.created_at > limit.total_seconds():
        return Reason.TOO_OLD
    if remaining_seconds(entry, facts.lifetime, jitter=facts.jitter, now=facts.now) <= 0:
        return Reason.EXPIRED
    return Reason.CURATED if approved else Reason.EXACT


def _unless_cached_only(directives: Directives, decision: Ask | Bypass) -> Ask | Bypass | Refuse:
    return Refuse(decision.reason) if directives.only_if_cached else decision
