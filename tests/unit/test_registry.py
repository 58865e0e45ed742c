"""The flow registry: the cascade, what is refused and where, re-reading, and edits that disturb nothing."""

from __future__ import annotations

import multiprocessing
import os
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from agentic_flywheel.errors import RegistryError, UnknownFlow
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.registry import PACKAGED_REGISTRY, REGISTRY_FILE, Registry, config_digest
from agentic_flywheel.flows.registry_file import parse_registry
from agentic_flywheel.likeness import Profile, SimilarMode, SimilarPolicy
from agentic_flywheel.model import FlowType, Sharing
from agentic_flywheel.settings import load_settings

EXISTING = """\
# The team's flows
operational_flows:
  creative-orientation:
    id: 7d405a51-968d-4467-9ae6-d49bf182cdf9
    name: Creative Orientation   # shown in menus
    description: Structural tension
    purpose: vision
    session_format: "chat:creative:{uuid}"
    config:
      temperature: 0.8
    intent_keywords: [creative, goal, vision]
    status: operational
    active: 1
    performance_metrics: {success_rate: 0.97}

  # kept for March
  old:
    id: 896f7eed
    active: 0

routing_flows:
  classifier:
    id: aa11
    intent_keywords:
      - classify

session_management:
  timeout: 3600
intent_classification:
  confidence_threshold: 0.5
  fallback_flow: creative-orientation
  weights: {exact: 4.0, partial_match: 1.0}
environment:
  current: production
  development: {base_url: "http://127.0.0.1:3000"}
  production:
    base_url: https://flows.example.org/
"""


def parse(text: str, path: str = "/somewhere/flow-registry.yaml"):
    return parse_registry(text.encode(), Path(path), "user")


def registry_in(folder: Path, text: str | None = None, **settings: str) -> Registry:
    """A registry whose user directory is `folder`/user, working directory `folder`/work."""
    user, work = folder / "user", folder / "work"
    user.mkdir(exist_ok=True)
    work.mkdir(exist_ok=True)
    if text is not None:
        (user / REGISTRY_FILE).write_text(text)
    return Registry(load_settings(settings, environ={"AFW_CONFIG_DIR": str(user)}, directory=work))


def test_the_existing_shape_is_read_whole():
    snapshot = parse(EXISTING)
    spec = snapshot.flows["creative-orientation"]
    assert (spec.id, spec.kind, spec.session_format) == (
        "7d405a51-968d-4467-9ae6-d49bf182cdf9",
        "flowise",
        "chat:creative:{uuid}",
    )
    assert spec.config == {"temperature": 0.8}
    assert spec.intent_keywords == ("creative", "goal", "vision")
    assert spec.base_url == "https://flows.example.org"
    assert spec.origin == "/somewhere/flow-registry.yaml:3"
    assert [s.key for s in snapshot.active()] == ["creative-orientation", "classifier"]
    assert [s.key for s in snapshot.routable()] == ["creative-orientation"]
    assert (snapshot.routing.exact, snapshot.routing.partial, snapshot.routing.similarity) == (4.0, 1.0, 1.0)
    assert (snapshot.routing.threshold, snapshot.routing.fallback) == (0.5, "creative-orientation")
    assert snapshot.notes == ()


def test_our_own_keys_are_typed():
    spec = parse(
        """
flows:
  notes:
    kind: documents
    folder: ../notes
    sharing: user
    ttl: 36h
    sliding: yes
    verbatim: false
    timeout_seconds: 2.5
    check_every_seconds: 0
    context_turns: 0
    context_tokens: 100
    acts: yes
    similar: {mode: Shadow, profile: faq, max_error: 0.02, floor: 0.93, audit_share: 0}
    options: {answer_characters: 500}
"""
    ).flows["notes"]
    assert spec.type is FlowType.DOCUMENT
    assert spec.sharing is Sharing.USER
    assert spec.ttl == timedelta(hours=36)
    assert (spec.sliding, spec.verbatim) == (True, False)
    assert (spec.timeout, spec.check_every) == (timedelta(seconds=2.5), timedelta(0))
    assert (spec.context_turns, spec.context_tokens) == (0, 100)
    assert spec.acts
    assert spec.similar == SimilarPolicy(
        mode=SimilarMode.SHADOW, profile=Profile.FAQ, max_error=0.02, floor=0.93, audit_share=0.0
    )
    assert spec.id == "../notes"
    assert os.path.normpath(str(spec.options["folder"])) == "/notes"
    assert spec.options["answer_characters"] == 500


