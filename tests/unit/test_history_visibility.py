"""Who may find a turn: the rule, and the local index that applies it while it looks, in both of its forms."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from agentic_flywheel.findings import Audience, EngineState, HistoryQuery, Sight
from agentic_flywheel.policy.visibility import audience_of, sight_of
from agentic_flywheel.search.history import engine_query
from agentic_flywheel.search.history.engine_docs import engine_doc, facts_of
from agentic_flywheel.search.history.local_index import LocalIndex
from sights import DOCS, FLOWS, SESSIONS, SIGHTS, allowed

pytestmark = pytest.mark.anyio

EMBEDDER = "e" * 32


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


@pytest.mark.parametrize("sight", SIGHTS, ids=lambda sight: f"{sight.caller or 'operator'}-{sight.session or 'any'}")
def test_what_the_engine_finds_is_looked_at_once_more_by_the_same_rule(sight: Sight) -> None:
    """Its expressions are tested on a server (tests/integration/test_history_contract.py)."""
    read = {doc.id: facts_of(bytes(engine_doc(doc).fields["m"])) for doc in DOCS}  # type: ignore[arg-type]
    assert {id_ for id_, facts in read.items() if engine_query.allowed(sight, facts)} == allowed(sight)


def test_expressions_for_the_engine_hold_no_text_of_anybody() -> None:
    sight = Sight(caller="ann's (x)", session="s|1", open_flows=("a-b",), closed_flows=("2026",))
    query = HistoryQuery(
        session="s}1", flow="a{b", user='"u"', outcome="o@", tag="t-", since=float("nan"), until=1e300, sight=sight,
        excluded=(("2026",), ("-x", "$y")), phrases=((("inf", "\u8bb0"),),), terms=("or", "*"), seen=3,
    )  # fmt: skip
    state = EngineState(flows=frozenset({"a b", "c'"}), sequence=9)
    scope = engine_query.scope_of(query, state)
    whole = engine_query.any_of(scope, query.terms, must=engine_query.phrases_of(query), more=("~z",))
    bare = re.sub(r'@[a-z]:|\{[hsut][0-9a-z|h]*\}|\[[(0-9a-z+. -]*\]|\b[wu][a-z0-9]+\b|[()|"~-]', "", whole)
    assert bare.strip() == ""


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
    assert audience_of("Where is the API described?", private=False, own=False) is Audience.TEAM
    assert audience_of("Où est notre facture ?", private=False, own=False) is Audience.USER
    assert audience_of("And the last one?", private=False, own=True) is Audience.USER
    assert audience_of("Where is my invoice?", private=True, own=True) is Audience.SESSION
