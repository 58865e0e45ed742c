"""Who may find a turn: the rule, and the local index that applies it while it looks, in both of its forms."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from agentic_flywheel.findings import Audience, HistoryDoc, HistoryQuery, Sight
from agentic_flywheel.model import Sharing
from agentic_flywheel.policy.visibility import audience_of, sees, sight_of
from agentic_flywheel.search.history.local_index import LocalIndex

pytestmark = pytest.mark.anyio

FLOWS = {"open": Sharing.TEAM, "own": Sharing.USER, "closed": Sharing.SESSION, "none": Sharing.NONE}
USERS, SESSIONS = ("", "ann", "bob"), ("s1", "s2")
EMBEDDER = "e" * 32
#: One turn of every kind; `gone` is a flow that is not in the registry any more.
DOCS = [
    HistoryDoc(
        turn_id=f"{flow}-{user}-{audience}",
        session_id=session,
        at=float(number),
        question="redis",
        answer="",
        question_words="redi",
        flow=flow,
        user=user,
        outcome="miss",
        audience=audience,
        place=number,
    )
    for number, (flow, user, audience, session) in enumerate(
        itertools.product([*FLOWS, "gone"], USERS, Audience, SESSIONS)
    )
]
SIGHTS = [sight_of(c, session=s, sharing=FLOWS) for c in (*USERS, "eve") for s in ("", *SESSIONS, "s3")]


def allowed(sight: Sight) -> set[str]:
    return {
        doc.id
        for doc in DOCS
        if sees(sight, audience=doc.audience, flow=doc.flow, user=doc.user, session=doc.session_id)
    }


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def index(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalIndex]:
    index = LocalIndex(Path(tmp_path_factory.mktemp("index")))
    await index.apply(DOCS, {})
    vector = np.ones(8, np.float16) / np.sqrt(8)
    lacking = await index.lacking(EMBEDDER, count=1000)
    await index.add_vectors(EMBEDDER, {id_: vector.astype("<f2").tobytes() for id_, _ in lacking})
    yield index
    await index.aclose()


@pytest.mark.parametrize("sight", SIGHTS, ids=lambda sight: f"{sight.caller or 'operator'}-{sight.session or 'any'}")
async def test_every_way_of_looking_shows_what_the_rule_allows(index: LocalIndex, sight: Sight) -> None:
    query = HistoryQuery(text="redis", terms=("redi",), sight=sight)
    vector = (np.ones(8) / np.sqrt(8)).astype(np.float32)
    for hits in (
        await index.words(query, count=1000),
        await index.meaning(query, vector, embedder=EMBEDDER, count=1000),
        await index.listed(query, offset=0, count=1000),
    ):
        docs = await index.docs([hit.id for hit in hits.hits])
        assert {doc.id for doc in docs.values()} == allowed(sight)
        assert hits.total == len(hits.hits)


def test_nobody_sees_what_a_session_keeps_for_itself_unless_it_is_named() -> None:
    closed = {doc.id for doc in DOCS if doc.audience is Audience.SESSION or doc.flow in {"closed", "none"}}
    assert not closed & allowed(sight_of("", session="", sharing=FLOWS))
    assert not closed & allowed(sight_of("ann", session="", sharing=FLOWS))
    named = {doc.id for doc in DOCS if doc.session_id == "s1"}
    assert closed & allowed(sight_of("", session="s1", sharing=FLOWS)) == closed & named


def test_one_user_never_sees_what_is_another_ones() -> None:
    for session in ("", *SESSIONS):
        shown = allowed(sight_of("ann", session=session, sharing=FLOWS))
        theirs = {doc.id for doc in DOCS if doc.user == "bob" and (doc.flow != "open" or doc.audience != Audience.TEAM)}
        assert not theirs & shown


def test_a_flow_that_is_gone_leaves_its_turns_to_those_who_asked() -> None:
    gone = {doc.id for doc in DOCS if doc.flow == "gone" and doc.user == "ann" and doc.audience is Audience.TEAM}
    assert gone <= allowed(sight_of("ann", session="", sharing=FLOWS))
    assert not gone & allowed(sight_of("bob", session="", sharing=FLOWS))


def test_what_a_turn_demands_itself() -> None:
    assert audience_of("Where is the API described?", private=False) is Audience.TEAM
    assert audience_of("Où est notre facture ?", private=False) is Audience.USER
    assert audience_of("Where is my invoice?", private=True) is Audience.SESSION
