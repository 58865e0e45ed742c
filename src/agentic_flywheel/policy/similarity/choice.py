"""Which stored answer a similar question is given, if any, and why each of the others is not.

Invariant: a similar answer passes everything that an exact one has to pass (scope, flow, fingerprint, generation,
lifetime, the asker's own bounds), and besides: it was computed without earlier turns, every guard lets it through, no
person has called the pair wrong, and its similarity reaches the cut. What is nearest but refused never hides one that
is a little farther and passes.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agentic_flywheel.likeness import Considered, Cut, GuardVerdict, SimilarMode, Terms
from agentic_flywheel.model import Entry, Reason
from agentic_flywheel.policy.decision import Facts, Found, Serve, Wanted, verdict
from agentic_flywheel.policy.identity import digest, question_hash
from agentic_flywheel.policy.lifetime import remaining_seconds


class Prospect(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A stored question near the one that is asked, with all that is known of the two. `entry` is None where it is gone
    or damaged; `guards` is empty where nothing was weighed since it is gone."""

    key: str
    similarity: float
    entry: Entry | None
    guards: tuple[GuardVerdict, ...] = ()
    blocked: bool = False

    @property
    def cleared(self) -> bool:
        """Whether no guard and no person refuses the pair."""
        return not self.blocked and all(verdict.passed for verdict in self.guards)


class Choice(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What came of all prospects. `serve` is the one to serve, `nearest` the one that would be compared with the flow's
    own answer: the nearest that only the cut (or the mode) kept from being served."""

    considered: tuple[Considered, ...] = ()
    serve: Serve | None = None
    served: Prospect | None = None
    nearest: Prospect | None = None


def partition_of(
    *, scope: str, owner: str, flow: str, fingerprint: str, generation: int, identity: str, language: str
) -> str:
    """The name of the set of stored questions among which a similar one is looked for; nothing is matched across.

    `owner` is the user (or session) whose answers they are, "" for the team's. `identity` covers overrides and domain.
    """
    return digest("partition", scope, owner, flow, fingerprint, str(generation), identity, language)


def pair_of(normal: str, key: str) -> str:
    """The name of a pair that is never to be merged: a question in normal form, and the key of a stored answer."""
    return digest("pair", question_hash(normal), name_in(key))


def name_in(key: str) -> str:
    """The question's name (see `question_hash`) as it stands in the key of its entry."""
    return key[key.rindex(":") + 1 :].strip("{}")


def same_place(key: str, wanted: str) -> bool:
    """Whether two keys of entries differ in the question alone: same tenant, scope, owner and flow."""
    return key[: key.rindex(":")] == wanted[: wanted.rindex(":")]


def choose(prospects: Sequence[Prospect], *, facts: Facts, wanted: Wanted, terms: Terms, cut: Cut) -> Choice:
    """Weigh the prospects, nearest first. `wanted` is where the exact answer would be stored."""
    considered: list[Considered] = []
    serve: Serve | None = None
    served = nearest = None
    for prospect in prospects:
        entry, place = prospect.entry, wanted
        why = _unfit(prospect, facts, wanted)
        if not why and entry is not None:
            place = Wanted(
                key=prospect.key, scope=wanted.scope, question=entry.question, identity=wanted.identity
            )
            why = _held_back(prospect, facts, terms, cut)
            if serve is not None:
                why = why or "a nearer one is served"
            elif not why:
                left = remaining_seconds(entry, facts.lifetime, jitter=facts.jitter, now=facts.now)
                serve, served = Serve(entry, place, Reason.SIMILAR, left), prospect
            if nearest is None and prospect.cleared and prospect is not served:
                nearest = prospect
        considered.append(
            Considered(
                key=prospect.key,
                question=entry.asked or entry.question if entry else "",
                similarity=prospect.similarity,
                guards=prospect.guards,
                served=prospect is served,
                why=why or _reached(cut),
                age_seconds=max(0.0, facts.now - entry.created_at) if entry else None,
                blocked=prospect.blocked,
            )
        )
    return Choice(considered=tuple(considered), serve=serve, served=served, nearest=None if served else nearest)


def _unfit(prospect: Prospect, facts: Facts, wanted: Wanted) -> str:
    """Why a stored answer could not be served to anybody who asks now, "" if it could."""
    entry = prospect.entry
    if entry is None:
        return "its answer is gone"
    if not same_place(prospect.key, wanted.key) or entry.identity != wanted.identity or not entry.alone:
        return "it was not asked in the same place"
    place = Wanted(key=prospect.key, scope=wanted.scope, question=entry.question, identity=wanted.identity)
    worth = verdict(Found(place, entry), facts)
    return "" if worth is Reason.EXACT else _WORTH.get(worth, worth.value)


def _held_back(prospect: Prospect, facts: Facts, terms: Terms, cut: Cut) -> str:
    """Why an answer that is good is not given to this question, "" if it is."""
    if prospect.blocked:
        return "somebody, or a check, found that the two have different answers"
    if refused := next((verdict for verdict in prospect.guards if not verdict.passed), None):
        return f"refused by {refused.guard}: {refused.evidence}"
    if not facts.verified:
        return "the flow's configuration could not be confirmed just now"
    if terms.mode is SimilarMode.OFF or cut.value is None:
        return f"nothing is served: {cut.why}"
    if prospect.similarity < cut.value:
        return f"{prospect.similarity:.3f} is below the cut {cut.value:.3f}"
    return ""


def _reached(cut: Cut) -> str:
    return f"reaches the cut {cut.value:.3f}, and every guard lets it through" if cut.value is not None else ""


_WORTH = {
    Reason.EXPIRED: "its answer is past its lifetime",
    Reason.FLOW_CHANGED: "another configuration of the flow answered it",
    Reason.CLEARED: "somebody cleared the flow's answers since",
    Reason.TOO_OLD: "its answer is older than the asker's max-age",
    Reason.WITHDRAWN: "its answer was reported as private",
}
