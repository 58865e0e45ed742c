"""The component specification: whole, autonomous, and backed by tests and benchmarks that are there."""

from __future__ import annotations

import re
from functools import cache

from agentic_flywheel import behind, reporting
from agentic_flywheel.model import Entry, Outcome, Reason, Turn
from agentic_flywheel.policy import relevance
from agentic_flywheel.policy.identity import identity_of, normalise, question_hash
from agentic_flywheel.settings import load_settings
from agentic_flywheel.store import breaker, codec, flow_states, keys, leases, link, popularity, seals, sessions
from pages import DOCS, ROOT, first_column, read

PAGE = "docs/rispecs/redis_storage.spec.md"
SECTIONS = [
    "Desired Outcome Definition",
    "Structural Tension Analysis",
    "Storage Architecture",
    "Creative Advancement Scenarios",
    "Implementation Guidelines",
    "Quality Validation",
    "Integration References",
    "Evidence",
]
PARTS = ["User intent", "Current structural reality", "Natural progression", "Achieved outcome", "Supporting features"]
_ROW = re.compile(r"^\| ([SE]\d+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
_MARK = re.compile(r"\[([SE]\d+)\]")


def _specification() -> str:
    return read(PAGE).split("\n## Evidence\n", 1)[0]


def _rows() -> dict[str, list[str]]:
    """What each row of evidence names."""
    evidence = read(PAGE).split("\n## Evidence\n", 1)[1]
    found = _ROW.findall(evidence)
    rows = {id_: re.findall(r"`([^`]+)`", named) for id_, _, named in found}
    assert len(rows) == len(found) == evidence.count("\n|") - 2  # but for the head of the table
    return rows


def _section(title: str) -> str:
    return read(PAGE).split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def _subsections(text: str) -> dict[str, str]:
    return dict(part.split("\n", 1) for part in text.split("\n### ")[1:])


@cache
def _tests_of(file: str) -> frozenset[str]:
    return frozenset(re.findall(r"^(?:async )?def (\w+)", (ROOT / file).read_text("utf-8"), re.MULTILINE))


def _is_there(named: str) -> bool:
    file, _, test = named.partition("::")
    if test:
        return file.startswith("tests/") and (ROOT / file).is_file() and test in _tests_of(file)
    page, _, table = named.partition("#")
    if table:
        tables = (ROOT / page).read_text("utf-8") if page.startswith("docs/") and (ROOT / page).is_file() else ""
        return f"<!-- {table} -->" in tables and f"<!-- /{table} -->" in tables
    return named.startswith("bench/") and named.endswith(".py") and (ROOT / named).is_file()


def test_it_has_its_head_and_its_sections_in_order() -> None:
    text = read(PAGE)
    for line in (
        "- **Specification Type**: Component Specification",
        "- **Document ID**: redis-storage-v1.0",
        "- **Parent Spec**: app.spec.md",
    ):
        assert line in text.split("\n## ", 1)[0].splitlines()
    assert re.search(r"^- \*\*Framework\*\*: RISE\b", text, re.MULTILINE)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS


def test_no_source_is_named_outside_the_evidence() -> None:
    paths = re.compile(
        r"\b(?:src|tests|bench|docs|store|policy|interfaces)/|agentic_flywheel\b|\.(?:py|lua|toml|yaml)\b|::|\]\("
    )
    assert [line for line in _specification().splitlines() if paths.search(line)] == []


def test_every_test_benchmark_and_table_that_it_names_is_there() -> None:
    rows = _rows()
    assert [id_ for id_, named in rows.items() if not named] == []
    assert {id_: missing for id_, named in rows.items() if (missing := [n for n in named if not _is_there(n)])} == {}


def test_what_is_not_there_would_be_noticed() -> None:
    assert not _is_there("tests/docs/test_rispecs.py::test_that_nobody_wrote")
    assert not _is_there("tests/docs/test_nothing.py::test_it")
    assert not _is_there("bench/bench_nothing.py")
    assert not _is_there("docs/performance.md#nothing")


def test_every_mark_has_its_row_and_every_row_is_used() -> None:
    assert set(_MARK.findall(_specification())) == set(_rows())


def test_every_scenario_has_its_parts_and_its_evidence() -> None:
    scenarios = _subsections(_section("Creative Advancement Scenarios"))
    assert [title.split(":")[0] for title in scenarios] == [f"Scenario S{n}" for n in range(1, len(scenarios) + 1)]
    assert len(scenarios) >= 9
    for title, text in scenarios.items():
        assert re.findall(r"^- \*\*(.+?)\*\*:", text, re.MULTILINE) == PARTS, title
        id_, name = re.fullmatch(r"Scenario (S\d+): (.+)", title).groups()  # type: ignore[union-attr]
        assert id_ in _MARK.findall(text), title
        assert any(row_id == id_ and claim == name for row_id, claim, _ in _ROW.findall(read(PAGE))), title
        assert any(named.startswith("tests/") for named in _rows()[id_]), title


def test_every_part_with_a_figure_names_its_evidence() -> None:
    for section in SECTIONS[:-1]:
        for title, text in _subsections(_section(section)).items():
            if re.search(r"\d", _MARK.sub("", text)) and title != "Open":
                assert _MARK.search(text), title


def test_the_six_questions_are_answered() -> None:
    asked = re.findall(r"^\*([^*]+\?)\*", _specification(), re.MULTILINE)
    about = ["exact or similar", "How many past answers", "lifetimes tuned", "conflicts", "warmed", "sensitive"]
    assert [words for words in about if not any(words in question for question in asked)] == []


def test_what_is_not_built_is_said_to_be_open() -> None:
    opened = _subsections(_section("Implementation Guidelines"))["Open"]
    assert "real team" in opened


def test_the_keys_are_the_product_s() -> None:
    named = [name for name in first_column(PAGE, "Storage Architecture") if name.startswith("afw:")]
    assert len(named) >= 20
    assert [name for name in named if name not in first_column("docs/how-it-works.md", "Redis keys")] == []


def test_the_fields_and_words_are_the_product_s() -> None:
    def words(title: str) -> list[str]:
        paragraph = _specification().split(f"\n*{title}*:", 1)[1].split("\n\n", 1)[0]
        return re.findall(r"`([^`]+)`", paragraph)

    assert words("Entry") == list(Entry.__struct_fields__)
    assert words("Turn") == list(Turn.__struct_fields__)
    assert set(words("Outcomes")) == {outcome.value for outcome in Outcome}
    assert set(words("Reasons")) == {reason.value for reason in Reason}


def test_the_numbers_are_the_product_s() -> None:
    settings = load_settings(environ={}, directory=DOCS)
    day, percent = 86400, 0.01
    product = {
        "lifetime, technical flows": settings["ttl.technical_seconds"] / day,
        "lifetime, creative flows": settings["ttl.creative_seconds"] / day,
        "lifetime, document flows": settings["ttl.document_seconds"] / day,
        "jitter of a lifetime, either way": settings["ttl.jitter"] / percent,
        "share of a life after which a hit refreshes it behind the asker": settings["ttl.refresh_after"] / percent,
        "longer than its life an entry is kept, to stand in for a flow that fails": settings["ttl.stale_seconds"],
        "oldest knowledge of a remote configuration that is trusted": settings["flow.check_every_seconds"],
        "longest that an unconfirmed flow's entries are served as fresh": settings["flow.max_unverified_seconds"],
        "a lease; prolonged every second": leases.LEASE_SECONDS,
        "what a call said stays readable after its end": leases.KEPT_SECONDS,
        "one refresh for all processes in": leases.REFRESH_PAUSE_SECONDS,
        "longest wait for somebody else's call": settings["flow.join_seconds"],
        "shards of an index": keys.SHARDS,
        "compression from": codec.COMPRESS_FROM,
        "turns that go along, the newest": settings["session.turns"],
        "turns that go along, from further back": settings["session.relevant_turns"],
        "tokens for them": settings["session.context_tokens"],
        "characters of an answer among them": relevance.SIDE_CHARACTERS,
        "turns looked at further back": relevance.MOST_TURNS,
        "retention of sessions without activity": settings["session.retention_days"],
        "outbox at most": settings["outbox.max_megabytes"],
        "near cache, longest trust": settings["near.max_staleness_seconds"],
        "budget of wrong similar answers": settings["similar.max_error"] / percent,
        "similar answers that are audited": settings["similar.audit_share"] / percent,
        "FAQ: asked at least": settings["faq.least_asked"],
        "FAQ: by askers at least": settings["faq.least_askers"],
        "FAQ: review after": settings["faq.review_days"],
        "warm-up by itself: calls at most": settings["warm.max_calls"],
        "a turn without a session is written within": behind.DELAY_SECONDS,
        "changes of a flow that are kept": flow_states._CHANGES_KEPT,
        "longest that a question waits for Redis, in all": settings.number("redis.command_timeout_seconds")
        * link.QUESTION_SHARE,
        "replies that did not come until Redis is left alone": breaker.TIMEOUTS_TO_OPEN,
        "it is tried again after": breaker.FIRST_PAUSE_SECONDS,
        "and then in growing steps up to": breaker.LONGEST_PAUSE_SECONDS,
        "calls of others that one process listens to": leases.MOST_LISTENERS,
        "events of a feed that are kept, about": sessions.FEED_LENGTH,
        "counts are kept": popularity.KEPT.days,
        "the mark of an answer that was called private stays": reporting.WITHDRAWN_SECONDS / day,
        "age at which the keys of a tenant's encryption are looked at again": seals.LOOK_SECONDS,
    }
    table = _section("Implementation Guidelines").split("| Number | Value |\n|---|---|\n", 1)[1].split("\n\n", 1)[0]
    told = dict(re.findall(r"^\| (.+?) \| ([\d.]+)(?: [^|]*)? \|$", table, re.MULTILINE))
    assert {name: float(value) for name, value in told.items()} == {n: round(v, 6) for n, v in product.items()}


def test_the_examples_come_out() -> None:
    text = _specification()
    normal = normalise("  How do I enable  REDIS persistence?! ")
    identity = identity_of(config={"temperature": 0.2})
    key = keys.Keys("default").entry("team", "docs", question_hash(normal))
    for example in (normal, question_hash(normal), identity, question_hash(normal, identity), key):
        assert f"`{example}`" in text
    assert f"`{codec.packed({'a': 1}).hex()}`" in text
