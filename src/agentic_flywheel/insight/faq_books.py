"""The books of the FAQ, flow by flow: read, looked at, and written in.

Invariant: an entry is only written over the very revision that was read. Changes of other entries of the flow meanwhile
are no conflict: the book is read again and the same change is made to it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from agentic_flywheel.curated import FaqBook, FaqCandidate, FaqChange, FaqEntry, FaqState, FaqView
from agentic_flywheel.errors import EditConflict, FlowError, InputError, StoreUnavailable, UnknownFaqEntry
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.policy.admission import admit_text
from agentic_flywheel.policy.faq import stands, taken_by
from agentic_flywheel.store.store import Store

#: Who loses races against changes of other entries tries again, so often at most.
_ATTEMPTS = 50
#: Least characters of an id that may stand for the whole of it.
_SHORTEST = 4
#: What may be an id, from how many characters on it can be nothing else, and the name of any question that was asked.
_LIKE_AN_ID = re.compile(r"[0-9a-f]{4,32}")
_SURELY_AN_ID, _WHOLE_NAME = 8, 32
#: What waits for a person comes first, and what is retired last.
_ORDER = (
    FaqState.REPORTED,
    FaqState.STALE,
    FaqState.DUE,
    FaqState.DRAFT,
    FaqState.UNSHARED,
    FaqState.PUBLISHED,
    FaqState.RETIRED,
)

_T = TypeVar("_T")


class Opened(NamedTuple):
    """An entry as it was read, to be changed: `known` is False for one that is not written down yet."""

    entry: FaqEntry
    known: bool

    @property
    def revision(self) -> int:
        """The revision that the next change is made to."""
        return self.entry.revision if self.known else 0


class Step(NamedTuple):
    """One thing that is done to an entry, for its history."""

    what: str
    said: dict[str, str]


class FaqBooks:
    """The books of one tenant. `fingerprint` gives a flow's present configuration, asked of the flow itself if True."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        *,
        fingerprint: Callable[[FlowSpec, bool], Awaitable[str]],
        changed: Callable[[FaqBook], Awaitable[None]],
        forget: Callable[[], None],
    ) -> None:
        self._registry = registry
        self._store = store
        self._fingerprint = fingerprint
        self._changed = changed  # told of a book with other words in it
        self._forget = forget  # what this process has at hand

    async def of(self, flow: str | None = None) -> dict[str, FaqBook]:
        """The books of all flows that have one, or of one flow. Raises `UnknownFlow`."""
        known = await self._store.flows.known()
        flows = self._registry.current()
        names = {*known, *flows.flows}
        if flow is not None:
            names = {flow if flow in known else flows.get(flow, inactive=True).key}
        return {name: await self._store.faq.book(name) for name in await self._store.faq.versions(sorted(names))}

    async def views(self, books: Mapping[str, FaqBook]) -> tuple[list[FaqView], list[str]]:
        """How each entry stands, what waits for a person first; and what to warn of."""
        views: list[FaqView] = []
        warnings: list[str] = []
        now, flows = time.time(), self._registry.current().flows
        for flow, book in books.items():
            spec, fingerprint = flows.get(flow), ""
            if spec is not None and any(entry.published for entry in book.entries.values()):
                try:
                    fingerprint = await self._fingerprint(spec, False)
                except FlowError as error:
                    fingerprint = (await self._store.flows.state(flow)).fingerprint
                    warnings.append(f"How the flow {flow!r} is configured was last seen a while ago: {error.message}.")
            if book.damaged:
                warnings.append(f"{book.damaged} entries of the flow {flow!r} are damaged, and not served.")
            sharing = spec.sharing if spec is not None else None
            views += [stands(one, sharing=sharing, fingerprint=fingerprint, now=now) for one in book.entries.values()]
        views.sort(key=lambda view: (_ORDER.index(view.state), view.entry.flow, view.entry.created_at, view.id))
        return views, warnings

    async def find(self, id_: str) -> FaqEntry:
        """The entry of an id, which may be shortened. Raises `UnknownFaqEntry`, and `InputError` if several fit."""
        books = (await self.of()).values()
        return only(id_, {entry.id: entry for book in books for entry in book.entries.values()})

    async def put(
        self, opened: Opened, entry: FaqEntry, *steps: Step, by: str, at: float, revision: int | None = None
    ) -> FaqEntry:
        """Write an entry over the one that was opened; `revision` is the one that whoever changes it has seen (None:
        what was opened). Raises `EditConflict` where somebody else was faster, and `InputError` where what is to be
        served has the words of another entry."""
        flow, by = entry.flow, admit_text(by, "user")
        changes = [FaqChange(at, by, step.what, opened.revision + n, step.said) for n, step in enumerate(steps, 1)]
        number = opened.revision + len(steps)
        entry = msgspec.structs.replace(entry, revision=number, changed_at=at, changed_by=by)
        if opened.known and revision is not None and revision != opened.entry.revision:
            raise _conflict(opened.entry, revision)
        for _ in range(_ATTEMPTS):
            book = await self._store.faq.book(flow)
            _expect(book, opened)
            if entry.published is not None:
                _refuse_taken(entry, book)
            if await self._store.faq.write(book, entry, *changes):
                self._forget()
                await self._changed(await self._store.faq.book(flow))
                return entry
        raise _crowded(flow)

    async def remove(self, entry: FaqEntry) -> bool:
        """Remove an entry with its history for good; whether it was there."""
        for _ in range(_ATTEMPTS):
            book = await self._store.faq.book(entry.flow)
            if entry.id not in book.entries:
                return False
            if await self._store.faq.remove(book, entry.id):
                self._forget()
                await self._changed(await self._store.faq.book(entry.flow))
                return True
        raise _crowded(entry.flow)


