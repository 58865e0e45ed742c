"""The FAQ as people look after it: what asks for a place in it, what is edited, approved, due, retired.

Invariant: nothing is served that a person has not approved in exactly these words, and nothing that was approved is
served once its flow has changed. A change is made to the very revision that was read: of two people who change one
entry at the same time the second is told. Who did what and when is kept with the entry.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from agentic_flywheel.curated import (
    FaqBook,
    FaqCandidate,
    FaqChange,
    FaqEntry,
    FaqList,
    FaqState,
    FaqView,
    Publication,
)
from agentic_flywheel.errors import EditConflict, InputError, UnknownFaqEntry
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.insight.faq_books import FaqBooks, Opened, Step, covering, meant_by, only
from agentic_flywheel.insight.faq_candidates import Candidates
from agentic_flywheel.insight.faq_finding import fitting
from agentic_flywheel.insight.faq_groups import Groups
from agentic_flywheel.insight.faq_page import as_json, as_markdown, day
from agentic_flywheel.insight.faq_words import admit_review, admit_wording, answered, begun, edited, same_flow, step_of
from agentic_flywheel.insight.popular import Popular
from agentic_flywheel.likeness import ReportKind
from agentic_flywheel.model import Receipt, Sharing
from agentic_flywheel.policy.admission import admit_text
from agentic_flywheel.policy.identity import normalise
from agentic_flywheel.search.embedding import Embedding
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.store import Store

if TYPE_CHECKING:
    from agentic_flywheel.watching import FlowWatch

_MOST_CANDIDATES = 1000
_DAYS = 30
_DAY_SECONDS = 86400.0


class Faq:
    """The FAQ of one tenant.

    async with Flywheel.open() as flywheel:
        draft = await flywheel.faq.add("How long are answers kept?", "For 7 days.", flow="documents", by="ann")
        await flywheel.faq.approve(draft.id, owner="ann", by="ann")
        print((await flywheel.ask("how long are answers kept", flow="documents")).source)
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        store: Store,
        books: FaqBooks,
        candidates: Candidates,
        fingerprint: Callable[[FlowSpec, bool], Awaitable[str]],
    ) -> None:
        self._tenant = settings.text("tenant")
        self._review_seconds = float(settings["faq.review_days"]) * _DAY_SECONDS
        self._longest = int(settings["question.max_characters"])
        self._registry = registry
        self._store = store
        self._books = books
        self._candidates = candidates
        self._fingerprint = fingerprint

    async def list(
        self, *, flow: str | None = None, retired: bool = False, days: int = _DAYS, limit: int = 20
    ) -> FaqList:
        """The entries, what waits for a person first, and at most `limit` candidates of the last `days`, each followed
        by those that may well ask the same (`near`)."""
        if not 1 <= limit <= _MOST_CANDIDATES:
            raise InputError(f"1 to {_MOST_CANDIDATES} candidates can be listed, not {limit}")
        books = await self._books.of()
        views, warnings = await self._books.views(await self._books.of(flow))
        named = self._registry.current().get(flow, inactive=True).key if flow else None
        found = await self._candidates.find(books, days=days, flow=named, limit=limit)
        shown = [view for view in views if retired or view.state is not FaqState.RETIRED]
        return FaqList(entries=tuple(shown), candidates=tuple(found), warnings=tuple(warnings))

    async def entries(self, *, flow: str | None = None) -> Sequence[FaqView]:
        """All entries, retired ones too, what waits for a person first."""
        views, _ = await self._books.views(await self._books.of(flow))
        return views

    async def published(self, *, flow: str | None = None, query: str = "", limit: int = 100) -> Sequence[FaqView]:
        """What askers are given now; with a `query` what fits its words, best first."""
        if not 1 <= limit <= 1000:
            raise InputError(f"1 to 1000 entries can be shown, not {limit}")
        served = [view for view in await self.entries(flow=flow) if view.state.served]
        return (fitting(query, served) if query.strip() else served)[:limit]

    async def show(self, id: str) -> FaqView:  # noqa: A002
        """One entry; its id may be shortened. Raises `UnknownFaqEntry`."""
        entry = await self._books.find(id)
        return next(view for view in await self.entries(flow=entry.flow) if view.id == entry.id)

    async def get(self, id: str) -> FaqView:  # noqa: A002
        """One entry that was approved and that the team may see, served or stale. Raises `UnknownFaqEntry`: what else
        there is, is for those who edit it (`show`)."""
        view = await self.show(id)
        if view.state not in {FaqState.PUBLISHED, FaqState.DUE, FaqState.STALE}:
            raise UnknownFaqEntry(f"the entry {view.id!r} is not approved, or not for the team", faq_id=view.id)
        return view

    async def history(self, id: str) -> Sequence[FaqChange]:  # noqa: A002
        """Who changed an entry, when and how; oldest first. Raises `UnknownFaqEntry`."""
        entry = await self._books.find(id)
        return await self._store.faq.changes(entry.flow, entry.id)

    async def candidate(self, id: str) -> FaqCandidate:  # noqa: A002
        """One of the questions that ask for a place in the FAQ. Raises `UnknownFaqEntry`."""
        return covering(id, await self._all_candidates())

    async def export(self, *, form: str = "markdown", flow: str | None = None, everything: bool = False) -> str:
        """What is served, as one document: `markdown` or `json`; with `everything` also what was approved and is not
        served now, and why."""
        if form not in {"markdown", "json"}:
            raise InputError(f"the FAQ is exported as markdown or json, not as {form!r}")
        views = [view for view in await self.entries(flow=flow) if view.entry.published is not None]
        views = [view for view in views if everything or view.state.served]
        views.sort(key=lambda view: (view.entry.flow, view.entry.question.casefold(), view.id))
        if form == "json":
            return as_json(views, self._tenant)
        return as_markdown(
            views, {spec.key: spec.name for spec in self._registry.current().flows.values() if spec.name}
        )

    async def add(
        self,
        question: str = "",
        answer: str = "",
        *,
        flow: str | None = None,
        wordings: Sequence[str] = (),
        turn: str | None = None,
        by: str = "",
    ) -> FaqView:
        """Begin an entry; it is served once it is approved. `turn` takes question, answer and flow from a turn, as far
        as they are not given.

        Raises `InputError` for what has no place in the FAQ, `UnknownFlow` and `UnknownTurn`.
        """
        picked = await self._candidates.pick(turn) if turn is not None else None
        if picked is None and flow is None:
            raise InputError(
                "say of which flow it is: each flow has its own FAQ",
                suggestions=("Name it: `--flow KEY` (`flow`); `afw flow list` has them.",),
            )
        spec = self._registry.current().get(flow or (picked.flow if picked else ""), inactive=True)
        same_flow(picked, spec.key)
        now = time.time()
        opened = begun(spec.key, picked, now, by)
        whole = question or opened.entry.question, wordings, answer or opened.entry.answer
        entry = edited(opened.entry, *whole, longest=self._longest)
        await self._books.put(opened, entry, step_of("added", entry, None), by=by, at=now)
        return await self.show(entry.id)

    async def edit(
        self,
        id: str,  # noqa: A002
        *,
        question: str | None = None,
        answer: str | None = None,
        wordings: Sequence[str] | None = None,
        turn: str | None = None,
        by: str = "",
        revision: int | None = None,
    ) -> FaqView:
        """Change the words of an entry, or begin one from a candidate; what is served changes once it is approved.

        None leaves something as it is; `turn` picks the answer of a turn. `revision` is the one that was read: where
        somebody has changed the entry since, `EditConflict` is raised and nothing is done.
        """
        picked = await self._candidates.pick(turn) if turn is not None else None
        now = time.time()
        opened = await self._open(id, now, by)
        before = opened.entry
        same_flow(picked, before.flow)
        start = before if picked is None else answered(before, picked)
        entry = edited(
            start,
            before.question if question is None else question,
            before.wordings if wordings is None else wordings,
            start.answer if answer is None else answer,
            longest=self._longest,
        )
        step = step_of("edited" if opened.known else "added", entry, before if opened.known else None)
        await self._books.put(opened, entry, step, by=by, at=now, revision=revision)
        return await self.show(entry.id)

    async def join(self, id: str, *wordings: str, by: str = "") -> FaqCandidate | FaqView | None:  # noqa: A002
        """Say that these ask what a candidate asks (none named: all that are `alike`): they become wordings of it, and
        are counted as one question. Of an entry: they become wordings of it, served once it is approved.

        `wordings` are texts, or ids of other candidates of the flow, which may be shortened. Raises `UnknownFaqEntry`,
        and `InputError` for an id of what cannot be joined here.
        """
        found = await self._all_candidates()
        known = {one.id: one for book in (await self._books.of()).values() for one in book.entries.values()}
        try:
            entry = only(id, known)
        except UnknownFaqEntry:
            candidate = covering(id, found)
            meant = [meant_by(one, candidate.flow, found, known) for one in wordings]
            await self._candidates.join(candidate, [one[0] for one in meant] or candidate.alike)
            return await self._left_of(candidate)
        added = [text for _, text in (meant_by(one, entry.flow, found, known) for one in wordings)]
        return await self.edit(entry.id, wordings=[*entry.wordings, *added], by=by, revision=entry.revision)

    async def split(self, id: str, *wordings: str, by: str = "") -> FaqCandidate | FaqView | None:  # noqa: A002
        """Say that these wordings of a candidate ask something else: they are never put together with it again, nor
        given its answer as a similar question. What is left of it; None where that asks for no place any more. Of an
        entry: they are its wordings no more, once it is approved.

        Raises `UnknownFaqEntry`, and `InputError` for what is no wording of it.
        """
        try:
            entry = await self._books.find(id)
        except UnknownFaqEntry:
            candidate = await self.candidate(id)
            gone = _named(wordings, (*candidate.wordings, *candidate.alike), id)
            await self._candidates.split(candidate, gone)
            return await self._left_of(candidate)
        gone = _named(wordings, entry.wordings, id)
        left = [text for text in entry.wordings if text not in gone]
        return await self.edit(entry.id, wordings=left, by=by, revision=entry.revision)

    async def approve(
        self,
        id: str,  # noqa: A002
        *,
        owner: str = "",
        review_at: float | None = None,
        by: str = "",
        revision: int | None = None,
    ) -> FaqView:
        """Have an entry (or a candidate, with the answer that is stored for it) served in its present words: at once,
        in every process, until its flow changes or somebody retires it.

        `owner` answers for it (nobody named: whoever did before, else `by`), `review_at` is when they are to look at it
        again (epoch seconds; 0: never; None: after `faq.review_days`). Raises `EditConflict` where somebody has changed
        it since `revision`, `FlowError` where the flow does not say how it is configured, and `InputError` for what may
        not be served.
        """
        now = time.time()
        if review_at is not None:
            admit_review(review_at, now)
        opened = await self._open(id, now, by)
        before = opened.entry
        spec = self._registry.current().get(before.flow, inactive=True)
        owner = admit_text(owner, "owner").strip() or before.owner or by
        if not owner:
            raise InputError(
                "an approved entry has an owner: somebody who answers for it",
                suggestions=("Name them: `afw faq approve ID --owner NAME`.", "Or set `user`, and it is you."),
            )
        await self._check(spec, before)
        said = Publication(
            question=before.question,
            wordings=before.wordings,
            answer=before.answer,
            fingerprint=await self._fingerprint(spec, True),
            at=now,
            by=by,
            owner=owner,
            review_at=self._review(now) if review_at is None else review_at,
            sources=before.sources,
            trace_id=before.trace_id,
            flow_ms=before.flow_ms,
        )
        entry = msgspec.structs.replace(before, published=said, retired=False, reported="", owner=owner)
        before_that = () if opened.known else (step_of("added", entry, None),)
        approval = Step("approved", {"owner": owner, "review": day(said.review_at) if said.review_at else "never"})
        await self._books.put(opened, entry, *before_that, approval, by=by, at=now, revision=revision)
        return await self.show(entry.id)

    async def retire(
        self,
        id: str,  # noqa: A002
        *,
        reason: str = "",
        purge: bool = False,
        by: str = "",
        dry_run: bool,
    ) -> Receipt:
        """Take an entry out of service; a candidate is not proposed again. With `purge` the entry and its history are
        removed for good, and its question may ask for a place again."""
        now = time.time()
        opened = await self._open(id, now, by)
        before = opened.entry
        if purge and not opened.known:
            raise InputError("a candidate is kept nowhere, so there is nothing to remove; it can be retired")
        if not dry_run and purge:
            await self._books.remove(before)
        elif not dry_run:
            entry = msgspec.structs.replace(before, published=None, retired=True)
            if not opened.known:  # turned down is all that was shown as one
                entry = msgspec.structs.replace(entry, wordings=(*before.wordings, *(await self.candidate(id)).alike))
            before_that = () if opened.known else (step_of("added", entry, None),)
            said = {"reason": admit_text(reason, "reason")} if reason else {}
            await self._books.put(opened, entry, *before_that, Step("retired", said), by=by, at=now)
        kept = () if purge else ("Its words and its history are kept: `afw faq approve` has it served again.",)
        return Receipt(
            action="purge FAQ entry" if purge else "retire FAQ entry",
            target=f"{before.id}: {before.question}",
            dry_run=dry_run,
            removed={"FAQ entries": 1} if purge else {},
            unreachable=int(before.published is not None),
            notes=kept,
            at=now,
        )

    async def withdraw(self, flow: str, id: str, kind: ReportKind, *, note: str, by: str) -> str:  # noqa: A002
        """Somebody reported what an entry answers: it is served to nobody until a person approves it again; a private
        one is removed with its history. What was done, as a sentence; "" where there is no such entry any more."""
        while (entry := (await self._store.faq.book(flow)).entries.get(id)) is not None:
            if kind is ReportKind.PRIVATE:
                await self._books.remove(entry)
                return "Its entry is gone from the FAQ, with its history."
            changed = msgspec.structs.replace(entry, published=None, reported=kind.value)
            said = {"reason": kind.value} | ({"note": note} if note else {})
            try:
                await self._books.put(Opened(entry, known=True), changed, Step("reported", said), by=by, at=time.time())
            except EditConflict:
                continue  # whatever somebody made of it meanwhile: what is served was reported
            return "The FAQ does not serve it any more, until somebody approves it again."
        return ""

    async def forget(self, session: str, turn: str = "", *, dry_run: bool) -> int:
        """A session (or one turn of it) is deleted: drafts that took their answer from it go too; how many. What a
        person approved, or had approved before, is the team's, and stays."""
        books = (await self._books.of()).values()
        entries = [entry for book in books for entry in book.entries.values()]
        own = [entry for entry in entries if entry.session_id == session and turn in {"", entry.turn_id}]
        drafts = [entry for entry in own if not entry.owner]
        return len(drafts) if dry_run else sum([await self._books.remove(entry) for entry in drafts])

    async def _all_candidates(self) -> Sequence[FaqCandidate]:
        books = await self._books.of()
        return await self._candidates.find(books, days=_DAYS, flow=None, limit=_MOST_CANDIDATES)

    async def _left_of(self, candidate: FaqCandidate) -> FaqCandidate | None:
        try:
            return await self.candidate(candidate.id)
        except UnknownFaqEntry:
            return None

    async def _open(self, id_: str, now: float, by: str) -> Opened:
        """An entry to be changed; of a candidate one that is not written down yet."""
        try:
            return Opened(await self._books.find(id_), known=True)
        except UnknownFaqEntry:
            candidate = await self.candidate(id_)
        return begun(candidate.flow, candidate, now, by)

    async def _check(self, spec: FlowSpec, entry: FaqEntry) -> None:
        """Whether the entry may be served at all. Raises `InputError`."""
        if not entry.answer.strip():
            raise InputError(
                f"{entry.question!r} has no answer yet",
                suggestions=("Write one: `afw faq edit ID --answer '...'`.", "Or take that of a turn: --turn TURN."),
            )
        for wording in entry.asked_as:
            admit_wording(wording, longest=self._longest)
        if spec.sharing is not Sharing.TEAM:
            raise InputError(
                f"the flow {spec.key!r} shares no answers with the team, so nobody would be served from its FAQ",
                suggestions=(f"Its sharing is {spec.sharing.value}; if that is a slip, change it in the registry.",),
                flow=spec.key,
            )
        if await self._candidates.withdrawn(spec.key, entry.asked_as):
            raise InputError(
                "an answer to this question was called private, so none is kept for others",
                suggestions=("Leave that wording out, and ask in words that give nothing away.",),
                flow=spec.key,
            )

    def _review(self, now: float) -> float:
        return now + self._review_seconds if self._review_seconds else 0.0


