"""The documents of the query engine's index of history: a hash for each turn, and what is known of them all.

Invariant: a turn has one document however often it is taken in, and what is counted (`docs`, `words`) changes in the
same script as what it counts. A mark never runs ahead of the documents of its session. None of these keys expires, so
`volatile-*` policies of eviction leave them alone; where one went all the same, the counts show it (`history_engine`).
What is removed here leaves the engine's index in the same moment.

    afw:v1:T:{history}:state        hash     release, docs, words, sequence, places, embedders
    afw:v1:T:{history}:flows        set      flows that were ever among the documents
    afw:v1:T:{history}:sessions:N   hash     session -> how far it was read, turns numbered, tags
    afw:v1:T:{history}:turns:S      set      the numbers of a session's documents
    afw:v1:T:{history}:doc:S:D      hash     a turn: its words, what it is filtered by, its vectors
    afw:v1:T:{history}:lacking:E    zset     documents without a vector of an embedder, by sequence

All lie in one slot, since the engine sees one server's keys only. The texts themselves are not kept again: they are
read from the session. What stands in a document is made by `search.history.engine_docs`, and written in `take` alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from agentic_flywheel.errors import IndexUnusable
from agentic_flywheel.findings import EngineDoc, EngineState, SessionMark
from agentic_flywheel.store.failures import NONSENSE, nonsense
from agentic_flywheel.store.history_scripts import EMBED, ENLIST, FORGET, PLACE, TAKE
from agentic_flywheel.store.keys import SHARDS, Keys, history_name, shard_of, short
from agentic_flywheel.store.link import Command, Link

#: Documents that are written or read together. Redis takes some ten at a time between what others ask of it.
_TOGETHER = 100
#: Vectors that are written together: beyond some ten thousand of them each takes the engine a millisecond or two.
_VECTORS = 4
_IDS = 500
#: Embedders whose vectors are kept: the one in use and the one before, for who goes back.
_EMBEDDERS = 2

_T = TypeVar("_T")


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a session: where it was read to, how many turns were numbered, its tags as they are indexed."""

    reached: str = ""
    turns: int = 0
    tags: str = ""


