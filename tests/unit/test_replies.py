"""Reading what services say: any chunking gives the same events, any text is valid Unicode, nothing raises."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.errors import FlowLimited, FlowMissing, FlowRefused, FlowTimeout, FlowUnavailable
from agentic_flywheel.flows.replies import EventReader, Page, Transcript, json_or_none, kind_by_words, mended

TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=30)


def read(stream: bytes, cuts: list[int], *, bare_json: bool = False) -> list[str]:
    reader = EventReader(bare_json=bare_json)
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    return [event for piece in pieces for event in reader.feed(piece)] + list(reader.end())


@given(st.lists(TEXT, max_size=6), st.lists(st.integers(min_value=0), max_size=20))
def test_events_do_not_depend_on_how_the_bytes_arrive(texts: list[str], cuts: list[int]) -> None:
    payloads = [json.dumps({"event": "token", "data": text}, ensure_ascii=False) for text in texts]
    stream = "".join(f"message:\ndata:{payload}\n\n:heartbeat\n\n" for payload in payloads).encode()
    assert read(stream, cuts) == payloads


def test_line_separators_of_unicode_do_not_end_a_line() -> None:
    payload = '{"data":"one\u2028two\u0085three\u2029four\x0bfive data: six"}'
    assert read(f"data: {payload}\n\n".encode(), []) == [payload]


def test_only_one_blank_is_taken_off_and_data_inside_a_payload_stays() -> None:
    assert read(b"data:  data:x\r\ndata:y\r\n\r\n", []) == [" data:x\ny"]


def test_bare_json_lines_are_events() -> None:
    assert read(b'{"event":"a"}\n\n{"event":"b"}\n\ndata: {"event":"c"}\n\n', [3], bare_json=True) == [
        '{"event":"a"}',
        '{"event":"b"}',
        '{"event":"c"}',
    ]


def test_a_last_event_without_its_blank_line_is_given() -> None:
    assert read(b"data: one\n\ndata: tw", []) == ["one", "tw"]


@given(TEXT, st.lists(st.integers(min_value=0), max_size=8))
def test_a_text_cut_between_the_halves_of_a_character_comes_out_whole(text: str, cuts: list[int]) -> None:
    units = text.encode("utf-16-le")
    edges = sorted({0, len(units), *(2 * (cut % (len(units) // 2 + 1)) for cut in cuts)})
    transcript = Transcript()
    shown = [
        transcript.add(units[start:end].decode("utf-16-le", "surrogatepass"))
        for start, end in itertools.pairwise(edges)
    ]
    assert "".join(shown) == transcript.text == text


@given(st.text(st.characters(categories=["Cs", "L"]), max_size=20))
def test_mended_text_can_always_be_encoded(text: str) -> None:
    assert mended(text).encode().decode() == mended(text)


@pytest.mark.parametrize("body", [b"", b"null", b"<html>", b"[" * 100_000, b"\xff\xfe", b'{"a":'])
def test_what_is_no_json_is_none(body: bytes) -> None:
    assert json_or_none(body) is None


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Error: predictionsServices.buildChatflow - Unauthorized", FlowRefused),
        ("Error: predictionsServices.buildChatflow - 401 Incorrect API key provided", FlowRefused),
        ("Error: predictionsServices.buildChatflow - 429 Rate limit reached", FlowLimited),
        ("Chatflow 40100000-0401-4290-8000-000000000429 not found in the database!", FlowMissing),
        ("Error: predictionsServices.buildChatflow - Request timed out.", FlowTimeout),
        ("Error: predictionsServices.buildChatflow - 500 overloaded", FlowUnavailable),
        ("", FlowUnavailable),
    ],
)
def test_words_say_which_failure_it_is(said: str, kind: type[Exception]) -> None:
    assert kind_by_words(said) is kind


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"message":"no"}', "no"),
        (b'{"error":{"message":"deep"}}', "deep"),
        (b'{"detail":[{"msg":"field required"}]}', '[{"msg": "field required"}]'),
        (b'{"error":"plain"}', "plain"),
        (b"Too many requests, slow down", "Too many requests, slow down"),
        (b"<!DOCTYPE html><html><head><title>\n Sign in </title>", "a web page titled 'Sign in'"),
        (b"<html>", "a web page"),
        (b"", ""),
    ],
)
def test_a_page_is_quoted_in_words(body: bytes, words: str) -> None:
    assert Page(500, "", {}, body).words() == words


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("8", 8.0), ("0.5", 0.5), ("", None), ("soon", None), ("Mon, 01 Jan 2001 00:00:00 GMT", 0.0)],
)
def test_retry_after(header: str, seconds: Any) -> None:
    assert Page(429, "", {"retry-after": header}, b"").retry_after_seconds == seconds
