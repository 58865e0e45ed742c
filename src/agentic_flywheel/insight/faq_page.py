"""The FAQ as text: one entry as a page to edit, and all of it as a document to publish.

Invariant: a page that is read back unchanged is the entry that it was made of, whatever stands in the answer: its
heading is the last one that is looked for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from agentic_flywheel.curated import FaqEntry, FaqView, wordings_of
from agentic_flywheel.errors import InputError

FORMAT = "agentic-flywheel faq"
VERSION = 1

_HEADINGS = ("Question", "Also asked as", "Answer")
_PAGE = re.compile(
    r"\A\s*(?:<!--.*?-->\s*)?^# Question[ \t]*\n(?P<question>.*?)^# Also asked as[ \t]*\n(?P<others>.*?)"
    r"^# Answer[ \t]*\n(?P<answer>.*)\Z",
    re.DOTALL | re.MULTILINE,
)
_ITEM = re.compile(r"^[ \t]*[-*][ \t]+", re.MULTILINE)


class Page(NamedTuple):
    """What a person may edit of an entry."""

    question: str
    wordings: tuple[str, ...]
    answer: str


def page_of(entry: Page, note: str = "") -> str:
    """An entry as a page in Markdown; `note` is for whoever edits it, and is not read back."""
    told = f"<!-- {note.replace('-->', '')} -->\n" if note else ""
    others = "".join(f"- {wording}\n" for wording in entry.wordings)
    question, also, answer = (f"# {heading}\n" for heading in _HEADINGS)
    return f"{told}{question}\n{entry.question}\n\n{also}\n{others}\n{answer}\n{entry.answer}\n"


def read_page(text: str) -> Page:
    """The page again. Raises `InputError` where a heading is missing.

    >>> read_page(page_of(Page("Why?", ("How come?",), "# Because\\n\\nIt is so.")))
    Page(question='Why?', wordings=('How come?',), answer='# Because\\n\\nIt is so.')
    """
    found = _PAGE.match(text.replace("\r\n", "\n"))
    if found is None:
        named = ", ".join(f"'# {heading}'" for heading in _HEADINGS)
        raise InputError(
            f"this is no page of the FAQ: the headings {named} have to stand in it, in this order",
            suggestions=("Leave the headings as they are, and write below them.",),
        )
    question = " ".join(found["question"].split())
    items = (" ".join(item.split()) for item in _ITEM.split(found["others"]))
    return Page(question, wordings_of(question, list(items)), found["answer"].strip())


def as_markdown(views: Sequence[FaqView], names: Mapping[str, str]) -> str:
    """The FAQ as a document, flow by flow; `names` are the flows'."""
    lines = ["# Frequently asked questions", ""]
    for flow in dict.fromkeys(view.entry.flow for view in views):
        lines += [f"## {names.get(flow, flow)}", ""]
        for view in views:
            if view.entry.flow == flow:
                lines += _section(view)
    return "\n".join(lines).rstrip() + "\n"


def _section(view: FaqView) -> list[str]:
    said = view.entry.published
    if said is None:
        return []
    lines = [f"### {said.question}", ""]
    if said.wordings:
        lines += [f"Also asked as: {' · '.join(said.wordings)}", ""]
    # Headings of the answer go below that of its question, so that the document keeps its shape.
    lines += [re.sub(r"^(#{1,3})(?= )", r"###\1", said.answer.strip(), flags=re.MULTILINE), ""]
    for source in said.sources:
        lines.append(f"- {source.title}" + (f" ({source.uri})" if source.uri and source.uri != source.title else ""))
    lines += [""] * bool(said.sources)
    owner = f", owner {said.owner}" if said.owner else ""
    review = f", to be reviewed by {day(said.review_at)}" if said.review_at else ""
    state = "" if view.state.value == "published" else f" **{view.state.value}**: {view.why}."
    approved = f"approved {day(said.at)}" + (f" by {said.by}" if said.by else "")
    return [*lines, f"*{approved}{owner}{review} ({view.id}).*{state}", ""]


def as_json(views: Iterable[FaqView], tenant: str) -> str:
    """The FAQ for programs: what is served of each entry, and how it stands. Times are epoch seconds."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "tenant": tenant,
        "at": time.time(),
        "entries": [_facts(view) for view in views if view.entry.published is not None],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _facts(view: FaqView) -> dict[str, Any]:
    said = view.entry.published
    assert said is not None
    return {
        "id": view.id,
        "flow": view.entry.flow,
        "question": said.question,
        "wordings": said.wordings,
        "answer": said.answer,
        "sources": [
            {"title": one.title, "uri": one.uri, "excerpt": one.excerpt, "score": one.score} for one in said.sources
        ],
        "owner": said.owner,
        "approved_by": said.by,
        "approved_at": said.at,
        "review_at": said.review_at or None,
        "fingerprint": said.fingerprint,
        "state": view.state.value,
    }


def page_of_entry(entry: FaqEntry) -> Page:
    """What may be edited of an entry."""
    return Page(entry.question, entry.wordings, entry.answer)


def day(at: float) -> str:
    """A moment as its day (UTC): `2027-01-31`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
