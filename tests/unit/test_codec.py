"""Stored values: what was written comes back bit for bit, and nothing else comes back at all."""

from __future__ import annotations

import os

import msgspec
import pytest
import xxhash
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.model import Entry, Outcome, Reason, Source, Turn
from agentic_flywheel.store.codec import COMPRESS_FROM, LARGEST_BODY, VERSION, decode, encode

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
bodies = st.one_of(texts, st.integers(0, 4000).map(lambda n: "antwort " * (n // 8)), texts.map(lambda t: t * 40))
numbers = st.floats(allow_nan=False, allow_infinity=False)
turns = st.builds(
    Turn,
    id=texts,
    session_id=texts,
    at=numbers,
    question=bodies,
    answer=bodies,
    flow=texts,
    fingerprint=texts,
    outcome=st.sampled_from(Outcome),
    reason=st.sampled_from(Reason),
    trace_id=texts,
    flow_ms=st.one_of(st.none(), numbers),
    context=st.lists(texts, max_size=3).map(tuple),
    private=st.booleans(),
    sources=st.lists(st.builds(Source, texts, texts, texts, st.one_of(st.none(), numbers)), max_size=3).map(tuple),
)


def stored(answer: str) -> Entry:
    return Entry(
        question="q",
        identity="",
        answer=answer,
        flow="f",
        flow_id="f",
        flow_name="F",
        fingerprint="p",
        generation=1,
        created_at=1.5,
        ttl_seconds=60.0,
        trace_id="t",
        turn_id="t",
        config={"temperature": 0.5, "deep": {"list": [1, None, "é"]}},
    )


def framed(body: bytes, *, version: int = VERSION, compression: int = 0) -> bytes:
    """A value with a correct checksum, whatever is in it."""
    head = bytes((version, compression))
    return head + xxhash.xxh3_64_digest(head + body) + body


@given(turns)
def test_turns_come_back(turn: Turn) -> None:
    assert decode(encode(turn), Turn) == turn


@pytest.mark.parametrize("size", [0, 1, COMPRESS_FROM - 1, COMPRESS_FROM, 40_000, 1_000_000])
def test_entries_come_back(size: int) -> None:
    entry = stored("ab" * (size // 2))
    raw = encode(entry)
    assert decode(raw, Entry) == entry
    assert raw[1] == (1 if len(msgspec.msgpack.encode(entry)) >= COMPRESS_FROM else 0)


def test_what_does_not_compress_is_kept_as_it_is() -> None:
    entry = stored(os.urandom(2000).hex())
    assert len(encode(entry)) < len(msgspec.msgpack.encode(entry)) + 10 + 1
    assert decode(encode(entry), Entry) == entry


@pytest.mark.parametrize("answer", ["short", "a long answer " * 60])
def test_every_flipped_bit_is_seen(answer: str) -> None:
    raw = encode(stored(answer))
    for place in range(len(raw)):
        for bit in range(8):
            damaged = bytearray(raw)
            damaged[place] ^= 1 << bit
            with pytest.raises(StoreDamaged):
                decode(bytes(damaged), Entry)


def test_every_cut_is_seen() -> None:
    raw = encode(stored("a long answer " * 60))
    for length in range(len(raw)):
        with pytest.raises(StoreDamaged):
            decode(raw[:length], Entry)
    with pytest.raises(StoreDamaged):
        decode(raw + b"\0", Entry)


@given(st.binary(max_size=200))
def test_foreign_bytes_are_damage(raw: bytes) -> None:
    with pytest.raises(StoreDamaged):
        decode(raw, Entry)


@given(st.binary(max_size=200), st.integers(0, 1))
def test_foreign_bodies_under_a_right_checksum_are_damage(body: bytes, compression: int) -> None:
    with pytest.raises(StoreDamaged):
        decode(framed(body, compression=compression), Entry)


@pytest.mark.parametrize("version", [0, VERSION + 1, 255])
def test_another_version_is_damage(version: int) -> None:
    body = msgspec.msgpack.encode(stored("a"))
    decode(framed(body), Entry)
    with pytest.raises(StoreDamaged, match="version"):
        decode(framed(body, version=version), Entry)
    with pytest.raises(StoreDamaged, match="version"):
        decode(framed(body, compression=2), Entry)


def test_another_struct_is_damage() -> None:
    with pytest.raises(StoreDamaged, match="Turn"):
        decode(encode(stored("a")), Turn)


def test_a_frame_that_claims_more_than_any_honest_value_is_refused_unread() -> None:
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(LARGEST_BODY + 1))
    assert len(bomb) < 10_000
    with pytest.raises(StoreDamaged, match="impossible size"):
        decode(framed(bomb, compression=1), Entry)


def test_a_frame_that_does_not_say_its_size_is_refused() -> None:
    body = zstandard.ZstdCompressor(write_content_size=False).compress(msgspec.msgpack.encode(stored("a" * 999)))
    with pytest.raises(StoreDamaged):
        decode(framed(body, compression=1), Entry)


def test_a_field_that_a_later_release_appends_is_no_damage() -> None:
    raw = framed(msgspec.msgpack.encode([*msgspec.structs.astuple(stored("a")), "new field"]))
    assert decode(raw, Entry) == stored("a")