def test_the_packaged_default_answers_from_the_documentation():
    snapshot = parse_registry(PACKAGED_REGISTRY.read_bytes(), PACKAGED_REGISTRY, "packaged")
    assert list(snapshot.flows) == ["documents"]
    assert snapshot.default is not None
    assert snapshot.default.options["folder"] == "package:documentation"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "found nothing"),
        ("- a\n", 1, "found a list"),
        ("flows: 3\n", 1, "'flows' to be a mapping"),
        ("flow:\n  a: {id: x}\n", 1, "did you mean 'flows'"),
        ("flows:\n  a:\n    id: x\n    type: technicl\n", 4, "did you mean 'technical'"),
        ("flows:\n  a:\n    id: x\n    kind: flowize\n", 4, "did you mean 'flowise'"),
        ("flows:\n  a:\n    id: x\n    active: 2\n", 4, "0, 1, true or false, found 2"),
        ("flows:\n  a:\n    id: 12\n", 3, "put it in quotes"),
        ("flows:\n  a:\n    id: x\n    intent_keywords: deploy\n", 4, "a list of words"),
        ("flows:\n  a:\n    id: x\n    config: [1]\n", 4, "a mapping"),
        ("flows:\n  a:\n    id: x\n    ttl: soon\n", 4, "a duration"),
        ("flows:\n  a:\n    id: x\n    ttl: 1d\n    ttl_seconds: 5\n", 5, "one of ttl and ttl_seconds"),
        ("flows:\n  a:\n    id: x\n    timeout_seconds: 0\n", 4, "above zero"),
        ("flows:\n  a:\n    id: x\n    context_turns: -1\n", 4, "whole number"),
        ("flows:\n  a:\n    id: x\n    similar: off\n", 4, "'similar' to be a mapping that holds mode, profile"),
        ("flows:\n  a:\n    id: x\n    similar:\n      mode: of\n", 5, "'mode' to be one of learn, fixed, shadow, off"),
        ("flows:\n  a:\n    id: x\n    similar:\n      floor: 0.9\n      profle: faq\n", 6, "did you mean 'profile'"),
        ("flows:\n  a:\n    id: x\n    similar: {max_error: 0}\n", 4, "above 0, at most 1, found 0"),
        ("flows:\n  a:\n    id: x\n    price_per_call: -1\n", 4, "'price_per_call' to be a price, 0 or more"),
        ("flows:\n  a:\n    id: x\n    price_per_1000_tokens_in: 0.2 EUR\n", 4, "to be a number"),
        ("flows:\n  a:\n    id: x\n    similar: {floor: 97}\n", 4, "'floor' to be a number from 0 to 1"),
        ("flows:\n  a:\n", 2, "found nothing"),
        ("flows:\n  a:\n    kind: python\n", 2, "'callable'"),
        ("flows:\n\ta: 1\n", 2, "a tab"),
        ("flows:\n  a: {id: x}\n  a: {id: y}\n", 3, 'duplicate key "a"'),
        ("flows:\n  a: {id: x}\noperational_flows:\n  a: {id: y}\n", 4, "stands in line 2"),
        ("flows:\n  a: {id: x}\nintent_classification:\n  fallback_flow: aa\n", 4, "did you mean 'a'"),
        ("flows:\n  a: {id: x}\nintent_classification:\n  threshold: 60\n", 4, "from 0 to 1"),
        ("a: [\n", None, "expected YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, line: int | None, words: str):
    with pytest.raises(RegistryError) as caught:
        parse(text)
    assert words in caught.value.message
    assert caught.value.details["file"] == "/somewhere/flow-registry.yaml"
    if line is not None:
        assert caught.value.details["line"] == line
        assert f"/somewhere/flow-registry.yaml:{line}:" in caught.value.message


def test_bytes_that_are_not_utf_8_are_named_with_their_line():
    with pytest.raises(RegistryError, match=r":2: expected UTF-8 text, found the byte 0xff"):
        parse_registry(b"flows:\n  a: \xff\n", Path("/r.yaml"), "user")


def test_a_flow_that_says_nothing_of_similar_questions_leaves_all_of_it_to_the_settings():
    flows = parse("flows:\n  a: {id: x}\n  b: {id: y, similar: {}}\n  c: {id: z, similar: {mode: null}}\n").flows
    assert {flow.similar for flow in flows.values()} == {SimilarPolicy()}
    assert not any(flow.acts for flow in flows.values())


def test_off_means_off_in_yaml_of_both_versions():
    for version in ("1.1", "1.2"):
        flow = parse(f"%YAML {version}\n---\nflows:\n  a:\n    id: x\n    similar: {{mode: off}}\n").flows["a"]
        assert flow.similar.mode is SimilarMode.OFF


def test_what_holds_for_similar_questions_can_be_edited_and_registered(tmp_path: Path):
    registry = registry_in(tmp_path, "flows:\n  a:\n    id: x  # the id\n")
    change = registry.edit("a", similar=SimilarPolicy(profile=Profile.FAQ, max_error=0.02), acts=True)
    assert change.after == {"similar": {"profile": "faq", "max_error": 0.02}, "acts": True}
    assert registry.current().get("a").similar == SimilarPolicy(profile=Profile.FAQ, max_error=0.02)
    assert "id: x  # the id" in change.path.read_text()
    with pytest.raises(RegistryError, match="'max_error' to be a number above 0"):
        registry.edit("a", similar={"max_error": 2})
    assert registry.register("b", str.upper, similar={"mode": "off"}).similar == SimilarPolicy(mode=SimilarMode.OFF)
    assert registry.register("c", str.upper, similar=SimilarPolicy(floor=0.9)).similar.floor == 0.9
    with pytest.raises(RegistryError, match="flow 'd': expected 'mode' to be one of learn"):
        registry.register("d", str.upper, similar={"mode": "sometimes"})


def test_a_near_miss_of_a_key_is_noted_and_an_unknown_key_is_not():
    notes = parse("flows:\n  a:\n    id: x\n    timout_seconds: 3\n    colour: red\n").notes
    assert len(notes) == 1
    assert "timeout_seconds" in notes[0]
    assert ":4:" in notes[0]


def test_cascade(tmp_path: Path):
    registry = registry_in(tmp_path)
    assert (registry.current().origin, registry.current().path) == ("packaged", PACKAGED_REGISTRY)
    (tmp_path / "user" / REGISTRY_FILE).write_text("flows:\n  u: {id: x}\n")
    assert (registry.current().origin, list(registry.current().flows)) == ("user", ["u"])
    project = tmp_path / "work" / ".agentic_flywheel"
    project.mkdir()
    (project / REGISTRY_FILE).write_text("flows:\n  p: {id: x}\n")
    assert (registry.current().origin, list(registry.current().flows)) == ("project", ["p"])
    (project / REGISTRY_FILE).unlink()
    assert registry.current().origin == "user"
    named = tmp_path / "named.yaml"
    named.write_text("flows:\n  n: {id: x}\n")
    assert registry_in(tmp_path, registry=str(named)).current().origin == "argument"
    settings = load_settings({"data_dir": str(tmp_path)}, environ={"AFW_REGISTRY": str(named)}, directory=tmp_path)
    assert Registry(settings).current().origin == "environment AFW_REGISTRY"


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path):
    with pytest.raises(RegistryError, match=r"none\.yaml"):
        registry_in(tmp_path, registry=str(tmp_path / "none.yaml")).current()


