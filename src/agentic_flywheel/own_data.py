"""Everything that is kept about one person, to hand over to them (an access request, GDPR Art. 15).

Invariant: what `afw forget --user` would remove is in it, and so is what stays. Every kind of key that may hold a
person's id or words stands in `PLACES`, with the part of the document that tells what is in it, or why none does; a
test looks for a person's id and words in every value in Redis and holds the two together. Another person's words are
not in it.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any, NamedTuple

import msgspec

from agentic_flywheel import __version__
from agentic_flywheel.auditing import Audit
from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.callers import ApiKey, AuditEntry
from agentic_flywheel.curated import FaqChange, FaqEntry
from agentic_flywheel.erasing import Erasing
from agentic_flywheel.insight.tally import counted_for
from agentic_flywheel.likeness import Report
from agentic_flywheel.model import Entry, Session, Turn
from agentic_flywheel.observe.places import OFF
from agentic_flywheel.policies import Policies
from agentic_flywheel.policy.admission import admit_id
from agentic_flywheel.privacy import PrivacyPolicy, Whose
from agentic_flywheel.store.counters import asker_digest
from agentic_flywheel.store.keys import PREFIX
from agentic_flywheel.store.popularity import KEPT
from agentic_flywheel.store.scan import Scan
from agentic_flywheel.store.store import Store
from agentic_flywheel.traced import Judgement

FORMAT = "agentic-flywheel own data"
VERSION = 1
_DAY = 86_400
_ENTRIES = 100
_SESSIONS = 20
_AUDIT_PAGE = 1000


class Place(NamedTuple):
    """Where something about a person may be kept. `key` stands for keys behind `afw:v1:T:` (`*` for any part), `part`
    is the field of `OwnData` that tells of it, "" where none does and `why` says why not."""

    key: str
    part: str
    why: str = ""


_SAME = "it repeats what is in the document, to find it by"
PLACES = (
    Place("session:{*}", "sessions"),
    Place("session:{*}:turns", "sessions"),
    Place("session:{*}:ids", "", "ids of turns, which are in the document"),
    Place("session:{*}:judged", "sessions"),
    Place("sessions:*", "sessions"),
    Place("user:{*}:sessions", "sessions"),
    Place("user:{*}:flow:*:q:*", "answers"),
    Place("session:{*}:flow:*:q:*", "answers"),
    Place("team:flow:*:q:{*}", "answers"),
    Place("flow:{*}:entries:*", "", _SAME),
    Place("vec:*", "", "numbers that stand for the words of questions in the document"),
    Place("veclog:*", "", _SAME),
    Place("{history}:*", "", _SAME),
    Place("feed:*", "", "ids of the turns and sessions in the document; about the newest 10,000 events"),
    Place("popular:*", "popular"),
    Place("paths:*", "popular"),
    Place("askers:*", "counts"),
    Place("count:*", "", "counts of a flow, in which nobody is named"),
    Place("flow:{*}:faq", "faq"),
    Place("flow:{*}:faq:changes:*", "faq"),
    Place("flow:{*}:faq:vec:*", "", "numbers that stand for wordings in the document"),
    Place("reports", "reports"),
    Place("audit", "audit"),
    Place("@keys", "api_keys"),
    Place("@keys:{*}", "api_keys", "secrets are not kept, only what they can be recognised by"),
    Place("@keys:{*}:rate", "", "how many calls a key may make now; 2 minutes"),
    Place("@rate:{*}", "", "how many calls somebody may make now; 2 minutes"),
    Place("privacy", "policies"),
    Place("retention", "", "how far turns past their retention are swept; nobody is named"),
    Place("erasures", "", "whose traces are being deleted; until they are"),
    Place("lease:*", "", "what is being answered at this moment; gone 15 seconds after"),
    Place("repeat:{*}", "", "a request that may be sent again, sealed with the sender's own key; 24 hours"),
    Place("warm*", "", "questions that the team has asked beforehand; nobody's own"),
)
#: What is somewhere else than in Redis.
ELSEWHERE = (
    ("outbox on other machines", "turns that wait for Redis are seen on the machine that they wait on"),
    ("indexes of history on machines", "words of the turns in the document, to search them by"),
    ("backups and exports", "files that somebody made and keeps"),
    ("the flows' own services", "what a flow's service keeps of a question is its own to tell"),
    ("logs", "no question, no answer and no user is logged"),
)


class OwnSession(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation of the person, or one that they asked something in (`owned` tells): their turns, and what people
    said of them. `others` counts turns of other people, which are left out."""

    session: Session
    owned: bool
    turns: tuple[Turn, ...]
    judgements: tuple[Judgement, ...] = ()
    others: int = 0


class OwnAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that was computed for a question of theirs, as it is stored; `scope` says who may be served it."""

    key: str
    scope: str
    ends_at: float
    entry: Entry


class OwnWording(msgspec.Struct, frozen=True, kw_only=True):
    """A question of theirs that counts among the team's popular ones, without saying whose it is."""

    flow: str
    day: str
    question: str


