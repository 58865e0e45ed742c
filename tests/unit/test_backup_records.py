"""Lines of a backup: what was written is read, and nothing else is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.backup_records import (
    ENDS,
    KINDS,
    SECTIONS,
    AskedOn,
    BlockedPair,
    JoinedWording,
    KnownFlow,
    LineDamaged,
    Record,
    SetLifetime,
    SetSimilar,
    StoredEntry,
    UnknownKind,
    line_of,
    read_line,
)
from agentic_flywheel.curated import FaqChange, FaqEntry, FaqRecord, Publication
from agentic_flywheel.interfaces.cli.backup import NOUNS
from agentic_flywheel.likeness import Profile, Proposal, Report, ReportKind, SimilarMode
from agentic_flywheel.model import Entry, FlowChange, Outcome, Reason, Session, Source, Turn
from agentic_flywheel.privacy import PrivacyPolicy, Rule, Whose

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
SCORE = st.none() | NUMBER
PLAIN = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | NUMBER | TEXT
CONFIG = st.dictionaries(TEXT, st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3)), max_size=3)
SOURCES = st.lists(st.builds(Source, TEXT, TEXT, TEXT, SCORE), max_size=2).map(tuple)
TURNS = st.builds(
    Turn,
    id=TEXT,
    session_id=TEXT,
    at=NUMBER,
    question=TEXT,
    answer=TEXT,
    flow=TEXT,
    fingerprint=TEXT,
    outcome=st.sampled_from(Outcome),
    reason=st.sampled_from(Reason),
    trace_id=TEXT,
    entry_key=TEXT,
    elapsed_ms=NUMBER,
    flow_ms=SCORE,
    context=st.lists(TEXT, max_size=3).map(tuple),
    user=TEXT,
    private=st.booleans(),
    sources=SOURCES,
    similarity=SCORE,
    matched_question=TEXT,
)
ENTRIES = st.builds(
    Entry,
    question=TEXT,
    identity=TEXT,
    answer=TEXT,
    flow=TEXT,
    flow_id=TEXT,
    flow_name=TEXT,
    fingerprint=TEXT,
    generation=st.integers(0, 2**40),
    created_at=NUMBER,
    ttl_seconds=NUMBER,
    trace_id=TEXT,
    turn_id=TEXT,
    first=st.booleans(),
    flow_ms=SCORE,
    sources=SOURCES,
    config=CONFIG,
    alone=st.booleans(),
    withdrawn=TEXT,
)
POLICIES = st.builds(
    PrivacyPolicy,
    history=st.none() | st.booleans(),
    cache=st.none() | st.booleans(),
    retention_days=SCORE,
    redact=st.frozensets(TEXT, max_size=3),
)
CHANGES = st.lists(st.builds(FlowChange, TEXT, TEXT, NUMBER, st.integers(0, 100)), max_size=3).map(tuple)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "flow": st.builds(KnownFlow, flow=TEXT, fingerprint=TEXT, changed_at=NUMBER, revision=TEXT, changes=CHANGES),
    "privacy": st.builds(Rule, st.sampled_from(Whose), TEXT, POLICIES),
    "lifetime": st.builds(SetLifetime, name=TEXT, of=st.sampled_from(["type", "flow"]), ttl_seconds=NUMBER),
    "similar": st.builds(
        SetSimilar,
        flow=TEXT,
        profile=st.none() | st.sampled_from(Profile),
        mode=st.none() | st.sampled_from(SimilarMode),
        max_error=SCORE,
    ),
    "blocked": st.builds(BlockedPair, flow=TEXT, pair=TEXT),
    "report": st.builds(
        Report, id=TEXT, kind=st.sampled_from(ReportKind), turn_id=TEXT, session_id=TEXT, flow=TEXT, question=TEXT
    ),
    "proposal": st.builds(
        Proposal, id=TEXT, flow=TEXT, setting=TEXT, now=TEXT, proposed=TEXT, evidence=TEXT, at=NUMBER, reason=TEXT
    ),
    "session": st.builds(
        Session,
        id=TEXT,
        owner=TEXT,
        title=TEXT,
        tags=st.lists(TEXT, max_size=3).map(tuple),
        turns=st.integers(0, 10**6),
        created_at=NUMBER,
        last_active_at=NUMBER,
        config=CONFIG,
    ),
    "turn": TURNS,
    "entry": st.builds(StoredEntry, key=TEXT, ends_at=NUMBER, entry=ENTRIES),
}
PUBLICATIONS = st.builds(
    Publication,
    question=TEXT,
    wordings=st.lists(TEXT, max_size=3).map(tuple),
    answer=TEXT,
    fingerprint=TEXT,
    at=NUMBER,
    by=TEXT,
    owner=TEXT,
    review_at=NUMBER,
    sources=SOURCES,
    flow_ms=SCORE,
)
VALUES["faq"] = st.builds(
    FaqRecord,
    entry=st.builds(
        FaqEntry,
        id=TEXT,
        flow=TEXT,
        question=TEXT,
        wordings=st.lists(TEXT, max_size=3).map(tuple),
        answer=TEXT,
        created_at=NUMBER,
        changed_at=NUMBER,
        changed_by=TEXT,
        revision=st.integers(1, 1000),
        published=st.none() | PUBLICATIONS,
        retired=st.booleans(),
        reported=TEXT,
        sources=SOURCES,
        flow_ms=SCORE,
    ),
    changes=st.lists(
        st.builds(FaqChange, NUMBER, TEXT, TEXT, st.integers(1, 1000), st.dictionaries(TEXT, TEXT, max_size=3)),
        max_size=3,
    ).map(tuple),
)
COUNT = st.integers(0, 2**32 - 1)
VALUES["joined"] = st.builds(JoinedWording, flow=TEXT, name=TEXT, leads_to=TEXT, day=TEXT)
VALUES["asked"] = st.builds(
    AskedOn,
    flow=TEXT,
    day=TEXT,
    name=TEXT,
    asked=COUNT,
    served=COUNT,
    saved_us=COUNT,
    first=COUNT,
    last=COUNT,
    marks=st.lists(COUNT, max_size=3).map(tuple),
    text=TEXT,
)
RECORDS = st.one_of([st.tuples(st.just(kind), values) for kind, values in VALUES.items()])
TURN = Turn("t", "s", 1.0, "Why?", "So.", "f", "fp", Outcome.MISS, Reason.NOT_STORED, "trace")


def summed(body: bytes) -> bytes:
    """A line with a checksum that fits, whatever it says."""
    return body[:-1] + b',"sum":"' + xxhash.xxh3_64_hexdigest(body).encode() + b'"}\n'


def test_every_kind_is_tried_here_and_belongs_to_a_section() -> None:
    assert VALUES.keys() == KINDS.keys()
    assert {kind.section for kind in KINDS.values()} <= set(SECTIONS)
    assert not KINDS.keys() & ENDS.keys()


@given(RECORDS)
def test_what_was_written_is_read(record: tuple[str, Any]) -> None:
    line = line_of(*record)
    assert line.count(b"\n") == 1
    assert line.endswith(b"}\n")
    assert read_line(line) == Record(*record)
    assert line_of(*record) == line


@given(RECORDS, st.data())
def test_a_line_with_one_other_byte_is_refused(record: tuple[str, Any], data: st.DataObject) -> None:
    line = line_of(*record)
    place = data.draw(st.integers(0, len(line) - 2))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != line[place]))
    with pytest.raises(LineDamaged):
        read_line(line[:place] + bytes([other]) + line[place + 1 :])


@given(RECORDS, st.data())
def test_a_line_that_is_cut_off_is_refused(record: tuple[str, Any], data: st.DataObject) -> None:
    line = line_of(*record)
    short = line[: data.draw(st.integers(0, len(line) - 1))]
    for cut in (short, short + b"\n"):
        if cut != line:
            with pytest.raises(LineDamaged):
                read_line(cut)


@given(st.binary(max_size=80))
def test_whatever_else_is_refused(raw: bytes) -> None:
    with pytest.raises(LineDamaged):
        read_line(raw + b"\n")


def test_people_can_read_it() -> None:
    line = line_of("turn", msgspec.structs.replace(TURN, sources=(Source("Guide", score=0.5),)))
    value = msgspec.json.decode(line)["value"]
    assert value["question"] == "Why?"
    assert value["sources"] == [{"title": "Guide", "score": 0.5}]
    assert "parent" not in value


def test_kinds_of_later_releases_are_told_apart_from_damage() -> None:
    with pytest.raises(UnknownKind, match="'wisdom'"):
        read_line(summed(b'{"kind":"wisdom","value":{"question":"Why?"}}'))


@pytest.mark.parametrize(
    "body",
    [
        b'{"kind":"blocked","value":{"flow":"f","pair":"p","colour":"red"}}',  # a field that this release does not know
        b'{"kind":"blocked","value":{"flow":"f","pair":"p"},"more":1}',
        b'{"kind":"blocked","value":{"flow":"f"}}',
        b'{"kind":"blocked","value":{"flow":"f","pair":1}}',
        b'{"kind":"blocked"}',
        b"[]}",
        b'{"kind":"turn","value":{"id":"\xff"}}',
    ],
)
def test_a_checksum_alone_makes_no_record(body: bytes) -> None:
    with pytest.raises(LineDamaged) as refused:
        read_line(summed(body))
    assert not isinstance(refused.value, UnknownKind)


def test_every_kind_has_a_name_for_people() -> None:
    assert set(NOUNS) == set(KINDS)