def test_a_change_is_seen_and_an_unchanged_file_gives_the_same_snapshot(tmp_path: Path):
    registry = registry_in(tmp_path, "flows:\n  a: {id: x}\n")
    path = tmp_path / "user" / REGISTRY_FILE
    os.utime(path, ns=(10**18, 10**18))
    assert registry.current().flows["a"].id == "x"
    path.write_text("flows:\n  a: {id: y}\n")  # same size, written within the same tick of the clock
    assert registry.current().flows["a"].id == "y"


def test_a_broken_change_keeps_the_last_good_reading(tmp_path: Path):
    registry = registry_in(tmp_path, "flows:\n  a: {id: x}\n")
    assert registry.current().flows["a"].id == "x"
    path = tmp_path / "user" / REGISTRY_FILE
    path.write_text("flows:\n  a: {id: 1}\n")
    assert registry.current().flows["a"].id == "x"
    assert registry.problem is not None
    assert registry.problem.details["line"] == 2
    path.write_text("flows:\n  a: {id: z}\n")
    assert registry.current().flows["a"].id == "z"
    assert registry.problem is None


def test_broken_at_first_is_raised(tmp_path: Path):
    registry = registry_in(tmp_path, "flows: 1\n")
    for _ in range(2):
        with pytest.raises(RegistryError):
            registry.current()


