"""What the FAQ may serve, what may come into it, and how each of its entries stands.

Invariant: an entry is served to nobody to whom an answer that the whole team shares would not be served. Words about
oneself, overrides, a domain and earlier turns are none of its business: a question with any of them is never answered
from it. An entry that its flow has changed under is not served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from agentic_flywheel.curated import FaqCandidate, FaqEntry, FaqState, FaqView
from agentic_flywheel.model import Sharing
from agentic_flywheel.policy.decision import Wanted
from agentic_flywheel.policy.identity import normalise
from agentic_flywheel.policy.sharing import Scope, personal


def place_of(wanted: Sequence[Wanted]) -> Wanted | None:
    """The place for which the FAQ may speak: that of an answer which the whole team shares, and to the bare words.

    Of a follow-up, that is the place of the word-for-word exception, where it has one.
    """
    return next((place for place in wanted if place.scope == Scope.TEAM and not place.identity), None)


def unfit(wording: str) -> str:
    """Why a wording has no place in the FAQ, "" if it may have.

    >>> unfit("How do I reset my password?")
    'it speaks of what belongs to the asker ("my", "our"), so it would never be answered from the FAQ'
    """
    if not wording.strip():
        return "it is empty"
    if personal(wording):
        return 'it speaks of what belongs to the asker ("my", "our"), so it would never be answered from the FAQ'
    return ""


def taken_by(entry: FaqEntry, entries: Iterable[FaqEntry]) -> tuple[str, FaqEntry] | None:
    """A wording of an entry that another one answers already, and which: no two may answer the same words."""
    own = {normalise(wording): wording for wording in entry.asked_as}
    for other in entries:
        if other.id != entry.id and other.published is not None:
            for wording in other.published.asked_as:
                if (shared := own.get(normalise(wording))) is not None:
                    return shared, other
    return None


def stands(entry: FaqEntry, *, sharing: Sharing | None, fingerprint: str, now: float) -> FaqView:
    """How an entry stands; `sharing` is its flow's (None: not in the registry), `fingerprint` what the flow is now."""
    said = entry.published
    if entry.retired:
        return FaqView(state=FaqState.RETIRED, entry=entry)
    if said is None and entry.reported:
        why = f"its answer was reported as {entry.reported}; it is served again once somebody approves it"
        return FaqView(state=FaqState.REPORTED, entry=entry, why=why)
    if said is None:
        return FaqView(state=FaqState.DRAFT, entry=entry, why="nobody has approved it yet")
    if sharing is not Sharing.TEAM:
        why = f"its flow's sharing is {sharing.value}" if sharing else "its flow is not in the registry"
        return FaqView(state=FaqState.UNSHARED, entry=entry, why=why)
    if said.fingerprint != fingerprint:
        why = "its flow has changed since it was approved; askers get the flow's own answer until somebody approves it"
        return FaqView(state=FaqState.STALE, entry=entry, why=why)
    if said.review_at and said.review_at <= now:
        why = f"{said.owner or said.by or 'somebody'} was to look at it again by now; it is served meanwhile"
        return FaqView(state=FaqState.DUE, entry=entry, why=why)
    waits = "its changes are not served before somebody approves them" if entry.pending else ""
    return FaqView(state=FaqState.PUBLISHED, entry=entry, why=waits)


def taken_words(entries: Mapping[str, Iterable[FaqEntry]]) -> dict[tuple[str, str], str]:
    """What is in an entry already, and in which (its id): wordings in their normal form, and popular questions that
    entries were made of, each with its flow."""
    taken: dict[tuple[str, str], str] = {}
    for flow, some in entries.items():
        for entry in some:
            said = (*entry.asked_as, *(entry.published.asked_as if entry.published else ()))
            taken |= {(flow, normalise(wording)): entry.id for wording in said}
            if entry.cluster:
                taken[flow, entry.cluster] = entry.id
    return taken


def candidates(
    asked: Iterable[FaqCandidate],
    entries: Mapping[str, Iterable[FaqEntry]],
    *,
    shared: Callable[[str], bool],
    least_asked: int,
    least_askers: int,
) -> list[FaqCandidate]:
    """Those of the popular questions that ask for a place in the FAQ, in their order.

    Asked often enough and by enough askers, of a flow that shares with the team, without a word about oneself, and in
    no entry yet, retired ones included: what a person turned down is not proposed again.
    """
    known = taken_words(entries).keys()
    found = []
    for one in asked:
        if one.asked < least_asked or one.askers < least_askers or not shared(one.flow) or unfit(one.question):
            continue
        names = {(one.flow, normalise(wording)) for wording in (one.question, *one.wordings)} | {(one.flow, one.id)}
        if names.isdisjoint(known):
            found.append(one)
    return found
