"""The names in traces: those of Langfuse are its own, and all of ours are documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentic_flywheel.observe import names
from agentic_flywheel.observe.marks import context_of
from agentic_flywheel.observe.spans import LONGEST_ID, outward_id, span_id
from agentic_flywheel.observe.texts import masked

PAGE = (Path(__file__).parents[2] / "docs" / "traces.md").read_text("utf-8")


def values(of: type) -> list[str]:
    return [value for name, value in vars(of).items() if name.isupper() and isinstance(value, str)]


def test_names_of_langfuse_are_those_of_its_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGFUSE_TRACING_ENABLED", "false")
    from langfuse import LangfuseOtelSpanAttributes
    from langfuse._client.constants import ObservationTypeGenerationLike, ObservationTypeSpanLike

    theirs = {value for name, value in vars(LangfuseOtelSpanAttributes).items() if name.isupper()}
    assert set(values(names.Langfuse)) <= theirs
    assert {names.Attribute.SESSION, names.Attribute.USER} <= theirs
    kinds = {*ObservationTypeSpanLike.__args__, *ObservationTypeGenerationLike.__args__}
    assert set(names.Langfuse.KINDS.values()) <= kinds


def test_every_span_and_score_is_documented() -> None:
    for name in [*values(names.Span), *values(names.Score), *names.Score.REPORTED.values()]:
        assert f"`{name}`" in PAGE, name
    missing = [
        name
        for name in values(names.Attribute)
        if not name.startswith(("service.", "deployment.", "db.", "gen_ai.", "error."))
        and f"`{name}`" not in PAGE
        and not name.endswith(".text")
    ]
    assert missing == []


def test_ids_are_what_langfuse_takes() -> None:
    for raw in ("s-1", "a" * 200, "a" * 201, "Zoë", "tab\there", "名前"):
        id_ = outward_id(raw)
        assert id_.isascii()
        assert id_.isprintable()
        assert len(id_) <= LONGEST_ID
        assert (id_ == raw) == (raw in {"s-1", "a" * 200})
    assert outward_id("Zoë") != outward_id("Zoe") != outward_id("Zoé")
    steps = {span_id("turn", step) for step in values(names.Span)}
    assert len(steps) == len(values(names.Span))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", False),
        ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", True),
        ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", None),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", None),
        ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", None),
        ("", None),
    ],
)
def test_trace_contexts_are_read_as_w3c_says(written: str, read: bool | None) -> None:
    context = context_of(written)
    assert (None if context is None else context[2]) == read
    if context is not None:
        assert context[:2] == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Ask ann.o-neil+x@mail.example.co.uk.", "Ask [e-mail]."),
        ("Call +33 6 12 34 56 78 or 555-0100-22", "Call [phone] or [number]"),
        ("Card 4111 1111 1111 1111", "Card [card]"),
        ("IBAN FR76 3000 6000 0112 3456 7890 189", "IBAN [IBAN]"),
        ("password: hunter2", "password: [secret]"),
        ("mot de passe est azerty", "mot de passe est [secret]"),
        ("Key sk-proj-abcdef1234567890", "Key [secret]"),
        ("redis://me:pw@host:6379", "redis://[secret]@host:6379"),
        ("Host 10.0.0.12", "Host [IP]"),
        ("Customer 123456, request 7f3c2b1a9e8d7c6b5a4f", "Customer [number], request [key]"),
        # What looks like it and is not.
        ("Redis 7.0.15 on port 6379", "Redis 7.0.15 on port 6379"),
        ("What changed in 2026?", "What changed in 2026?"),
        ("use redis_server_configuration", "use redis_server_configuration"),
    ],
)
def test_masked_text_keeps_what_is_nobodys(text: str, shown: str) -> None:
    assert masked(text) == shown