def test_get_finds_by_key_id_and_name_and_names_the_nearest(tmp_path: Path):
    snapshot = parse(EXISTING)
    for name in ("creative-orientation", "Creative Orientation", "7d405a51-968d-4467-9ae6-d49bf182cdf9"):
        assert snapshot.get(name).key == "creative-orientation"
    with pytest.raises(UnknownFlow) as caught:
        snapshot.get("creative-orentation")
    assert caught.value.details["nearest"] == ["creative-orientation"]
    assert any("creative-orientation" in s for s in caught.value.suggestions)
    with pytest.raises(UnknownFlow, match="inactive"):
        snapshot.get("old")
    assert snapshot.get("old", inactive=True).id == "896f7eed"


def test_adding_changes_nothing_else(tmp_path: Path):
    registry = registry_in(tmp_path, EXISTING)
    change = registry.add(
        "notes", kind="documents", folder="notes", ttl=timedelta(days=2), intent_keywords=("note", "memo")
    )
    text = (tmp_path / "user" / REGISTRY_FILE).read_text()
    assert (change.action, change.created, change.path) == ("added", False, tmp_path / "user" / REGISTRY_FILE)
    before, after = EXISTING.split("    active: 0\n")
    assert text.startswith(before + "    active: 0\n\n  notes:\n    kind: documents\n")
    assert text.endswith("      - memo\n    ttl: 172800s\n" + after)
    spec = registry.current().get("notes")
    assert (spec.ttl, spec.intent_keywords) == (timedelta(days=2), ("note", "memo"))
    with pytest.raises(RegistryError, match="already"):
        registry.add("notes", id="x")


def test_editing_changes_only_its_lines(tmp_path: Path):
    registry = registry_in(tmp_path, EXISTING)
    change = registry.edit(
        "creative-orientation", name="Vision", intent_keywords=["dream"], purpose=None, ttl="9d", config={"seed": 4}
    )
    text = (tmp_path / "user" / REGISTRY_FILE).read_text()
    assert "    name: Vision  # shown in menus\n" in text
    assert "performance_metrics: {success_rate: 0.97}" in text
    assert "\n\n  # kept for March\n  old:\n" in text
    assert "purpose" not in text
    assert change.before == {
        "name": "Creative Orientation",
        "intent_keywords": ["creative", "goal", "vision"],
        "purpose": "vision",
        "config": {"temperature": 0.8},
    }
    assert change.after == {"name": "Vision", "intent_keywords": ["dream"], "ttl": "9d", "config": {"seed": 4}}
    spec = registry.current().get("creative-orientation")
    assert (spec.name, spec.intent_keywords, spec.ttl, spec.config) == (
        "Vision",
        ("dream",),
        timedelta(days=9),
        {"seed": 4},
    )


