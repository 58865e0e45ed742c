"""One entry of the FAQ, or a question that asks to be one: its words, who stands behind them, what is done about it.

Invariant: what somebody wrote is never lost to an error: a form that is not taken comes back as it was filled in.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Self

import msgspec

from agentic_flywheel.callers import Scope
from agentic_flywheel.curated import FaqCandidate, FaqChange, FaqState, FaqView, Publication
from agentic_flywheel.errors import EditConflict, FlywheelError, InputError, UnknownFaqEntry
from agentic_flywheel.interfaces.http.console.doing import who, written_down
from agentic_flywheel.interfaces.http.console.forms import Form
from agentic_flywheel.interfaces.http.console.pages import Action, Page, Screen, Went
from agentic_flywheel.interfaces.http.console.screens.faq import CandidateRow, shared_flows
from agentic_flywheel.interfaces.http.console.visit import Visit
from agentic_flywheel.interfaces.http.problems import advice_of
from agentic_flywheel.model import Source

_DAY_SECONDS: Final = 86400.0
#: Parts of an entry whose changes are named, and not shown.
_LONG: Final = frozenset({"question", "wordings", "answer"})


class SourceShown(msgspec.Struct, frozen=True):
    """A place that an answer rests on."""

    title: str
    uri: str


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """What askers are given of an entry, and who has it so; `review_at` None: never."""

    question: str
    wordings: tuple[str, ...]
    answer: str
    by: str
    owner: str
    at: float
    review_at: float | None

    @classmethod
    def of(cls, said: Publication) -> Self:
        """What was approved."""
        return cls(
            question=said.question,
            wordings=said.wordings,
            answer=said.answer,
            by=said.by,
            owner=said.owner,
            at=said.at,
            review_at=said.review_at or None,
        )


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what, and when; `words` are the parts whose words changed, `facts` what else was said."""

    at: float
    by: str
    what: str
    revision: int
    words: tuple[str, ...]
    facts: dict[str, str]

    @classmethod
    def of(cls, change: FaqChange) -> Self:
        """The change as it is listed."""
        facts = {name: text for name, text in change.said.items() if name not in _LONG}
        words = tuple(name for name in change.said if name in _LONG)
        return cls(at=change.at, by=change.by, what=change.what, revision=change.revision, words=words, facts=facts)


class EntryShown(msgspec.Struct, frozen=True, kw_only=True):
    """How an entry stands (`why` in a sentence), what is served of it, and who did what, newest first."""

    id: str
    state: FaqState
    why: str
    flow: str
    served: bool
    pending: bool
    revision: int
    changed_at: float
    changed_by: str
    approval: Approval | None
    history: tuple[Change, ...]

    @classmethod
    def of(cls, view: FaqView, history: Sequence[FaqChange]) -> Self:
        """The entry that people look at."""
        entry, said = view.entry, view.entry.published
        return cls(
            id=view.id,
            state=view.state,
            why=view.why,
            flow=entry.flow,
            served=view.state.served,
            pending=entry.pending,
            revision=entry.revision,
            changed_at=entry.changed_at,
            changed_by=entry.changed_by,
            approval=None if said is None else Approval.of(said),
            history=tuple(map(Change.of, reversed(history))),
        )


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the form: an entry's words, or what somebody wrote that was not taken. A wording a line."""

    id: str = ""
    flow: str = ""
    question: str = ""
    wordings: str = ""
    answer: str = ""
    turn: str = ""
    owner: str = ""
    review: str = ""
    revision: str = ""


class EntryPage(msgspec.Struct, frozen=True, kw_only=True):
    """An entry, or a candidate, or neither for one that is begun here; `problem` is why the form was not taken."""

    draft: Draft
    entry: EntryShown | None = None
    candidate: CandidateRow | None = None
    sources: tuple[SourceShown, ...] = ()
    session_id: str = ""
    answered_at: float | None = None
    flows: tuple[str, ...] = ()
    problem: str = ""
    advice: str = ""
    conflict: bool = False


async def show(visit: Visit) -> Page:
    """An entry with its history, a candidate, or an empty form."""
    return Page("faq_entry.html", await _page(visit, visit.text("id")))


async def save(visit: Visit, form: Form) -> Page | Went:
    """Begin an entry, or change its words; what is served changes once it is approved."""
    try:
        view = await _saved(visit, form)
    except (InputError, EditConflict) as error:
        return await _not_taken(visit, form, error)
    return Went(visit.link("/faq/entry", id=view.id), said="faq_saved")


async def approve(visit: Visit, form: Form) -> Page | Went:
    """Have an entry served in the words of the form."""
    try:
        review_at = _moment(form.text("review"))
        id_, revision = form.text("id"), _revision(form)
        if await _differs(visit, form):
            view = await _saved(visit, form)
            id_, revision = view.id, view.entry.revision
        owner = form.text("owner")
        await written_down(visit, "faq.approve", id_)
        view = await visit.flywheel.faq.approve(id_, owner=owner, review_at=review_at, by=who(visit), revision=revision)
    except (InputError, EditConflict) as error:
        return await _not_taken(visit, form, error)
    return Went(visit.link("/faq/entry", id=view.id), said="faq_approved")


async def retire(visit: Visit, form: Form) -> Went:
    """Take an entry out of service, or a candidate off the list; with `purge` it is removed with its history."""
    id_, purge = form.required("id"), form.ticked("purge")
    reason = form.text("reason")
    await written_down(visit, "faq.purge" if purge else "faq.retire", id_, why=reason)
    await visit.flywheel.faq.retire(id_, reason=reason, purge=purge, by=who(visit), dry_run=False)
    if purge:
        return Went("/faq", said="faq_purged")
    if form.ticked("candidate"):
        return Went("/faq", said="faq_turned_down")
    return Went(visit.link("/faq/entry", id=id_), said="faq_retired")


