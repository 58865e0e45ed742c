"""How well each kind is found: precision and recall on the corpus, as docs/privacy.md has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agentic_flywheel.personal_data import ALL_KINDS, Kind
from agentic_flywheel.policy.redaction.finding import Redactor
from redaction_corpus import Line, Score, corpus, scores, slips

PAGE = Path(__file__).parents[2] / "docs" / "privacy.md"
#: Least precision and recall. What nobody tuned on may be a little worse: a dozen of a kind make steps of 0.08.
FLOORS = {"tuned": 0.97, "aside": 0.90}
_CELL = "{there} | {precision:.2f} | {recall:.2f}"


def of_part(part: str) -> list[Line]:
    return [line for line in corpus() if line.part == part]


def test_there_are_several_hundred_lines_in_two_languages_with_as_many_near_misses() -> None:
    lines = corpus()
    assert len(lines) > 500
    assert {(line.part, line.language) for line in lines} == {
        (part, language) for part in ("tuned", "aside") for language in ("en", "fr")
    }
    assert sum(not line.found for line in lines) > 200
    assert len({line.text for line in lines}) == len(lines)


@pytest.mark.parametrize("part", FLOORS)
def test_every_kind_is_found_and_little_else(part: str) -> None:
    lines = of_part(part)
    low = {
        kind: score
        for kind, score in scores(lines).items()
        if min(score.precision, score.recall) < FLOORS[part] or not score.there
    }
    assert not low, slips(lines, Redactor(ALL_KINDS))


def table(parts: dict[str, dict[str, Score]]) -> list[str]:
    rows = [
        "| Kind | in the tuned part | precision | recall | set aside | precision | recall |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in parts["tuned"]:
        cells = (
            _CELL.format(there=score.there, precision=score.precision, recall=score.recall)
            for score in (parts["tuned"][kind], parts["aside"][kind])
        )
        rows.append(f"| `{kind}` | {' | '.join(cells)} |")
    return rows


def test_the_page_has_these_figures() -> None:
    rows = table({part: scores(of_part(part)) for part in FLOORS})
    page = PAGE.read_text(encoding="utf-8")
    written = re.search(r"<!-- corpus -->\n(.*?)\n<!-- /corpus -->", page, re.DOTALL)
    assert written is not None
    assert written.group(1).strip().splitlines() == rows, "\n".join(rows)
    assert f"{len(corpus())} lines" in page


def test_what_is_redacted_finds_nothing_more_and_holds_nothing_of_it() -> None:
    redactor = Redactor(ALL_KINDS)
    for line in corpus():
        redacted = redactor.redact(line.text)
        assert redactor.find(redacted.text) == (), redacted.text
        for one in redacted.found:
            if one.kind is not Kind.SECRET or one.end - one.start > 8:  # a short one may be a word as well
                assert line.text[one.start : one.end] not in redacted.text


def test_each_kind_is_found_alone() -> None:
    whole = Redactor(ALL_KINDS)
    for kind in Kind:
        alone = Redactor([kind])
        for line in corpus():
            for one in line.found:
                if one.kind is kind and one in whole.find(line.text):
                    assert any(found.start <= one.start and found.end >= one.end for found in alone.find(line.text)), (
                        line
                    )