def test_removing_keeps_the_neighbours_comments(tmp_path: Path):
    registry = registry_in(tmp_path, EXISTING)
    text = EXISTING.replace("  fallback_flow: creative-orientation\n", "")
    (tmp_path / "user" / REGISTRY_FILE).write_text(text)
    assert registry.remove("creative-orientation").before["purpose"] == "vision"
    left = (tmp_path / "user" / REGISTRY_FILE).read_text()
    assert left.startswith("# The team's flows\noperational_flows:\n")
    assert "  # kept for March\n  old:\n" in left
    registry.remove("old")
    registry.remove("classifier")
    assert dict(registry.current().flows) == {}
    registry.add("again", id="x")
    assert list(registry.current().flows) == ["again"]


def test_an_edit_that_would_break_the_file_is_refused_and_writes_nothing(tmp_path: Path):
    registry = registry_in(tmp_path, EXISTING)
    path = tmp_path / "user" / REGISTRY_FILE
    for attempt in (
        lambda: registry.remove("creative-orientation"),  # it is the fallback
        lambda: registry.edit("old", type="technicl"),
        lambda: registry.edit("old", timout_seconds=3),
        lambda: registry.add("new", kind="documents"),
    ):
        with pytest.raises(RegistryError):
            attempt()
        assert path.read_text() == EXISTING
    with pytest.raises(UnknownFlow, match="did you mean 'old'"):
        registry.edit("odl", name="x")


@pytest.mark.parametrize(
    "text",
    [
        "flows: {a: {id: x}, b: {id: y}}\n",
        "flows:\n  b: &b {id: y, config: {t: 1}}\n  a:\n    <<: *b\n    id: x\n",
        "flows:\n    a:\n        id: x\n    b:\n        id: 'y'\n# end",
        "flows:\n  a:\n    id: x\n    description: |\n      # no comment\n\n      text\n  b:\n    id: y\n",
        "flows:\n  a:\n    intent_keywords:\n    - one\n    - two\n    id: x\n  b:\n    id: y\n",
        '\ufeffflows:\n  "a": {id: x}\n  b:\n    id: y\r\n',
    ],
    ids=["flow-style", "merge", "deep-indent", "block-text", "list-at-key-depth", "bom-crlf"],
)
def test_edits_hold_in_every_style_of_yaml(tmp_path: Path, text: str):
    registry = registry_in(tmp_path, text)
    registry.edit("a", description="yes: # {no}", intent_keywords=["é", "1"])
    assert registry.current().get("a").description == "yes: # {no}"
    registry.add("weird: key #1", id="x", base_url="http://h")
    assert registry.current().get("weird: key #1").base_url == "http://h"
    registry.edit("a", description=None)
    registry.remove("weird: key #1")
    snapshot = registry.current()
    assert sorted(snapshot.flows) == ["a", "b"]
    assert (snapshot.flows["a"].id, snapshot.flows["b"].id) == ("x", "y")
    assert (snapshot.flows["a"].description, snapshot.flows["a"].intent_keywords) == ("", ("é", "1"))


def test_the_packaged_default_is_copied_before_it_is_edited(tmp_path: Path):
    registry = registry_in(tmp_path)
    packaged = PACKAGED_REGISTRY.read_bytes()
    change = registry.add("x", id="1a", base_url="http://h")
    assert (change.created, change.path) == (True, tmp_path / "user" / REGISTRY_FILE)
    assert PACKAGED_REGISTRY.read_bytes() == packaged
    assert sorted(registry.current().flows) == ["documents", "x"]
    assert "# A Flowise chatflow." in change.path.read_text()


def test_the_copy_goes_to_the_project_where_there_is_one(tmp_path: Path):
    (tmp_path / "work" / ".agentic_flywheel").mkdir(parents=True)
    registry = registry_in(tmp_path)
    assert registry.remove("documents").path == tmp_path / "work" / ".agentic_flywheel" / REGISTRY_FILE
    assert dict(registry.current().flows) == {}


