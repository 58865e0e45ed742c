"""Turns that are written again and again with the same answer: quickly, and read like any other."""

from __future__ import annotations

import os
import random
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.model import Outcome, Reason, Source, Turn
from agentic_flywheel.store import turn_codec
from agentic_flywheel.store.codec import decode, encode
from agentic_flywheel.store.turn_codec import encode_turn

WORDS = ["redis", "keeps", "each", "answer", "for", "a", "day", "unless", "évidemment", "\n\n", "persistence"]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
numbers = st.floats(allow_nan=False, allow_infinity=False)
own_parts = st.fixed_dictionaries(
    {
        "id": texts,
        "session_id": texts,
        "at": numbers,
        "trace_id": texts,
        "origin_trace_id": texts,
        "entry_key": texts,
        "elapsed_ms": numbers,
        "flow_ms": st.one_of(st.none(), numbers),
        "context": st.lists(texts, max_size=3).map(tuple),
        "private": st.booleans(),
        "sources": st.lists(st.builds(Source, texts, texts, texts, st.none()), max_size=3).map(tuple),
    }
)


def prose(words: int) -> str:
    """Text that compresses like an answer, another for each length."""
    return " ".join(random.Random(words).choices(WORDS, k=words))


def turn_of(answer: str, **own: Any) -> Turn:
    named = {"id": "i", "session_id": "s", "at": 1.5, "trace_id": "t"}
    said = {"question": "What is kept?", "flow": "docs", "fingerprint": "p" * 64}
    return Turn(answer=answer, outcome=Outcome.HIT, reason=Reason.EXACT, **said, **(named | own))


@pytest.fixture(autouse=True)
def nothing_said() -> None:
    turn_codec._said.blocks.clear()


@given(st.integers(0, 4000).map(prose), st.lists(own_parts, min_size=3, max_size=4))
def test_turns_that_say_the_same_come_back(answer: str, parts: list[dict[str, Any]]) -> None:
    for own in parts:
        turn = turn_of(answer, **own)
        assert decode(encode_turn(turn, "there"), Turn) == turn


def test_what_is_said_again_is_a_frame_that_any_reader_reads() -> None:
    turns = [turn_of(prose(300), id=f"i{number}", at=float(number)) for number in range(4)]
    written = [encode_turn(turn, "there") for turn in turns]
    assert written[0] == encode(turns[0])  # nobody has said it before
    for turn, raw in zip(turns, written, strict=True):
        frame = raw[10:]
        plain = msgspec.msgpack.encode(turn)
        assert zstandard.frame_content_size(frame) == len(plain)
        assert zstandard.ZstdDecompressor().decompressobj().decompress(frame) == plain
        assert raw.at == "there"
    assert written[3] != encode(turns[3])  # else this has tested nothing
    assert len(written[3]) < len(encode(turns[3])) * 1.1


@pytest.mark.parametrize(
    ("answer", "own"),
    [
        ("short", {}),
        (os.urandom(2000).hex(), {}),
        (prose(20_000), {}),
        (prose(300), {"id": "i" * 200_000}),
        (prose(300), {"sources": (Source("title", "uri", "x" * 200_000, None),)}),
    ],
    ids=["short", "hardly compressible", "long", "a huge id", "huge sources"],
)
def test_turns_out_of_the_ordinary_come_back(answer: str, own: dict[str, Any]) -> None:
    turn = turn_of(answer, **own)
    for _ in range(3):
        assert decode(encode_turn(turn), Turn) == turn


def test_turns_that_say_something_else_are_not_taken_for_each_other() -> None:
    one, other = turn_of(prose(300)), turn_of(prose(301))
    fields = {"question": "Another?", "flow": "ops", "fingerprint": "q" * 64, "reason": Reason.CURATED}
    others = [other, *(msgspec.structs.replace(one, **{name: value}) for name, value in fields.items())]
    for _ in range(3):
        for turn in (one, *others):
            assert decode(encode_turn(turn), Turn) == turn


def test_no_more_is_kept_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_codec, "_KEPT", 3)
    for number in range(200, 210):
        for _ in range(3):
            turn = turn_of(prose(number))
            assert decode(encode_turn(turn), Turn) == turn
    assert len(turn_codec._said.blocks) == 3