class OwnDay(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted of them on a day."""

    day: str
    counts: dict[str, int]


class OwnFaq(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the FAQ that has to do with them, and what they changed in it."""

    entry: FaqEntry
    changes: tuple[FaqChange, ...] = ()


class OwnTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A trace that tells of a question of theirs; `link` is where people look at it."""

    id: str
    link: str = ""


class Absence(msgspec.Struct, frozen=True, kw_only=True):
    """What is not in the document, and why."""

    what: str
    why: str


class OwnData(msgspec.Struct, frozen=True, kw_only=True):
    """All that is kept about one person. Times are epoch seconds; `warnings` say what could not be read."""

    format: str = FORMAT
    version: int = VERSION
    release: str = __version__
    tenant: str
    user: str
    at: float
    sessions: tuple[OwnSession, ...] = ()
    answers: tuple[OwnAnswer, ...] = ()
    popular: tuple[OwnWording, ...] = ()
    counts: tuple[OwnDay, ...] = ()
    faq: tuple[OwnFaq, ...] = ()
    reports: tuple[Report, ...] = ()
    api_keys: tuple[ApiKey, ...] = ()
    policies: tuple[PrivacyPolicy, ...] = ()
    audit: tuple[AuditEntry, ...] = ()
    traces: tuple[OwnTrace, ...] = ()
    waiting: tuple[Turn, ...] = ()
    absent: tuple[Absence, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """How much there is of each part."""
        found = {name: len(getattr(self, name)) for name in PARTS}
        return {"turns": sum(len(one.turns) for one in self.sessions)} | found


#: The parts of the document, in their order.
PARTS = (
    "sessions",
    "answers",
    "popular",
    "counts",
    "faq",
    "reports",
    "api_keys",
    "policies",
    "audit",
    "traces",
    "waiting",
)


class OwnDataReader:
    """Gathers what is kept about people; `flywheel.own_data`."""

    def __init__(
        self,
        tenant: str,
        store: Store,
        behind: WriteBehind,
        audit: Audit,
        erasing: Erasing,
        policies: Policies,
        exporter: str,
    ) -> None:
        self._tenant = tenant
        self._store = store
        self._behind = behind
        self._audit = audit
        self._erasing = erasing
        self._policies = policies
        self._exporter = exporter
        self._scan = Scan(store.link, store.keys)

    async def of(self, user: str) -> OwnData:
        """Everything about one user, as it is now. Reads all stored answers, so it takes a while where there are many.
        Raises `InputError`, `StoreError`."""
        admit_id(user, "user")
        now = time.time()
        await self._behind.flush()
        await self._store.outbox.settle()
        waiting = await self._store.outbox.sessions()
        absent = await self._store.sessions.absent(waiting)
        threads = [one async for one in self._threads(user)]
        sessions = tuple(own for own, _ in threads)
        named = {one.session.id for one in sessions if one.owned}
        keys = tuple(
            key for key in await self._store.api_keys.listed() if (key.tenant, key.user) == (self._tenant, user)
        )
        traces, warnings = await self._traces(user, [turn for own in sessions for turn in own.turns])
        damaged = [
            f"{count} stored {kind} value(s) are damaged and left out." for kind, count in self._scan.damaged.items()
        ]
        return OwnData(
            tenant=self._tenant,
            user=user,
            at=now,
            sessions=sessions,
            answers=tuple([one async for one in self._answers(user, named, now)]),
            popular=self._popular(threads, now),
            counts=await self._counts(user, now),
            faq=tuple([one async for one in self._faq(user, named)]),
            reports=tuple([one async for one in self._reports(user, named)]),
            api_keys=keys,
            policies=tuple(filter(None, [await self._policies.at(Whose.USER, user)])),
            audit=tuple([one async for one in self._audited(user, named, {f"key:{key.name}" for key in keys})]),
            traces=traces,
            waiting=tuple(turn for turns in absent.values() for turn in turns if turn.user == user),
            absent=tuple(_absences(self._exporter)),
            warnings=(*warnings, *damaged),
        )

    async def _threads(self, user: str) -> AsyncIterator[tuple[OwnSession, list[Turn]]]:
        """The sessions that they have a part in, each with all its turns."""
        async for ids in self._scan.session_ids(user=user):
            for start in range(0, len(ids), _SESSIONS):
                some = ids[start : start + _SESSIONS]
                judged = await self._store.judgements.of(some)
                for session, first, edge in await self._scan.sessions(some):
                    turns = list(first)
                    if turns and edge:
                        async for page in self._scan.turns(turns[0].session_id, edge):
                            turns += page
                    if session is None and not turns:
                        continue
                    header = session or Session(id=turns[0].session_id)
                    owned = header.owner == user
                    own = tuple(turn for turn in turns if turn.user == user or (owned and not turn.user))
                    if not (owned or own):
                        continue
                    about = {turn.id for turn in own} | ({""} if owned else set())
                    said = tuple(one for one in judged[header.id] if one.by == user or one.turn_id in about)
                    if not owned:  # what somebody else called it is theirs
                        header = Session(id=header.id, flow=header.flow, turns=header.turns)
                    yield (
                        OwnSession(
                            session=header, owned=owned, turns=own, judgements=said, others=len(turns) - len(own)
                        ),
                        turns,
                    )

    async def _answers(self, user: str, sessions: set[str], now: float) -> AsyncIterator[OwnAnswer]:
        root = self._store.keys.root + ":"
        for flow in sorted(await self._store.flows.known()):
            async for keys in self._scan.entry_keys(flow, generation=None):
                for start in range(0, len(keys), _ENTRIES):
                    for key, looked, left in await self._scan.entries(keys[start : start + _ENTRIES]):
                        entry = looked.entry
                        if entry is not None and (entry.user == user or entry.session_id in sessions):
                            inner = key.removeprefix(root)
                            scope = inner.partition(":")[0]
                            yield OwnAnswer(key=inner, scope=scope, ends_at=now + left, entry=entry)

    def _popular(self, threads: Iterable[tuple[OwnSession, list[Turn]]], now: float) -> tuple[OwnWording, ...]:
        """Their questions that are counted, by the same rule by which forgetting takes them back."""
        since = now - KEPT.total_seconds()
        found = {}
        for own, turns in threads:
            for turn in own.turns:
                for told in counted_for(turns, {turn.id}, tenant=self._store.keys.root, since=since):
                    if not told.is_step:
                        found[told] = OwnWording(flow=told.flow, day=told.day, question=turn.question)
        return tuple(found.values())

    async def _counts(self, user: str, now: float) -> tuple[OwnDay, ...]:
        digest = asker_digest(user)
        found = []
        for day in range(int(now // _DAY), int(now // _DAY) - KEPT.days - 1, -1):
            counts = (await self._store.counters.askers([day])).get(digest)
            if counts:
                found.append(OwnDay(day=time.strftime("%Y-%m-%d", time.gmtime(day * _DAY)), counts=dict(counts)))
        return tuple(found)

    async def _faq(self, user: str, sessions: set[str]) -> AsyncIterator[OwnFaq]:
        for flow in await self._store.faq.versions(sorted(await self._store.flows.known())):
            book = await self._store.faq.book(flow)
            for entry in book.entries.values():
                changes = tuple(await self._store.faq.changes(flow, entry.id))
                own = tuple(change for change in changes if change.by == user)
                said = entry.published
                named = {entry.owner, entry.changed_by} | ({said.by, said.owner} if said else set())
                if own or user in named or (entry.session_id and entry.session_id in sessions):
                    yield OwnFaq(entry=entry, changes=own)

    async def _reports(self, user: str, sessions: set[str]) -> AsyncIterator[Report]:
        async for page in self._scan.reports():
            for report in page:
                if report.by == user or report.session_id in sessions:
                    yield report

    async def _audited(self, user: str, sessions: set[str], actors: set[str]) -> AsyncIterator[AuditEntry]:
        """What they did, and what was done to them or to sessions of theirs."""
        cursor = ""
        while True:
            page, cursor = await self._audit.list(limit=_AUDIT_PAGE, cursor=cursor)
            for entry in page:
                named = {entry.target, *entry.target.split(), *entry.facts.values()}
                if entry.by in actors or entry.by.partition(":")[2] == user or user in named or sessions & named:
                    yield entry
            if not cursor:
                return

    async def _traces(self, user: str, turns: Iterable[Turn]) -> tuple[tuple[OwnTrace, ...], list[str]]:
        """Traces by the ids that their turns have, and those that Langfuse has of them besides."""
        if self._exporter == OFF:
            return (), []
        ids = dict.fromkeys(turn.trace_id for turn in turns if turn.trace_id)
        more, problem = await self._erasing.known_of(user)
        link = self._erasing.link_to
        traces = tuple(OwnTrace(id=id_, link=link(id_)) for id_ in ids | dict.fromkeys(more))
        return traces, [f"Langfuse could not be asked what it has besides: {problem}."] if problem else []


def _absences(exporter: str) -> Iterable[Absence]:
    for place in PLACES:
        if place.why:
            yield Absence(what=f"{_shown(place.key)}", why=place.why)
    for what, why in ELSEWHERE:
        yield Absence(what=what, why=why)
    if exporter == OFF:
        yield Absence(what="traces", why="none are made (trace.exporter is off)")


def _shown(key: str) -> str:
    return f"{PREFIX}:{key}" if key.startswith("@") else f"{PREFIX}:T:{key}"


def place_of_key(key: str, root: str) -> Place | None:
    """Where in `PLACES` a key of a tenant stands; `root` is what its keys begin with."""
    inner = key.removeprefix(f"{root}:") if key.startswith(f"{root}:") else key.removeprefix(f"{PREFIX}:")
    return next((place for place, form in _FORMS if form.fullmatch(inner)), None)


def _form(key: str) -> re.Pattern[str]:
    return re.compile(re.escape(key).replace(r"\{\*\}", r"\{[^{}]*\}").replace(r"\*", ".*"))


_FORMS: list[tuple[Place, Any]] = sorted(
    ((place, _form(place.key)) for place in PLACES), key=lambda pair: -len(pair[0].key)
)
