"""What the flywheel says for people is said on French pages in French; the sentences are taken from the source."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from markupsafe import Markup

import agentic_flywheel
from agentic_flywheel.interfaces.http.console.told import forms, told
from agentic_flywheel.interfaces.http.console.words import Words

#: Where sentences for people are made: module -> functions, or "" for its constants that end like one.
MADE = {
    "steps": ("warnings_of",),
    "sessions": ("",),
    "session_list": ("",),
    "history": ("",),
    "indexing": ("",),
    "forgetting": ("",),
    "insight.links": ("",),
    "flow_removal": ("remove_flow",),
    "reporting": ("_done",),
    "matching": ("unfit",),
    "explaining": ("_told", "policy_notes"),
    "policy.privacy": ("no_history", "no_cache"),
    "policy.faq": ("stands",),
    "policy.similarity.budget": ("_fixed",),
    "policy.similarity.proposals": ("profile_draft", "ttl_draft"),
}
_SENTENCE = re.compile(r"[^ ]+ [^ ]+ .*[^ ]")
#: Put together with others, or words for programs.
_PARTS = {"approved answer of the FAQ", "serve the {} to {}", "{}closed: {} speak against every cut", "{}{}; {}"}


def sentences(module: str, name: str) -> Iterator[str]:
    """The sentences of a function, or of a module's constants; what varies is `{}`."""
    tree = ast.parse(inspect.getsource(import_module(f"agentic_flywheel.{module}")))
    if name:
        found = [
            one
            for one in ast.walk(tree)
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name == name
        ]
        nodes = [part for one in found for statement in one.body[1:] for part in ast.walk(statement)]
        assert nodes, f"{module}.{name} is gone"
    else:
        nodes = [one.value for one in tree.body if isinstance(one, ast.Assign)]
    inner = {id(part) for one in nodes if isinstance(one, ast.JoinedStr) for part in ast.walk(one) if part is not one}
    for node in nodes:
        if id(node) in inner:
            continue
        if isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if _SENTENCE.fullmatch(text) and text not in _PARTS:
            yield text


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in MADE.items() for name in names])
def test_every_sentence_for_people_is_said_in_french(module: str, name: str) -> None:
    found = list(sentences(module, name))
    assert found
    french = Words("fr")
    missing = [text for text in found if "lang=" in told(french, text.replace("{}", "7"))]
    assert missing == []


def test_what_a_receipt_is_of_is_said_in_french() -> None:
    """Whatever is removed anywhere: the actions of all receipts, as the source has them."""
    source = "\n".join(path.read_text("utf-8") for path in Path(inspect.getfile(agentic_flywheel)).parent.glob("*.py"))
    actions = set(re.findall(r"Receipt\(\s*action=\"([a-z ]+)\"", source)) | set(
        re.findall(r"_receipt\(\"([a-z ]+)\"", source)
    )
    assert {"forget session", "clear answers", "delete session", "revoke key"} <= actions
    assert [one for one in sorted(actions) if "lang=" in told(Words("fr"), one)] == []


def test_what_is_not_known_is_marked_and_nothing_is_taken_for_markup() -> None:
    shown = told(Words("fr"), "something <b>new</b> happened to `afw x <y>`")
    assert shown == Markup(
        '<span lang="en">Something &lt;b&gt;new&lt;/b&gt; happened to <code>afw x &lt;y&gt;</code></span>'
    )
    evil = told(Words("fr"), "Only words were compared: <script>alert(1)</script>.")
    assert "<script>" not in evil
    assert evil.startswith("Seuls les mots")


def test_numbers_and_sentences_within_sentences() -> None:
    french, english = Words("fr"), Words("en")
    assert told(english, "2 turn(s) of 1 session(s), 5 bytes, wait since 3 min") == (
        "2 turns of 1 session, 5 bytes, wait since 3 min"
    )
    assert told(french, "1 turn(s) of 3 session(s), 5 bytes, wait since 3 min").startswith("1 échange de 3 sessions")
    closed = "closed: 3 labels, 1 wrong at or above 0.97 do not prove that at most 1.00% of answers are wrong"
    why = f"shadow: what is similar is only noted; the cut would be 0.970 ({closed})"
    assert "étiquettes" in told(french, why)
    assert "labels" not in told(french, why)
    assert told(french, "mode learn by the settings; profile strict by a person's choice", capital=False) == (
        "mode learn selon les réglages ; profil strict selon le choix d’une personne"
    )
    assert told(english, "volatile-lru, 256 MB: no") == "volatile-lru, 256 MB: no"


def test_what_holds_somebodys_text_is_not_looked_up_for_long() -> None:
    whole = "closed: " + " at or above " * 5000
    assert "lang=" in told(Words("fr"), whole)
    tried = 0

    class Counting(str):
        def split(self, *more: object, **given: object) -> list[str]:  # once in each sentence that is looked up
            nonlocal tried
            tried += 1
            return super().split(*more, **given)  # type: ignore[arg-type]

    told(Words("fr"), Counting(whole))
    assert tried == 0


def test_forms_take_as_much_as_they_give() -> None:
    for form in forms("fr"):
        places = re.findall(r"{(\d*)}", form.said)
        assert form.pattern.groups == len(places), form.said
