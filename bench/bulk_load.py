"""Made-up turns put into an index as they are made, with their vectors, in large transactions: the way to sizes at
which to make an index from Redis, turn by turn, takes hours.

Invariant: what the index holds afterwards is what `history.rebuild` would have put there. The query engine's turns
stand in their sessions as well, since their texts are read from there; the local index has the texts itself, so that
its turns are in no session.
"""

from __future__ import annotations

import sys
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec

from agentic_flywheel.findings import HistoryDoc, SessionMark
from agentic_flywheel.indexing import doc_of
from agentic_flywheel.model import Session, Turn
from agentic_flywheel.search.history.engine_docs import engine_doc
from agentic_flywheel.store.history_docs import vector_field
from agentic_flywheel.store.keys import short
from made_up_turns import SESSION_TURNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentic_flywheel.search.history.protocols import HistoryIndex
    from agentic_flywheel.store.store import Store
    from made_up_turns import MadeUpVectors, Team

_TOGETHER = 1000
_TOLD = 20_000


async def load(
    index: HistoryIndex, store: Store, team: Team, vectors: MadeUpVectors, start: int, end: int, now: float
) -> float:
    """Take in turns `start` to `end` (whole sessions); how many seconds that took, making them up included."""
    began = perf_counter()
    if index.kind == "engine":
        await store.history.enlist(vectors.fingerprint, dimension=vectors.dimension)
        await store.history.grow()  # the graph is there before they come
        while (await store.history_engine.look()).warnings:
            pass
    for first in range(start, end, _TOGETHER):
        turns = [team.turn(number, now=now) for number in range(first, min(end, first + _TOGETHER))]
        docs = [_doc(turn, number) for number, turn in enumerate(turns, first)]
        marks = {doc.session_id: SessionMark("", doc.place + 1) for doc in docs}
        if index.kind == "engine":
            await _take(store, vectors, turns, docs, marks)
        else:
            await index.apply(docs, marks)
            lacking = await index.lacking(vectors.fingerprint, count=len(docs))
            raw = vectors.embed([question for _, question in lacking]).astype("<f2")
            named = zip(lacking, raw, strict=True)
            await index.add_vectors(vectors.fingerprint, {id_: vector.tobytes() for (id_, _), vector in named})
        if (first + _TOGETHER) % _TOLD == 0:
            print(f"  {first + _TOGETHER:,} of {end:,}", file=sys.stderr, flush=True)
    if index.kind == "engine":
        await store.link.run(
            ("HSET", store.keys.history("state"), f"filled:{short(vectors.fingerprint)}", 1),
            ("UNLINK", store.keys.history_lacking(vectors.fingerprint)),
            slow=True,
        )
    await index.keep_places(await store.feed.ends())
    return perf_counter() - began


async def _take(
    store: Store,
    vectors: MadeUpVectors,
    turns: Sequence[Turn],
    docs: Sequence[HistoryDoc],
    marks: dict[str, SessionMark],
) -> None:
    await store.link.run(*store.sessions.append_commands(*turns), slow=True)
    field, made = vector_field(vectors.fingerprint), []
    raw = vectors.embed([turn.question for turn in turns]).astype("<f2")
    for doc, vector in zip(map(engine_doc, docs), raw, strict=True):
        made.append(msgspec.structs.replace(doc, fields={**doc.fields, field: vector.tobytes()}))
    await store.history.take(made, marks)


def _doc(turn: Turn, number: int) -> HistoryDoc:
    session = Session(id=turn.session_id, created_at=turn.at)
    return doc_of(turn, session, place=number % SESSION_TURNS)
