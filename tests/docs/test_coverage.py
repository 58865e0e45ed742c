"""Whatever a user can set, see or meet stands in the documentation, and nothing there is made up."""

from __future__ import annotations

import inspect
import re

import agentic_flywheel
from agentic_flywheel.flows.registry_file import FIELDS, KINDS
from agentic_flywheel.model import Directives, Outcome, Reason
from agentic_flywheel.settings import _OTHER_VARIABLES
from agentic_flywheel.settings_table import SETTINGS
from agentic_flywheel.store.address import _OPTIONS
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.rights import COMMANDS, MODULES, MORE
from pages import ROOT, first_column, read


def test_every_setting_stands_in_the_table_with_its_variable_and_default() -> None:
    rows = {
        cells[1].strip(" `"): cells
        for line in read("docs/configuration.md").splitlines()
        if len(cells := line.split("|")) == 6 and "`AFW_" in line
    }
    assert list(rows) == [setting.name for setting in SETTINGS]
    for setting in SETTINGS:
        _, _, variable, default, meaning, _ = (cell.strip() for cell in rows[setting.name])
        assert variable == f"`{setting.variable}`"
        expected = "empty" if setting.default == "" else str(setting.default)
        assert default.split(" (")[0].strip("`").casefold() == expected.casefold(), setting.name
        assert meaning


def test_every_variable_that_is_read_is_named() -> None:
    page = read("docs/configuration.md")
    for variable in (*_OTHER_VARIABLES, "COAIAPY_ENV_PATH"):
        assert f"`{variable}`" in page


def test_every_option_of_an_address_is_named() -> None:
    section = read("docs/configuration.md").split("\n## Use your own Redis\n", 1)[1].split("\n## ", 1)[0]
    named = set(re.findall(r"`([a-z_]+)`", section.split("Behind `?`", 1)[1]))
    assert named == set(_OPTIONS)


def test_every_variable_of_coaiapy_is_named() -> None:
    source = (ROOT / "src/agentic_flywheel/store/address.py").read_text("utf-8")
    variables = set(re.findall(r'"((?:UPSTASH|KV|REDIS)_[A-Z_]+)"', source))
    assert len(variables) >= 10
    assert {name for name in variables if f"`{name}`" not in read("docs/configuration.md")} == set()


def test_the_key_table_has_every_key_and_no_other() -> None:
    keys = Keys("T")
    made = {
        "entry": [
            keys.entry("team", "F", "H"),
            keys.entry("user", "F", "H", user="U"),
            keys.entry("session", "F", "H", session="S"),
        ],
        "flow": [keys.flow("F")],
        "changes": [keys.changes("F")],
        "entries": [keys.entries("F", 0)],
        "session": [keys.session("S")],
        "turns": [keys.turns("S")],
        "anew": [keys.anew(keys.turns("S")), keys.anew(keys.reports), keys.anew(keys.audit)],
        "judgements": [keys.judgements("S")],
        "turn_ids": [keys.turn_ids("S")],
        "sessions": [keys.sessions(0)],
        "user_sessions": [keys.user_sessions("U")],
        "feed": [keys.feed("S")],
        "feeds": keys.feeds(),
        "similar": [keys.similar("F")],
        "evidence": [keys.evidence("F", "E")],
        "cut_changes": [keys.cut_changes("F", "E")],
        "blocked": [keys.blocked("F")],
        "faq": [keys.faq("F")],
        "faq_changes": [keys.faq_changes("F", "I")],
        "faq_vectors": [keys.faq_vectors("F", "E")],
        "vector": [re.sub("{.*}", "{H}", keys.vector("E", "P", ""))],
        "vector_log": [keys.vector_log("E", "P")],
        "history": [keys.history(), keys.history("flows"), keys.history("lease")],
        "history_sessions": [keys.history_sessions(0)],
        "history_turns": [keys.history_turns("S")],
        "history_doc": [re.sub(r"\d+$", "D", keys.history_doc("S", "turn"))],
        "history_lacking": [keys.history_lacking("E")],
        "lease": list(keys.lease("H:V")),
        "refresh": [keys.refresh("H:V")],
        "calls": list(keys.calls("F")),
        "api_key": list(keys.api_key("K")),
        "rate": [keys.rate("W")],
        "mark": [keys.mark("M")],
        "repeat": [keys.repeat("D")],
        "warm_job": list(keys.warm_job("J")),
        "popular": [keys.popular("F", "YYYYMMDD")],
        "paths": [keys.paths("F", "YYYYMMDD")],
        "joined": [keys.joined("F")],
        "hidden": [keys.hidden("F")],
        "delivered": [keys.delivered("F")],
        "count": [keys.count("F", "YYYYMMDD"), keys.count("F", "YYYYMMDDHH")],
        "minutes": [keys.minutes("F", "YYYYMMDDHH")],
        "askers": [keys.askers("YYYYMMDD", 0)],
    }
    methods = {name for name, _ in inspect.getmembers(Keys, inspect.isfunction) if not name.startswith(("_", "is_"))}
    methods -= {"shared_prefixes", "vector_prefix", "history_prefix", "session_keys"}
    assert methods == set(made), "a kind of key was added or removed: this test and the table need it too"
    attributes = {name for name in vars(keys) if name != "root" and not name.startswith("_")}
    expected = {re.sub(r"(?<=:)\d+$", "N", key) for kind in made.values() for key in kind}
    expected |= {getattr(keys, name) for name in attributes}
    assert set(first_column("docs/how-it-works.md", "Redis keys")) == expected


def test_every_outcome_and_reason_is_explained_and_no_other() -> None:
    named = first_column("docs/how-it-works.md", "Outcomes: where an answer came from")
    assert sorted(named) == sorted([*Outcome, *Reason])


def test_every_directive_is_explained_and_no_other() -> None:
    named = first_column("docs/how-it-works.md", "What a question may demand of the cache")
    assert sorted(named) == sorted(field.replace("_", "-") for field in Directives.__struct_fields__)


def test_every_registry_field_is_explained_and_no_other() -> None:
    assert sorted(first_column("docs/configuration.md", "Flow registry: every field")) == sorted(FIELDS)


def test_every_flow_kind_has_a_section() -> None:
    page = read("docs/configuration.md")
    assert [kind for kind in KINDS if f"\n## Flow kind {kind}\n" not in page] == []
    assert sorted(first_column("docs/how-it-works.md", "When a flow changes")) == sorted(KINDS)


def test_every_public_name_is_listed_and_no_other() -> None:
    assert sorted(first_column("docs/python.md", "Public names")) == sorted(agentic_flywheel.__all__)


def test_the_changelog_has_this_version() -> None:
    assert f"\n## [{agentic_flywheel.__version__}]" in read("CHANGELOG.md")


def test_the_least_rights_are_those_of_the_code() -> None:
    section = read("docs/configuration.md").split("\n## Redis: least rights\n", 1)[1].split("\n## ", 1)[0]
    block = section.split("```")[1]
    assert re.findall(r"\+(\S+)", block) == list(COMMANDS)
    named = set(re.findall(r"\+([a-z|._]+)", section.replace("\\|", "|")))
    assert {command for use in (*MORE.values(), *MODULES.values()) for command in use} <= named
