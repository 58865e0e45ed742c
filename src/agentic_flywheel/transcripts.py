"""A session as a document to keep or to pass on: Markdown for people, JSON for programs.

Invariant: what people and flows said cannot change the document around it. In Markdown every line of it stands in a
block quote, which ends whatever was begun in it (CommonMark 0.31, 5.1); code stands in fences of our own that are
longer than any mark in it; outside of these there is no HTML, no definition of a reference and no fence that is not
ours, and no link leads anywhere but to the web, to mail or to a place in a document. JSON has every field as Python
does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from agentic_flywheel.amounts import counted
from agentic_flywheel.errors import InputError
from agentic_flywheel.model import Source, Thread, Turn
from agentic_flywheel.threads import ChangeKind, ThreadChange

FORMS = ("markdown", "json")
#: What the JSON form calls itself; fields are only ever added.
FORMAT = "agentic-flywheel thread"
VERSION = 1

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$^-])")
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_ESCAPED = r"\\\1"
_FENCE = re.compile(r"(?P<indent> {0,3})(?P<mark>`{3,}|~{3,})(?P<word>[^`\n]*)")
_LONG_MARKS = re.compile(r"(?:`{3,}|~{3,})")
_SPAN = re.compile(r"(?<![`\\])(`{1,2})(?!`)(.+?)(?<!`)\1(?!`)")
#: The beginning of a link to anything but the web, mail and places in documents; or whose address is on the next line.
_LINK = re.compile(r"(?<=\])(?=\(\s*(?:$|(?!https?:|mailto:)[a-z][a-z0-9+.-]*:))", re.IGNORECASE)
_ADDRESS = re.compile(r"https?://[^\s<>()\[\]\"'`\\|]+")


def transcript_of(thread: Thread, form: str, *, private: bool, now: float) -> str:
    """The document; without `private`, private turns are left out. Raises `InputError` for a form that there is not."""
    if form not in FORMS:
        raise InputError(f"a session is exported as {' or '.join(FORMS)}, not {form!r}")
    turns = tuple(turn for turn in thread.turns if private or not turn.private)
    left_out = len(thread.turns) - len(turns)
    thread = msgspec.structs.replace(thread, turns=turns)
    return _json(thread, left_out, now) if form == "json" else "\n".join(_markdown(thread, left_out, now)) + "\n"


def _json(thread: Thread, left_out: int, now: float) -> str:
    document = {"format": FORMAT, "version": VERSION, "exported_at": now, "left_out": left_out, **named(thread)}
    return msgspec.json.format(msgspec.json.encode(document, enc_hook=str), indent=2).decode() + "\n"


def named(value: Any) -> Any:
    """Structs as objects by field name, however they are stored."""
    if isinstance(value, msgspec.Struct):
        return {name: named(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, tuple | list):
        return [named(one) for one in value]
    if isinstance(value, dict):
        return {str(name): named(one) for name, one in value.items()}
    return value


def _markdown(thread: Thread, left_out: int, now: float) -> Iterator[str]:
    session = thread.session
    yield f"# {inline(session.title) or 'Untitled conversation'}"
    yield ""
    yield f"- Session: {code(session.id)}"
    if session.owner:
        yield f"- Of: {inline(session.owner)}"
    yield f"- Begun: {moment(session.created_at)}; last active: {moment(session.last_active_at)}"
    first = max(1, session.turns - len(thread.turns) - left_out + 1)
    yield f"- Turns: {session.turns}" + (f", from {first} on" if first > 1 else "")
    if left_out:
        yield f"- Left out: {counted(left_out, 'private turns')}"
    if session.tags:
        yield f"- Tags: {', '.join(code(tag) for tag in session.tags)}"
    for link in thread.links:
        yield f"- Linked with: {inline(link.title) or 'untitled'} ({code(link.session_id)})"
    yield f"- Exported: {moment(now)} by Agentic Flywheel"
    numbers = _numbers(thread, first, left_out)
    for turn in thread.turns:
        changes = [change for change in thread.changes if change.turn_id == turn.id]
        yield from _turn(turn, numbers, changes)


def _numbers(thread: Thread, first: int, left_out: int) -> dict[str, int]:
    """The places of turns in their session; where some are left out only those that were found, in order."""
    return {turn.id: number for number, turn in enumerate(thread.turns, 1 if left_out else first)}


def _turn(turn: Turn, numbers: dict[str, int], changes: Sequence[ThreadChange]) -> Iterator[str]:
    for change in changes:
        yield ""
        yield f"*{_change(change)}*"
    yield ""
    yield f"## {numbers[turn.id]}. {inline(' '.join(turn.question.split())[:80])}"
    yield ""
    yield from quoted(turn.question)
    yield ""
    who = f"{inline(turn.user)} asked" if turn.user else "Asked"
    yield f"{who} on {moment(turn.at)}. **{turn.flow and inline(turn.flow)}** ({turn.outcome.value}) answered:"
    yield ""
    yield from quoted(turn.answer)
    if turn.sources:
        yield ""
        yield "Sources:"
        yield ""
        yield from (f"{number}. {_source(source)}" for number, source in enumerate(turn.sources, 1))
    yield ""
    yield f"<sub>{'; '.join(_provenance(turn, numbers))}</sub>"


def _change(change: ThreadChange) -> str:
    if change.kind is ChangeKind.FLOW:
        return f"From here on {inline(change.new)} answers, before it was {inline(change.old)}."
    return f"The configuration of {inline(change.flow)} changed ({code(change.old[:8])} to {code(change.new[:8])})."


def _provenance(turn: Turn, numbers: dict[str, int]) -> Iterator[str]:
    yield f"{turn.outcome.value}, {turn.reason.value.replace('_', ' ')}"
    if turn.similarity is not None:
        yield f"{int(turn.similarity * 100)} % like: {inline(' '.join(turn.matched_question.split())[:80])}"
    if turn.context:
        known = [str(numbers[earlier]) for earlier in turn.context if earlier in numbers]
        others = len(turn.context) - len(known)
        told = [*known, f"{others} further back"] if known and others else known or [f"{others} further back"]
        yield f"with turns {', '.join(told)}"
    if turn.private:
        yield "private"
    if turn.fingerprint:
        yield f"configuration {code(turn.fingerprint[:8])}"
    yield f"turn {code(turn.id)}"
    yield f"trace {code(turn.trace_id)}" if turn.trace_id else "no trace"
    if turn.origin_trace_id and turn.origin_trace_id != turn.trace_id:
        yield f"computed in trace {code(turn.origin_trace_id)}"


def _source(source: Source) -> str:
    title = inline(" ".join((source.title or source.uri).split())) or "untitled"
    if _ADDRESS.fullmatch(source.uri):
        place = f"[{title}](<{source.uri}>)"
    else:
        place = f"{title} ({code(source.uri)})" if source.uri and source.uri != source.title else title
    excerpt = " ".join(source.excerpt.split())
    if len(excerpt) > 200:
        excerpt = excerpt[:199].rstrip() + "…"
    return place + (f": {inline(excerpt)}" if excerpt else "")


def quoted(text: str) -> Iterator[str]:
    """A text as a block quote that holds whatever is in it."""
    yield from (f"> {line}".rstrip() for line in _contained(_CONTROL.sub("", text).splitlines() or [""]))


def _contained(lines: Sequence[str]) -> Iterator[str]:
    """Lines of Markdown with code in fences of our own, and nothing in them that could reach beyond."""
    longest = max((len(mark[0]) for line in lines for mark in _LONG_MARKS.finditer(line)), default=2)
    own = "`" * (longest + 1)
    opened = ""
    for line in lines:
        fence = _FENCE.fullmatch(line)
        if opened:
            if fence and fence["mark"].startswith(opened) and not fence["word"].strip():
                yield own
                opened = ""
            else:
                yield line
        elif fence:
            opened = fence["mark"]
            yield own + re.sub(r"[^\w+#.-]", "", fence["word"].strip().split(" ")[0])
        else:
            yield _harmless(line)
    if opened:
        yield own


def _harmless(line: str) -> str:
    """A line outside of code: no HTML, no fence, no definition of a reference (which needs a colon after a bracket)."""
    line = _LONG_MARKS.sub(lambda marks: "\\" + "\\".join(marks[0]), line)
    parts, at = [], 0
    for span in _SPAN.finditer(line):
        parts.append(_plain(line[at : span.start()]))
        odd = any(mark in span[2] for mark in ("<", "&", "]:"))
        parts.append(f"<code>{_PUNCTUATION.sub(_ESCAPED, span[2])}</code>" if odd else span[0])
        at = span.end()
    return "".join([*parts, _plain(line[at:])])


def _plain(text: str) -> str:
    return _LINK.sub(r"\\", text).replace("]:", "]\\:").replace("&", "&amp;").replace("<", "&lt;")


def inline(text: str) -> str:
    """A short text in a line of ours: nothing in it is markup."""
    return _SPECIAL.sub(_ESCAPED, _CONTROL.sub("", " ".join(text.split())))


def code(text: str) -> str:
    """An id in a line of ours, as it is."""
    plain = _CONTROL.sub("", " ".join(text.split()))
    longest = max((len(marks) for marks in re.findall(r"`+", plain)), default=0)
    marks = "`" * (longest + 1)
    return f"{marks} {plain} {marks}" if longest else f"{marks}{plain}{marks}"


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