class HistoryDocs:
    """The documents of one tenant."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self._state = keys.history("state")

    def state_commands(self) -> list[Command]:
        """What to send to learn what there is; see `state_of`."""
        return [("HGETALL", self._state), ("SMEMBERS", self._keys.history("flows"))]

    def state_of(self, replies: Sequence[Any]) -> EngineState:
        """The replies to `state_commands`."""
        raw, flows = replies
        try:
            fields = raw if isinstance(raw, dict) else dict(zip(raw[::2], raw[1::2], strict=True))
            said = {name.decode(): value.decode() for name, value in fields.items()}
            embedders = (one.rpartition(":") for one in said.get("embedders", "").split())
            return EngineState(
                release=int(said.get("release", 0)),
                docs=int(said.get("docs", 0)),
                words=int(said.get("words", 0)),
                sequence=int(said.get("sequence", 0)),
                places={int(name[5:]): value for name, value in said.items() if name.startswith("place")},
                embedders={name: int(size) for name, _, size in embedders},
                flows=frozenset(flow.decode() for flow in flows),
                large="large" in said,
                veil=said.get("veil", ""),
            )
        except NONSENSE as error:
            raise nonsense(error, "the state of the index of history") from error

    async def state(self) -> EngineState:
        """What there is; one round trip."""
        return self.state_of(await self._link.run(*self.state_commands(), slow=True))

    async def begin(self, release: int, *, veil: str = "") -> None:
        """There is an index of this release, made with this veil, from now on."""
        words = ("veil", veil) if veil else ()
        await self._link.run(("HSET", self._state, "release", release, *words), slow=True)

    async def begun(self) -> bool:
        """Whether there is an index."""
        (release,) = await self._link.run(("HEXISTS", self._state, "release"), slow=True)
        return bool(release)

    async def grow(self) -> None:
        """There are so many vectors that they are found by a graph from now on."""
        await self._link.run(("HSET", self._state, "large", 1), slow=True)

    async def keep_places(self, places: Mapping[int, str], *, token: str) -> None:
        """Remember where to read on. Raises `IndexUnusable` where another process has taken over."""
        if not places:
            return
        named = [word for shard, place in places.items() for word in (f"place{shard}", place)]
        (kept,) = await self._link.run(
            PLACE.call((self._state, self._keys.history("lease")), token, *named),
            slow=True,
        )
        if not kept:
            raise IndexUnusable("another process has taken the index of history over, or given it up")

    async def take(self, docs: Sequence[EngineDoc], marks: Mapping[str, SessionMark]) -> None:
        """Take turns in, then note how far their sessions were read. Raises `IndexUnusable` where there is no index."""
        for part in _parts(docs, _TOGETHER):
            replies = await self._link.run(*(self._take_command(doc) for doc in part), slow=True)
            if -1 in replies:
                raise IndexUnusable("the index of history was given up meanwhile", damaged=True)
        if not marks:
            return
        known = await self._kept(list(marks))
        commands: list[Command] = []
        for session, mark in marks.items():
            tags = known[session].tags if session in known else ""
            tags = next((str(doc.fields["t"]) for doc in reversed(docs) if doc.session_id == session), tags)
            commands.append(self._keep_command(session, _Kept(mark.stream_id, mark.turns, tags)))
        await self._link.run(*commands, slow=True)

    def _take_command(self, doc: EngineDoc) -> Command:
        keys, name = self._keys, history_name(doc.session_id, doc.turn_id)
        own = (
            keys.history_doc(doc.session_id, doc.turn_id),
            keys.history_turns(doc.session_id),
            keys.history_sessions(shard_of(doc.session_id)),
            self._state,
            keys.history("flows"),
        )
        fields = [word for pair in doc.fields.items() for word in pair]
        number = name.rpartition(":")[2]
        return TAKE.call(own, number, doc.session_id, doc.flow, doc.words, name, self._lacking_prefix, *fields)

    def _keep_command(self, session: str, kept: _Kept) -> Command:
        return ("HSET", self._keys.history_sessions(shard_of(session)), session, msgspec.msgpack.encode(kept))

    async def marks(self, sessions: Sequence[str]) -> dict[str, SessionMark]:
        """How far sessions were read; those that are not known are left out."""
        known = await self._kept(sessions)
        return {session: SessionMark(kept.reached, kept.turns) for session, kept in known.items()}

    async def _kept(self, sessions: Sequence[str]) -> dict[str, _Kept]:
        if not sessions:
            return {}
        commands = [("HGET", self._keys.history_sessions(shard_of(session)), session) for session in sessions]
        replies = await self._link.run(*commands, slow=True)
        try:
            return {
                session: msgspec.msgpack.decode(raw, type=_Kept) if raw else _Kept()
                for session, raw in zip(sessions, replies, strict=True)
                if raw is not None
            }
        except msgspec.DecodeError as error:
            raise IndexUnusable(f"the index of history in Redis is damaged: {error}", damaged=True) from error

    async def sessions(self) -> list[str]:
        """All sessions that have documents or a mark."""
        return [session async for page in self._session_pages() for session in page]

    async def sessions_count(self) -> int:
        """How many there are."""
        commands = [("HLEN", self._keys.history_sessions(shard)) for shard in range(SHARDS)]
        return sum(await self._link.run(*commands, slow=True))

    async def _session_pages(self) -> AsyncIterator[list[str]]:
        for shard in range(SHARDS):
            cursor: Any = b"0"
            while True:
                scan = ("HSCAN", self._keys.history_sessions(shard), cursor, "COUNT", _IDS)
                ((cursor, flat),) = await self._link.run(scan, slow=True)
                for page in _parts([raw.decode() for raw in flat[::2]], _TOGETHER):
                    yield list(page)
                if not int(cursor):
                    break

    async def remove(self, *, sessions: Sequence[str] = (), turns: Sequence[tuple[str, str]] = ()) -> None:
        """Forget sessions and single turns, in one round trip where there is nothing of them."""
        for session in sessions:
            told = self._keys.history_sessions(shard_of(session))
            look = (("SMEMBERS", self._keys.history_turns(session)), ("HEXISTS", told, session))
            numbers, known = await self._link.run(*look, slow=True)
            if not numbers and not known:
                continue
            await self._forget((session, number.decode()) for number in numbers)
            end = (("UNLINK", self._keys.history_turns(session)), ("HDEL", told, session))
            await self._link.run(*end, slow=True)
        named = [(session, history_name(session, turn).rpartition(":")[2]) for session, turn in turns]
        there = [("EXISTS", self._doc(session, number)) for session, number in named]
        if there and any(found := await self._link.run(*there, slow=True)):
            await self._forget(one for one, exists in zip(named, found, strict=True) if exists)

    async def _forget(self, named: Iterable[tuple[str, str]]) -> None:
        for part in _parts(list(named), _TOGETHER):
            commands = [
                FORGET.call(
                    (self._doc(session, number), self._keys.history_turns(session), self._state),
                    number,
                    self._doc(session, number).removeprefix(self._keys.history_prefix()),
                    self._lacking_prefix,
                )
                for session, number in part
            ]
            await self._link.run(*commands, slow=True)

    def _doc(self, session: str, number: str) -> str:
        prefix = self._keys.history_doc(session, "").rpartition(":")[0]
        return f"{prefix}:{number}"

    async def retag(self, tags: Mapping[str, str]) -> None:
        """Give the documents of sessions other tags; those whose tags are these already cost nothing more."""
        known = await self._kept(list(tags))
        for session, kept in known.items():
            if kept.tags == tags[session]:
                continue
            (numbers,) = await self._link.run(("SMEMBERS", self._keys.history_turns(session)), slow=True)
            for part in _parts(numbers, _TOGETHER):
                docs = [self._doc(session, number.decode()) for number in part]
                there = await self._link.run(*(("EXISTS", doc) for doc in docs), slow=True)
                found = [doc for doc, exists in zip(docs, there, strict=True) if exists]
                await self._link.run(
                    *(("HSET", doc, "t", tags[session]) for doc in found), slow=True
                ) if found else None
            other = msgspec.structs.replace(kept, tags=tags[session])
            await self._link.run(self._keep_command(session, other), slow=True)

    async def read(self, names: Sequence[str], field: str) -> dict[str, bytes]:
        """A field of documents by name; of those that are gone by now, none."""
        if not names:
            return {}
        prefix = self._keys.history_prefix()
        replies = await self._link.run(*(("HGET", prefix + name, field) for name in names), slow=True)
        return {name: raw for name, raw in zip(names, replies, strict=True) if raw is not None}

    async def facts(self, turns: Iterable[tuple[str, str]]) -> list[tuple[str, bytes, int]]:
        """Name, facts and number of the documents of turns (session, turn); those that have none are left out."""
        named = [history_name(session, turn) for session, turn in turns]
        prefix = self._keys.history_prefix()
        commands = [("HMGET", prefix + name, "m", "n") for name in named]
        replies = await self._link.run(*commands, slow=True) if commands else []
        return [(name, raw, int(number)) for name, (raw, number) in zip(named, replies, strict=True) if raw and number]

    async def lacking(self, embedder: str, *, count: int) -> list[str]:
        """Names of documents without a vector of an embedder, newest first; one that is new here lacks all."""
        look = (
            ("HMGET", self._state, "release", f"filled:{short(embedder)}"),
            ("ZREVRANGE", self._keys.history_lacking(embedder), 0, count - 1),
        )
        (release, filled), names = await self._link.run(*look, slow=True)
        if release is not None and filled is None:
            await self._fill(embedder)
            _, names = await self._link.run(*look, slow=True)
        return [name.decode() for name in names]

    async def lacking_count(self, embedder: str) -> int | None:
        """How many documents lack a vector of an embedder; None where it is not known."""
        look = (
            ("HEXISTS", self._state, f"filled:{short(embedder)}"),
            ("ZCARD", self._keys.history_lacking(embedder)),
        )
        filled, count = await self._link.run(*look, slow=True)
        return int(count) if filled else None

    async def _fill(self, embedder: str) -> None:
        """Note that all documents lack a vector of this embedder. Whoever is stopped over it is followed by somebody
        who does it again; a document that got one meanwhile gets it twice."""
        (gone,) = await self._link.run(ENLIST.call((self._state,), short(embedder), 0, _EMBEDDERS), slow=True)
        old, field = [raw.decode() for raw in gone], vector_field(embedder)
        key = self._keys.history_lacking(embedder)
        async for sessions in self._session_pages():
            asked = [("SMEMBERS", self._keys.history_turns(session)) for session in sessions]
            members = zip(sessions, await self._link.run(*asked, slow=True), strict=True)
            docs = [self._doc(session, number.decode()) for session, numbers in members for number in numbers]
            for part in _parts(docs, _IDS):
                replies = await self._link.run(*(("HMGET", doc, "n", field) for doc in part), slow=True)
                prefix = self._keys.history_prefix()
                wanted = [
                    word
                    for doc, (sequence, vector) in zip(part, replies, strict=True)
                    if sequence is not None and vector is None
                    for word in (sequence, doc.removeprefix(prefix))
                ]
                commands: list[Command] = [("ZADD", key, *wanted)] if wanted else []
                commands += [("HDEL", doc, *(f"v{name}" for name in old)) for doc in part if old]
                if commands:
                    await self._link.run(*commands, slow=True)
        commands = [("HSET", self._state, f"filled:{short(embedder)}", 1)]
        for name in old:
            commands += [("UNLINK", self._lacking_prefix + name), ("HDEL", self._state, f"filled:{name}")]
        await self._link.run(*commands, slow=True)

    async def enlist(self, embedder: str, *, dimension: int) -> bool:
        """Know how long the vectors of an embedder are; whether that is news."""
        if (await self.state()).embedders.get(short(embedder)):
            return False
        await self._link.run(ENLIST.call((self._state,), short(embedder), dimension, _EMBEDDERS), slow=True)
        return True

    async def add_vectors(self, embedder: str, vectors: Mapping[str, bytes]) -> None:
        """Keep vectors (float16) by the names of their documents; the embedder is enlisted."""
        known = (await self.state()).embedders.get(short(embedder), 0)
        prefix, key = self._keys.history_prefix(), self._keys.history_lacking(embedder)
        # A hash with a vector of another size would not be indexed at all.
        fitting = [(name, raw) for name, raw in vectors.items() if len(raw) == 2 * known]
        for part in _parts(fitting, _VECTORS):
            commands = [EMBED.call((prefix + n, key), vector_field(embedder), raw, n) for n, raw in part]
            await self._link.run(*commands, slow=True)

    async def excuse(self, embedder: str, names: Sequence[str]) -> None:
        """These will get no vector: their turns cannot be read."""
        await self._link.run(("ZREM", self._keys.history_lacking(embedder), *names), slow=True)

    async def clear(self, *, keep: bool) -> None:
        """Remove every document; with `keep`, it is known that there is an index, and of which embedders."""
        await self._link.run(("HDEL", self._state, *(f"place{shard}" for shard in range(SHARDS))), slow=True)
        async for sessions in self._session_pages():
            asked = [("SMEMBERS", self._keys.history_turns(session)) for session in sessions]
            members = list(zip(sessions, await self._link.run(*asked, slow=True), strict=True))
            docs = [self._doc(session, number.decode()) for session, numbers in members for number in numbers]
            for part in _parts(docs, _TOGETHER):
                await self._link.run(("UNLINK", *part), slow=True)
            ends: list[Command] = [("UNLINK", self._keys.history_turns(session)) for session in sessions]
            ends += [("HDEL", self._keys.history_sessions(shard_of(session)), session) for session in sessions]
            await self._link.run(*ends, slow=True)
        state = await self.state()
        lacking = [self._lacking_prefix + name for name in state.embedders]
        commands: list[Command] = [("UNLINK", *lacking)] if lacking else []
        if keep:
            commands.append(("HSET", self._state, "docs", 0, "words", 0))
        else:
            commands.append(("UNLINK", self._state, self._keys.history("flows")))
        await self._link.run(*commands, slow=True)

    async def unlink(self, keys: Sequence[str]) -> None:
        """Remove documents that nothing else knows of any more."""
        if keys:
            await self._link.run(("UNLINK", *keys), slow=True)

    @property
    def _lacking_prefix(self) -> str:
        return self._keys.history("lacking:")


def vector_field(embedder: str) -> str:
    """The field of a document that holds its vector of an embedder."""
    return f"v{short(embedder)}"


def _parts(values: Sequence[_T], size: int) -> Iterable[Sequence[_T]]:
    return (values[start : start + size] for start in range(0, len(values), size))
