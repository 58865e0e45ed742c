"""Transcripts: whole, readable, and not to be broken by what was said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from agentic_flywheel.errors import InputError
from agentic_flywheel.model import Outcome, Reason, Session, Source, Thread, Turn
from agentic_flywheel.policy.changes import changes_of
from agentic_flywheel.threads import ChangeKind, LinkHow, SessionLink
from agentic_flywheel.transcripts import transcript_of

NOW = 1_795_000_000.0
#: What breaks out of documents: containers, fences, HTML, references, breaks of line.
NASTY = [
    "```", "~~~", "````", "``", "`", "\n", "\n\n", "\r", "\u2028", "> ", "# x", "<script>", "</sub>", "<!--",
    "-->", "<![CDATA[", "<?", "[a]: http://e", "[a]:\nhttp://e", "[", "]: e", "- ", "1. ", "    ", "\t", "&lt;",
    "&#60;b>", "\\", "| a |", "---", "===", "a", " ", "* ", "[x](javascript:1)", "[x](\njavascript:1)", "![",
    "](", ")", "<b", ">", "[^1]:", "é",
]  # fmt: skip


def turn(number: int, question: str = "Why?", answer: str = "So.", **fields: Any) -> Turn:
    whole: dict[str, Any] = {
        "id": f"t{number}", "session_id": "s", "at": NOW + number, "question": question, "answer": answer, "flow": "f",
        "fingerprint": "p1", "outcome": Outcome.MISS, "reason": Reason.NOT_STORED, "trace_id": f"x{number}",
    }  # fmt: skip
    return Turn(**{**whole, **fields})


def thread(*turns: Turn, links: tuple[SessionLink, ...] = (), **fields: Any) -> Thread:
    session = Session(id="s", title="A title", turns=len(turns), created_at=NOW, last_active_at=NOW + 60)
    for name, value in fields.items():
        session = Session(**{**{n: getattr(session, n) for n in session.__struct_fields__}, name: value})
    return Thread(session=session, turns=turns, changes=changes_of(turns), links=links)


def markdown(*turns: Turn, private: bool = True, **fields: Any) -> str:
    return transcript_of(thread(*turns, **fields), "markdown", private=private, now=NOW)


def parsed(text: str) -> tuple[list[Token], dict[str, Any]]:
    """As a CommonMark reader sees it, HTML included."""
    env: dict[str, Any] = {}
    reader = MarkdownIt("commonmark", {"html": True})
    reader.validateLink = lambda _: True  # type: ignore[method-assign]
    return reader.parse(text, env), env


def inline(tokens: list[Token]) -> list[Token]:
    return [child for token in tokens for child in token.children or ()]


def quotes(tokens: list[Token]) -> list[list[Token]]:
    """What stands in each block quote of the document itself."""
    found: list[list[Token]] = []
    inside = False
    for token in tokens:
        if token.level == 0 and token.type.startswith("blockquote_"):
            inside = token.type == "blockquote_open"
            if inside:
                found.append([])
        elif inside:
            found[-1].append(token)
    return found


def test_a_thread_reads_as_a_document() -> None:
    source = Source("The manual", "https://example.org/manual?a=1", "Set appendonly yes.", 0.9)
    text = markdown(
        turn(0, "How do I turn it on?", "Like this:\n\n```conf\nappendonly yes\n```", user="ann", sources=(source,)),
        turn(
            1, "And off?", "`appendonly no`", outcome=Outcome.SIMILAR, reason=Reason.SIMILAR, similarity=0.979,
            matched_question="How is it turned off?", context=("t0", "old"), origin_trace_id="x9", fingerprint="p2",
        ),
        owner="ann",
        tags=("ops",),
        links=(SessionLink(session_id="other", how=LinkHow.SET, title="More *of* it"),),
    )  # fmt: skip
    assert text == (
        "# A title\n"
        "\n"
        "- Session: `s`\n"
        "- Of: ann\n"
        "- Begun: 2026-11-18 11:06 UTC; last active: 2026-11-18 11:07 UTC\n"
        "- Turns: 2\n"
        "- Tags: `ops`\n"
        "- Linked with: More \\*of\\* it (`other`)\n"
        "- Exported: 2026-11-18 11:06 UTC by Agentic Flywheel\n"
        "\n"
        "## 1. How do I turn it on?\n"
        "\n"
        "> How do I turn it on?\n"
        "\n"
        "ann asked on 2026-11-18 11:06 UTC. **f** (miss) answered:\n"
        "\n"
        "> Like this:\n"
        ">\n"
        "> ````conf\n"
        "> appendonly yes\n"
        "> ````\n"
        "\n"
        "Sources:\n"
        "\n"
        "1. [The manual](<https://example.org/manual?a=1>): Set appendonly yes.\n"
        "\n"
        "<sub>miss, not stored; configuration `p1`; turn `t0`; trace `x0`</sub>\n"
        "\n"
        "*The configuration of f changed (`p1` to `p2`).*\n"
        "\n"
        "## 2. And off?\n"
        "\n"
        "> And off?\n"
        "\n"
        "Asked on 2026-11-18 11:06 UTC. **f** (similar) answered:\n"
        "\n"
        "> `appendonly no`\n"
        "\n"
        "<sub>similar, similar; 97 % like: How is it turned off?; with turns 1, 1 further back; configuration `p2`; "
        "turn `t1`; trace `x1`; computed in trace `x9`</sub>\n"
    )


nasty = st.lists(st.sampled_from(NASTY), max_size=25).map("".join)


@given(nasty, nasty, nasty, nasty)
def test_nothing_that_was_said_gets_out_of_its_place(question: str, answer: str, title: str, uri: str) -> None:
    source = Source(title, uri, answer)
    turns = (turn(0, question, answer, user=title, flow=title or "f", sources=(source,)), turn(1, answer, question))
    text = markdown(*turns, title=title, owner=title, tags=(uri,))
    tokens, env = parsed(text)
    assert len(quotes(tokens)) == 4
    headings = [token.tag for token in tokens if token.type == "heading_open" and token.level == 0]
    assert headings == ["h1", "h2", "h2"]
    assert not env.get("references")
    assert not [token for token in tokens if token.type == "html_block"]
    assert {token.content for token in inline(tokens) if token.type == "html_inline"} <= {
        "<sub>", "</sub>", "<code>", "</code>",
    }  # fmt: skip
    assert [token.content for token in inline(tokens) if token.content == "<sub>"] == ["<sub>"] * 2
    links = [str(token.attrs["href"]) for token in inline(tokens) if token.type == "link_open"]
    assert not [link for link in links if link.lower().startswith("javascript")]
    top = {token.type for token in tokens if token.level == 0}
    assert "fence" not in top
    assert "code_block" not in top


@given(nasty)
def test_code_is_what_it_was(code: str) -> None:
    lines = [line for line in code.splitlines() if "```" not in line and "~~~" not in line]
    answer = "Look:\n\n```py\n" + "\n".join(lines) + "\n```\n\nThat is it."
    tokens, _ = parsed(markdown(turn(0, answer=answer)))
    (fence,) = [token for token in quotes(tokens)[1] if token.type == "fence"]
    assert fence.info == "py"
    assert [line.rstrip() for line in fence.content.splitlines()] == [line.rstrip() for line in lines or [""]]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("a < b && c > d", "a < b && c > d"),
        ("write `a<b>&c` so", "write a<b>&c so"),
        ("one `two` three", "one two three"),
        ("[1]: not a reference", "[1]: not a reference"),
        ("[`x]: y`", "[x]: y"),
        ("5 * 3 * 2 & 1", "5 * 3 * 2 & 1"),
        ("use <div> and &nbsp;", "use <div> and &nbsp;"),
    ],
)
def test_words_stay_what_they_were(said: str, shown: str) -> None:
    tokens, _ = parsed(markdown(turn(0, answer=said)))
    read = [token for token in inline(quotes(tokens)[1]) if token.type in {"text", "code_inline"}]
    assert "".join(token.content for token in read) == shown


def test_private_turns_may_be_left_out() -> None:
    turns = (turn(0), turn(1, "my salary?", "80 000", private=True), turn(2, context=("t1",)))
    assert "80 000" in markdown(*turns)
    text = markdown(*turns, private=False)
    assert "80 000" not in text
    assert "salary" not in text
    assert "- Left out: 1 private turn" in text
    document = json.loads(transcript_of(thread(*turns), "json", private=False, now=NOW))
    assert (document["left_out"], [one["id"] for one in document["turns"]]) == (1, ["t0", "t2"])


def test_the_newest_turns_are_numbered_as_in_their_session() -> None:
    text = markdown(turn(7), turn(8), turns=9)
    assert "- Turns: 9, from 8 on" in text
    assert "## 8. Why?" in text
    assert "## 9. Why?" in text


def test_json_has_everything_by_name() -> None:
    source = Source("The manual", "https://example.org", "Set it.", 0.5)
    first = turn(0, sources=(source,), outcome=Outcome.HIT, reason=Reason.EXACT)
    document = json.loads(transcript_of(thread(first, turn(1, flow="g")), "json", private=True, now=NOW))
    assert (document["format"], document["version"], document["exported_at"]) == ("agentic-flywheel thread", 1, NOW)
    assert document["session"]["title"] == "A title"
    assert document["turns"][0] == {name: document["turns"][0][name] for name in first.__struct_fields__}
    assert document["turns"][0]["sources"] == [
        {"title": "The manual", "uri": "https://example.org", "excerpt": "Set it.", "score": 0.5}
    ]
    assert document["changes"] == [{"turn_id": "t1", "kind": "flow", "flow": "g", "old": "f", "new": "g"}]
    assert document["links"] == []


def test_another_form_is_refused() -> None:
    with pytest.raises(InputError, match="markdown or json"):
        transcript_of(thread(turn(0)), "pdf", private=True, now=NOW)


def test_changes_between_turns() -> None:
    def told(*turns: Turn) -> list[tuple[str, str, str, str]]:
        return [(change.turn_id, change.kind.value, change.old, change.new) for change in changes_of(turns)]

    assert told() == []
    assert told(turn(0), turn(1)) == []
    assert told(turn(0), turn(1, flow="g", fingerprint="q"), turn(2)) == [
        ("t1", "flow", "f", "g"),
        ("t2", "flow", "g", "f"),
    ]
    assert told(turn(0), turn(1, flow="g"), turn(2, fingerprint="p2")) == [
        ("t1", "flow", "f", "g"),
        ("t2", "flow", "g", "f"),
        ("t2", "configuration", "p1", "p2"),
    ]
    stale = turn(1, fingerprint="p0", outcome=Outcome.STALE)
    assert told(turn(0), stale, turn(2), turn(3, fingerprint=""), turn(4, fingerprint="p2")) == [
        ("t4", "configuration", "p1", "p2")
    ]
    assert changes_of([turn(0), turn(1, fingerprint="p2")])[0].kind is ChangeKind.CONFIGURATION