def test_a_linked_registry_stays_a_link_and_keeps_its_rights(tmp_path: Path):
    real = tmp_path / "real.yaml"
    real.write_text("flows:\n  a: {id: x}\n")
    real.chmod(0o640)
    registry = registry_in(tmp_path)
    (tmp_path / "user" / REGISTRY_FILE).symlink_to(real)
    registry.edit("a", name="A")
    assert (tmp_path / "user" / REGISTRY_FILE).is_symlink()
    assert "name: A" in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640


def _add_many(folder: str, mark: str, count: int) -> None:
    registry = registry_in(Path(folder))
    for number in range(count):
        registry.add(f"{mark}{number}", id="x")


def test_two_processes_lose_none_of_each_others_edits(tmp_path: Path):
    registry = registry_in(tmp_path, "flows:\n  a: {id: x}\n")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add_many, args=(str(tmp_path), mark, 8)) for mark in "bc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert len(registry.current().flows) == 17


def test_flows_of_this_process_stand_beside_the_file(tmp_path: Path):
    registry = registry_in(tmp_path, "flows:\n  a: {id: x}\n")
    spec = registry.register("echo", lambda question: question, type="creative", intent_keywords=["echo"])
    assert (spec.kind, spec.type, registry.current().get("echo")) == ("python", FlowType.CREATIVE, spec)
    registry.register("a", str.upper)
    assert registry.current().get("a").kind == "python"
    assert any("'a'" in note for note in registry.current().notes)
    with pytest.raises(RegistryError, match="registered from Python"):
        registry.edit("echo", name="E")
    with pytest.raises(RegistryError, match="callable"):
        registry.register("b", "no callable")  # type: ignore[arg-type]
    with pytest.raises(RegistryError, match="no such field"):
        registry.register("b", str.upper, colour="red")
    registry.unregister("a")
    assert registry.current().get("a").kind == "flowise"


def test_config_digest_changes_with_what_decides_an_answer_and_with_nothing_else():
    spec = FlowSpec(key="a", id="x", kind="flowise", base_url="http://h", config={"b": 1, "a": 2}, options={"o": 1})
    same = [
        {"name": "N"},
        {"description": "D"},
        {"ttl": timedelta(1)},
        {"intent_keywords": ("k",)},
        {"key": "b"},
        {"base_url": "http://h/"},
        {"config": {"a": 2, "b": 1}},
        {"api_key_env": "K"},
        {"origin": "f:1"},
        {"acts": True},
        {"similar": SimilarPolicy(mode=SimilarMode.OFF, profile=Profile.FAQ, floor=0.9)},
    ]
    other = [{"id": "y"}, {"kind": "openai"}, {"base_url": "http://i"}, {"config": {"a": 2, "b": 2}}, {"options": {}}]
    assert {config_digest(msgspec.structs.replace(spec, **change)) for change in same} == {config_digest(spec)}
    assert len({config_digest(msgspec.structs.replace(spec, **change)) for change in [*other, {}]}) == len(other) + 1


def test_a_projects_documents_have_one_digest_wherever_it_is_checked_out():
    text = "flows:\n  d: {kind: documents, folder: docs}\n"
    here, there = parse(text, "/here/r.yaml").flows["d"], parse(text, "/there/r.yaml").flows["d"]
    assert here.options["folder"] == "/here/docs"
    assert config_digest(here) == config_digest(there)


def test_prices_are_read_and_change_nothing_of_what_a_flow_answers_with(tmp_path: Path):
    registry = registry_in(tmp_path, "flows:\n  a: {id: x}\n")
    before = config_digest(registry.current().flows["a"])
    registry.edit("a", price_per_call=0.02, price_per_1000_tokens_in=0.5, price_per_1000_tokens_out=0)
    spec = registry.current().flows["a"]
    assert (spec.price_per_call, spec.price_per_1000_tokens_in, spec.price_per_1000_tokens_out) == (0.02, 0.5, 0.0)
    assert config_digest(spec) == before
