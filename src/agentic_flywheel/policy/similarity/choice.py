"""Which stored answer a similar question is given, if any, and why each of the others is not.

Invariant: a similar answer passes everything that an exact one has to pass (scope, flow, fingerprint, generation,
lifetime, the asker's own bounds), and besides: it was computed without earlier turns, every guard lets it through, no
person has called the pair wrong, and its similarity reaches the cut of its standing (what the other neighbours say of
it: `budget.Standing`). What is nearest but refused never hides one that is a little farther and passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from agentic_flywheel.curated import Approved
from agentic_flywheel.likeness import Considered, Cut, GuardVerdict, SimilarMode, Terms
from agentic_flywheel.model import Entry, Reason
from agentic_flywheel.policy.decision import Facts, Found, Serve, Wanted, verdict
from agentic_flywheel.policy.identity import digest, question_hash
from agentic_flywheel.policy.lifetime import remaining_seconds
from agentic_flywheel.policy.similarity.budget import Standing, standing_of


class Prospect(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A stored question near the one that is asked, with all that is known of the two. `entry` is None where it is gone
    or damaged; `guards` is empty where nothing was weighed since it is gone. `answer` is the name of its answer where
    that was found to be the same as another's, "" where it was not."""

    key: str
    similarity: float
    entry: Entry | None
    answer: str = ""
    guards: tuple[GuardVerdict, ...] = ()
    blocked: bool = False

    @property
    def cleared(self) -> bool:
        """Whether no guard and no person refuses the pair."""
        return not self.blocked and all(verdict.passed for verdict in self.guards)

    @property
    def comparable(self) -> bool:
        """Whether comparing it with the flow's own answer shows anything: not where a person wrote it."""
        return not isinstance(self.entry, Approved) or bool(self.entry.trace_id)


def same_answer(one: Prospect, other: Prospect) -> bool:
    """Whether two stored answers are known to say the same: by their text, or since they were compared."""
    if one.entry is not None and other.entry is not None and one.entry.answer == other.entry.answer:
        return True
    return (one.answer or name_in(one.key)) == (other.answer or name_in(other.key))


def same_approval(one: Prospect, other: Prospect) -> bool:
    """Whether both are wordings of one entry of the FAQ: they were written by one hand, so neither speaks for the
    other."""
    if not isinstance(one.entry, Approved) or not isinstance(other.entry, Approved):
        return False
    return one.entry.faq == other.entry.faq


class Choice(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What came of all prospects. `serve` is the one to serve, `nearest` the one that would be compared with the flow's
    own answer: the nearest that only the cut (or the mode) kept from being served."""

    considered: tuple[Considered, ...] = ()
    serve: Serve | None = None
    served: Prospect | None = None
    nearest: Prospect | None = None
    standing: Standing | None = None  # of the one that is served, or else of the nearest
    fit: tuple[Prospect, ...] = ()  # all whose answers are good, whatever the guards say of their questions


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


def choose(
    prospects: Sequence[Prospect], *, facts: Facts, wanted: Wanted, terms: Terms, cuts: Mapping[Standing, Cut]
) -> Choice:
    """Weigh the prospects, nearest first. `wanted` is where the exact answer would be stored."""
    unfit = [_unfit(prospect, facts, wanted) for prospect in prospects]
    fit = tuple(prospect for prospect, why in zip(prospects, unfit, strict=True) if not why)
    considered: list[Considered] = []
    serve: Serve | None = None
    served = nearest = None
    standing: Standing | None = None
    for prospect, why in zip(prospects, unfit, strict=True):
        entry, stands = prospect.entry, None
        if not why and entry is not None:
            others = [
                (other.similarity, same_answer(prospect, other))
                for other in fit
                if other is not prospect and not same_approval(prospect, other)
            ]
            stands = standing_of(prospect.similarity, others)
            why = _held_back(prospect, facts, terms, cuts[stands])  # noqa: PLW2901
            if serve is not None:
                why = why or "a nearer one is served"  # noqa: PLW2901
            elif not why:
                place = Wanted(key=prospect.key, scope=wanted.scope, question=entry.question, identity=wanted.identity)
                left = remaining_seconds(entry, facts.lifetime, jitter=facts.jitter, now=facts.now)
                serve, served, standing = Serve(entry, place, Reason.SIMILAR, left), prospect, stands
            if nearest is None and prospect.cleared and prospect.comparable and prospect is not served:
                nearest = prospect
                standing = standing or stands
        considered.append(
            Considered(
                key=prospect.key,
                question=entry.asked or entry.question if entry else "",
                similarity=prospect.similarity,
                guards=prospect.guards,
                served=prospect is served,
                why=why or (_reached(cuts[stands]) if stands else ""),
                age_seconds=max(0.0, facts.now - entry.created_at) if entry else None,
                blocked=prospect.blocked,
                standing=stands.value if stands else "",
                faq=entry.faq if isinstance(entry, Approved) else "",
            )
        )
    return Choice(
        considered=tuple(considered),
        serve=serve,
        served=served,
        nearest=None if served else nearest,
        standing=standing,
        fit=fit,
    )


def _unfit(prospect: Prospect, facts: Facts, wanted: Wanted) -> str:
    """Why a stored answer could not be served to anybody who asks now, "" if it could."""
    entry = prospect.entry
    if entry is None:
        return "its answer is gone"
    if not same_place(prospect.key, wanted.key) or entry.identity != wanted.identity or not entry.alone:
        return "it was not asked in the same place"
    place = Wanted(key=prospect.key, scope=wanted.scope, question=entry.question, identity=wanted.identity)
    worth = verdict(Found(place, entry), facts)
    return "" if worth in {Reason.EXACT, Reason.CURATED} else _WORTH.get(worth, worth.value)


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