async def judge(visit: Visit, form: Form) -> Went:
    """Say that wordings ask what a candidate asks, or something else; none named: all that seem to ask the same."""
    id_, wordings = form.required("id"), form.all("wording")
    work = visit.flywheel.faq.split if form.text("does") == "split" else visit.flywheel.faq.join
    left = await work(id_, *wordings, by=who(visit))
    said = "faq_split" if form.text("does") == "split" else "faq_joined"
    return Went("/faq", said=said) if left is None else Went(visit.link("/faq/entry", id=left.id), said=said)


async def _saved(visit: Visit, form: Form) -> FaqView:
    """The entry with the words of the form; the answer of a turn takes the place of an empty one."""
    faq, by, id_ = visit.flywheel.faq, who(visit), form.text("id")
    answer, turn = form.text("answer"), form.text("turn") or None
    question = form.text("question") if turn else form.required("question")
    if not id_:
        flow = form.text("flow") or None
        return await faq.add(question, answer, flow=flow, wordings=_wordings(form), turn=turn, by=by)
    return await faq.edit(
        id_,
        question=question,
        answer=None if turn and not answer else answer,
        wordings=_wordings(form),
        turn=turn,
        by=by,
        revision=_revision(form),
    )


async def _differs(visit: Visit, form: Form) -> bool:
    """Whether the form says anything else than what it was filled with."""
    if not form.text("id") or form.text("turn"):
        return True
    found = await _found(visit, form.text("id"))
    now = found.entry if isinstance(found, FaqView) else found
    said = form.text("question"), tuple(_wordings(form)), form.text("answer")
    return said != (now.question, now.wordings, now.answer.replace("\r\n", "\n").strip())


async def _not_taken(visit: Visit, form: Form, error: FlywheelError) -> Page:
    """The form as it was filled in, with why it was not taken."""
    draft = Draft(**{name: form.text(name) for name in Draft.__struct_fields__})
    conflict = isinstance(error, EditConflict)
    page = msgspec.structs.replace(
        await _page(visit, draft.id),
        draft=draft,
        problem=error.message,
        advice="" if conflict else "".join(advice_of(error)[:1]),
        conflict=conflict,
    )
    return Page("faq_entry.html", page, 409 if conflict else 400)


async def _found(visit: Visit, id_: str) -> FaqView | FaqCandidate:
    try:
        return await visit.flywheel.faq.show(id_)
    except UnknownFaqEntry:
        return await visit.flywheel.faq.candidate(id_)


async def _page(visit: Visit, id_: str) -> EntryPage:
    me, review = who(visit), _day_in(float(visit.flywheel.settings["faq.review_days"]))
    if not id_:
        begun = Draft(
            flow=visit.text("flow"),
            question=visit.text("question"),
            turn=visit.text("turn"),
            owner=me,
            review=review,
        )
        return EntryPage(draft=begun, flows=shared_flows(visit))
    found = await _found(visit, id_)
    entry = found.entry if isinstance(found, FaqView) else None
    words = entry or found
    assert not isinstance(words, FaqView)
    page = EntryPage(
        draft=Draft(
            id=words.id,
            flow=words.flow,
            question=words.question,
            wordings="\n".join(words.wordings),
            answer=words.answer,
            owner=(entry.owner if entry else "") or me,
            review=review,
            revision=str(entry.revision) if entry else "",
        ),
        sources=_sources(words.sources),
        session_id=words.session_id,
    )
    if isinstance(found, FaqView):
        return msgspec.structs.replace(page, entry=EntryShown.of(found, await visit.flywheel.faq.history(found.id)))
    answered = found.answered_at if found.answer else None
    return msgspec.structs.replace(page, candidate=CandidateRow.of(found), answered_at=answered)


def _wordings(form: Form) -> list[str]:
    return [line.strip() for line in form.text("wordings").splitlines() if line.strip()]


def _sources(sources: Sequence[Source]) -> tuple[SourceShown, ...]:
    return tuple(SourceShown(source.title or source.uri, source.uri) for source in sources)


def _revision(form: Form) -> int | None:
    """The revision that somebody has read."""
    said = form.text("revision")
    if not said:
        return None
    if not said.isascii() or not said.isdigit():
        raise InputError(f"a revision is a number, not {said!r}")
    return int(said[:9])


def _moment(day: str) -> float:
    """When somebody is to look at it again: a day of UTC, 0 for never.

    >>> _moment("1970-01-02"), _moment("")
    (86400.0, 0.0)
    """
    if not day:
        return 0.0
    try:
        return datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise InputError(f"a day is written 2027-03-01, not {day!r}") from None


def _day_in(days: float) -> str:
    """The day in so many days, "" for 0: never."""
    return datetime.fromtimestamp(time.time() + days * _DAY_SECONDS, UTC).strftime("%Y-%m-%d") if days else ""


SCREENS = (Screen("/faq/entry", show, needs=Scope.READ, name="faq"),)
ACTIONS = (
    Action("/faq/save", save, needs=Scope.ADMIN),
    Action("/faq/approve", approve, needs=Scope.ADMIN),
    Action("/faq/judge", judge, needs=Scope.ADMIN),
    Action("/faq/retire", retire, needs=Scope.ADMIN),
)