def _named(wordings: Sequence[str], own: Sequence[str], id_: str) -> list[str]:
    """Those of an entry's or a candidate's own wordings that are named. Raises `InputError`."""
    known = {normalise(text): text for text in own}
    if not wordings:
        raise InputError("say which wordings ask something else", faq_id=id_)
    if strange := [text for text in wordings if normalise(text) not in known]:
        raise InputError(
            f"{strange[0]!r} is none of its other wordings",
            suggestions=(f"They stand in `afw faq show {id_}`; its question itself stays.",),
            faq_id=id_,
        )
    return [known[normalise(text)] for text in wordings]


def faq_of(
    settings: Settings,
    registry: Registry,
    store: Store,
    watch: FlowWatch,
    *,
    flush: Callable[[], Awaitable[None]],
    popular: Popular,
    embedding: Embedding,
    changed: Callable[[FaqBook], Awaitable[None]],
    forget: Callable[[], None],
) -> Faq:
    """The FAQ of a tenant, put together. `changed` is told of a book with other words in it, `forget` has this process
    forget what it has at hand."""

    async def fingerprint(spec: FlowSpec, ask: bool) -> str:
        look = watch.refresh if ask else watch.current
        return (await look(spec, now=time.time())).fingerprint

    books = FaqBooks(registry, store, fingerprint=fingerprint, changed=changed, forget=forget)
    groups = Groups(store, embedding)
    candidates = Candidates(settings, registry, store, popular, groups, lambda spec: fingerprint(spec, False), flush)
    return Faq(settings, registry, store, books, candidates, fingerprint)
