"""What the console says: every message that is used is there, in every language, and none that is not used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agentic_flywheel.curated import FaqState
from agentic_flywheel.findings import SearchMode, SearchSort
from agentic_flywheel.interfaces.http.console import words
from agentic_flywheel.interfaces.http.console.screens import ALL
from agentic_flywheel.interfaces.http.console.screens.home import WINDOWS
from agentic_flywheel.interfaces.http.console.screens.privacy import DIRECTIVES, kept_of
from agentic_flywheel.interfaces.http.console.words import LANGUAGES, Words, catalogue
from agentic_flywheel.likeness import ReportKind, SimilarMode
from agentic_flywheel.model import FlowType, Outcome, Reason, Sharing
from agentic_flywheel.own_data import PARTS
from agentic_flywheel.policy.similarity.budget import Standing
from agentic_flywheel.settings import load_settings
from agentic_flywheel.warmups import NotWarmed, WarmBound, WarmOutcome

KEPT = {one.what for one in kept_of(load_settings(environ={}))}
CONSOLE = Path(words.__file__).parent.parent
#: Messages whose names are put together of a word and a value.
BUILT = {
    "outcome.": set(Outcome),
    "reason.": set(Reason),
    "nav.": {screen.name for module in ALL for screen in module.SCREENS if screen.place is not None},
    "frame.theme_": {"auto", "light", "dark"},
    "search.mode_": set(SearchMode),
    "search.compared_": set(SearchMode),
    "search.sort_": set(SearchSort),
    "search.": {"flow", "outcome", "person", "day"},
    "why.": set(Outcome),
    "why.scope_": {"team", "user", "session"},
    "report.": set(ReportKind),
    "report.does_": set(ReportKind),
    "home.since_": set(WINDOWS),
    "faq.": {"question", "wordings", "answer"},
    "faq.state_": set(FaqState),
    "faq.does_": {"join", "split"},
    "faq.did_": {"added", "edited", "approved", "retired", "reported"},
    "faq.fact_": {"owner", "review", "reason", "note", "flow", "turn"},
    "flows.state_": {"ok", "failing", "unreachable", "unused", "inactive"},
    "flows.sharing_": set(Sharing),
    "flows.sharing_about_": set(Sharing),
    "flows.type_": set(FlowType),
    "flows.mode_": set(SimilarMode),
    "flows.mode_about_": set(SimilarMode),
    "flows.standing_": set(Standing),
    "health.state_": {"ok", "warn", "fail"},
    "privacy.kept_": KEPT,
    "privacy.about_": KEPT,
    "privacy.where_": {"redis", "disk", "logs", "off"},
    "privacy.until_": {"turns", "index", "faq", "reports", "outbox", "audit", "logs"},
    "privacy.directive_": {directive.replace("-", "_") for directive in DIRECTIVES},
    "privacy.would_forget_": {"session", "user"},
    "privacy.forgotten_": {"session", "user"},
    "own_data.form_": {"zip", "json", "markdown"},
    "own_data.part_": {"turns", *PARTS},
    "proposals.setting_": {"profile", "ttl"},
    "proposals.effect_": {"profile", "ttl"},
    "proposals.state_": {"accepted", "rejected"},
    "receipt.kind_": {
        *("sessions", "turns", "entries", "shared_answers", "reports", "counted_days", "faq_drafts", "faq_entries"),
        "traces",
    },
    "said.": {"terms_same", "faq_joined", "faq_split"},
    "warming.": {"refused", "failed"},
    "warming.bound_": set(WarmBound),
    "warming.cause_": {"schedule", "change"},
    "warming.outcome_": set(WarmOutcome),
    "warming.reason_": set(NotWarmed),
    "warming.state_": {"running", "done", "left", "broken", "dry"},
}

#: Words that any screen may take, whether or not one does.
COMMON = {"frame.all", "frame.any", "frame.back", "frame.cancel", "frame.none"}


def sources() -> dict[str, str]:
    return {
        str(path.relative_to(CONSOLE)): path.read_text("utf-8")
        for path in CONSOLE.rglob("*")
        if path.suffix in {".html", ".py"} and path != CONSOLE / "__init__.py"  # its examples are of no screen
    }


def used() -> set[str]:
    """Every name that stands in a template or a screen."""
    found = {name for text in sources().values() for name in re.findall(r'"([a-z_]+\.[a-z0-9_]+)"', text)}
    found |= {f"said.{name}" for text in sources().values() for name in re.findall(r'said="([a-z_]+)"', text)}
    return found | {prefix + value for prefix, values in BUILT.items() for value in values}


def test_every_message_that_a_page_says_is_there() -> None:
    said = {
        name
        for text in sources().values()
        for name in re.findall(r'(?:\b_|words|parts\.\w+)\(\s*"([a-z_]+\.[a-z0-9_]+)"', text)
        if not name.endswith((".html", "_", "."))
    }
    assert len(said) > 50
    assert sorted(said - set(catalogue()["en"])) == []


def test_every_name_that_is_put_together_is_there() -> None:
    built = {prefix + value for prefix, values in BUILT.items() for value in values}
    assert sorted(built - set(catalogue()["en"])) == []
    prefixes = {name for text in sources().values() for name in re.findall(r'_\("([a-z_.]+)" ~', text)}
    assert sorted(prefixes - set(BUILT)) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_languages_say_the_same_messages_and_none_that_nobody_uses(language: str) -> None:
    assert set(catalogue()[language]) == set(catalogue()["en"])
    planned = {name for name in catalogue()[language] if name.startswith("nav.")} | COMMON
    assert sorted(set(catalogue()[language]) - used() - planned) == []


def test_a_message_that_is_not_whole_is_refused() -> None:
    for said in ("x", ["x"], ["x", ""], [["one", "many"], "x"], ["{a}", "{b}"], ["x", 1], [["a", "b", "c"]] * 2):
        with pytest.raises(ValueError, match="here"):
            words._checked(said, "here")


def test_counts_choose_their_form() -> None:
    assert [Words("en")("home.turns", n=n) for n in (0, 1, 2, 1200)] == ["0 turns", "1 turn", "2 turns", "1,200 turns"]
    assert [Words("fr")("home.turns", n=n) for n in (0, 1, 2)] == ["0 échange", "1 échange", "2 échanges"]