def only(id_: str, known: Mapping[str, _T]) -> _T:
    """What has this id, or the only one whose id begins so. Raises `UnknownFaqEntry` and `InputError`."""
    if id_ in known:
        return known[id_]
    fitting = [name for name in known if name.startswith(id_)] if len(id_) >= _SHORTEST else []
    if len(fitting) > 1:
        raise InputError(f"{len(fitting)} ids begin with {id_!r}: {', '.join(sorted(fitting)[:5])}", faq_id=id_)
    if not fitting:
        raise UnknownFaqEntry(f"the FAQ has no entry {id_!r}, and no such question asks for a place in it", faq_id=id_)
    return known[fitting[0]]


def covering(id_: str, found: Sequence[FaqCandidate]) -> FaqCandidate:
    """The candidate of an id, which may be that of any question that it stands for."""
    covered = {cluster: candidate for candidate in found for cluster in candidate.covers}
    return only(id_, covered | {candidate.id: candidate for candidate in found})


def meant_by(wording: str, flow: str, found: Sequence[FaqCandidate], known: Mapping[str, FaqEntry]) -> tuple[str, str]:
    """What somebody says asks the same, a text or the id of a candidate, by name and by text. Raises `UnknownFaqEntry`
    for an id of nothing, and `InputError` for that of an entry or of another flow's candidate."""
    if not _LIKE_AN_ID.fullmatch(wording):
        return wording, wording
    try:
        candidate = covering(wording, found)
    except UnknownFaqEntry:
        if any(id_.startswith(wording) for id_ in known):
            raise InputError(
                f"{wording!r} is an entry of the FAQ, and cannot be joined to another",
                suggestions=(f"Retire it (`afw faq retire {wording}`) and give its question as a text.",),
                faq_id=wording,
            ) from None
        if _SURELY_AN_ID <= len(wording) < _WHOLE_NAME:
            raise
        return wording, wording
    if candidate.flow != flow:
        raise InputError(
            f"{wording!r} asks the flow {candidate.flow!r}, not {flow!r}: each flow has its own FAQ", faq_id=wording
        )
    return candidate.id, candidate.question


def _expect(book: FaqBook, opened: Opened) -> None:
    """The entry has to be what it was when it was opened."""
    here = book.entries.get(opened.entry.id)
    if opened.known and here is None:
        raise UnknownFaqEntry(f"the entry {opened.entry.id!r} is gone: somebody has removed it", faq_id=opened.entry.id)
    if opened.known and here is not None and here.revision != opened.entry.revision:
        raise _conflict(here, opened.entry.revision)
    if not opened.known and opened.entry.cluster:
        begun = next((one for one in book.entries.values() if one.cluster == opened.entry.cluster), None)
        if begun is not None:
            raise _conflict(begun, 0)


def _refuse_taken(entry: FaqEntry, book: FaqBook) -> None:
    taken = taken_by(entry, book.entries.values())
    if taken is not None:
        wording, other = taken
        raise InputError(
            f"{wording!r} is answered by the entry {other.id} already ({other.question!r})",
            suggestions=(
                f"Leave this wording out here, or change that entry: `afw faq edit {other.id}`.",
                f"Retire one of the two: `afw faq retire {other.id}`.",
            ),
            faq_id=other.id,
        )


def _conflict(here: FaqEntry, seen: int) -> EditConflict:
    who = f"{here.changed_by} has" if here.changed_by else "somebody has"
    read = f"it was read at revision {seen}" if seen else "it was a candidate when it was read"
    return EditConflict(
        f"{who} changed the entry {here.id} meanwhile: {read}, and is at {here.revision} now",
        faq_id=here.id,
        revision=here.revision,
        by=here.changed_by,
        at=here.changed_at,
    )


def _crowded(flow: str) -> StoreUnavailable:
    return StoreUnavailable(f"the FAQ of the flow {flow!r} is being changed by others all the time")
