"""What is kept about a person, as documents: JSON for programs, Markdown to read, or both in one file."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from agentic_flywheel.errors import InputError
from agentic_flywheel.model import Thread
from agentic_flywheel.own_data import OwnData
from agentic_flywheel.transcripts import code, inline, moment, named, quoted, transcript_of

FORMS = ("json", "markdown", "zip")


class OwnDataReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was written: what it holds how much of, and its digest."""

    file: str
    user: str
    tenant: str
    at: float
    holds: dict[str, int]
    size_bytes: int
    sha256: str
    warnings: tuple[str, ...] = ()


def document_of(data: OwnData, form: str) -> bytes:
    """The document. Raises `InputError` for a form that there is not."""
    match form:
        case "json":
            return msgspec.json.format(msgspec.json.encode(named(data), enc_hook=_plain), indent=2) + b"\n"
        case "markdown":
            return ("\n".join(_markdown(data)) + "\n").encode("utf-8", "replace")
        case "zip":
            whole = io.BytesIO()
            with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as packed:
                packed.writestr("own-data.md", document_of(data, "markdown"))
                packed.writestr("own-data.json", document_of(data, "json"))
            return whole.getvalue()
    raise InputError(f"a person's data is written as {', '.join(FORMS)}, not {form!r}")


def write(data: OwnData, target: Path) -> OwnDataReceipt:
    """Write both documents to a file (.zip) that only its owner may read. Raises `InputError`."""
    packed = document_of(data, "zip")
    part = target.with_name(f"{target.name}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(packed)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror}") from error
    return OwnDataReceipt(
        file=str(target),
        user=data.user,
        tenant=data.tenant,
        at=data.at,
        holds=data.sizes,
        size_bytes=len(packed),
        sha256=sha256(packed).hexdigest(),
        warnings=data.warnings,
    )


def _markdown(data: OwnData) -> Iterator[str]:
    yield f"# What is kept about {inline(data.user)}"
    yield ""
    yield f"Of the tenant {code(data.tenant)}, as of {moment(data.at)}, by Agentic Flywheel {data.release}."
    yield ""
    yield "| What | How much |"
    yield "| --- | ---: |"
    for name, size in data.sizes.items():
        yield f"| {name.replace('_', ' ')} | {size} |"
    for warning in data.warnings:
        yield ""
        yield f"**{inline(warning)}**"
    yield from _headed("Conversations", _sessions(data))
    yield from _headed("Stored answers", _answers(data))
    yield from _headed(
        "Popular questions",
        (f"- {one.day}, {inline(one.flow)}: {inline(one.question)}" for one in data.popular),
        "These questions count among the team's, without a name.",
    )
    yield from _headed(
        "Counted by day",
        (f"- {one.day}: {', '.join(f'{name} {value}' for name, value in one.counts.items())}" for one in data.counts),
    )
    yield from _headed("FAQ", _faq(data))
    yield from _headed("Reports", _reports(data))
    yield from _headed(
        "API keys",
        (
            f"- {inline(key.name)} ({code(key.id)}), made {moment(key.created_at)}, may {', '.join(sorted(key.scopes))}"
            for key in data.api_keys
        ),
    )
    yield from _headed("Policies", (f"- {', '.join(one.words())}" for one in data.policies))
    yield from _headed(
        "Audit log",
        (
            f"- {one.number}. {moment(one.at)}: {inline(one.by)} {code(one.action)} {inline(one.target)}"
            + (f" ({inline(one.why)})" if one.why else "")
            for one in data.audit
        ),
    )
    yield from _headed("Traces", (f"- {code(one.id)}" + (f" <{one.link}>" if one.link else "") for one in data.traces))
    yield from _headed("Waiting for Redis on this machine", _waiting(data))
    yield from _headed("What is not here, and why", (f"- {code(one.what)}: {inline(one.why)}" for one in data.absent))


def _headed(title: str, lines: Iterator[str], about: str = "") -> Iterator[str]:
    yield ""
    yield f"## {title}"
    yield ""
    first = next(lines, None)
    if first is None:
        yield "None."
        return
    if about:
        yield from (about, "")
    yield first
    yield from lines


def _sessions(data: OwnData) -> Iterator[str]:
    for one in data.sessions:
        thread = Thread(session=one.session, turns=one.turns)
        for line in transcript_of(thread, "markdown", private=True, now=data.at).splitlines():
            yield f"##{line}" if line.startswith("#") else line  # ours alone begin so: words of people are quoted
        if one.others:
            yield ""
            yield f"{one.others} turn(s) of other people are left out."
        for said in one.judgements:
            yield ""
            by = f" by {inline(said.by)}" if said.by else ""
            yield f"Judged{by} on {moment(said.at)}: {inline(said.name)} {said.value:g}"
            if said.why:
                yield ""
                yield from quoted(said.why)
        yield ""


def _answers(data: OwnData) -> Iterator[str]:
    for one in data.answers:
        yield f"### {inline(one.entry.asked or one.entry.question)}"
        yield ""
        shared = {"team": "shared with the team", "user": "for you alone"}.get(one.scope, "for one conversation alone")
        yield f"{inline(one.entry.flow)}, stored {moment(one.entry.created_at)}, until {moment(one.ends_at)}, {shared}."
        yield ""
        yield from quoted(one.entry.answer)
        yield ""


def _faq(data: OwnData) -> Iterator[str]:
    for one in data.faq:
        yield f"### {inline(one.entry.question)}"
        yield ""
        yield from quoted(one.entry.answer)
        for change in one.changes:
            yield ""
            yield f"- {moment(change.at)}: {inline(change.what)}"
        yield ""


def _reports(data: OwnData) -> Iterator[str]:
    for one in data.reports:
        yield f"- {moment(one.at)}, {one.kind.value}, by {inline(one.by) or 'somebody'}: {inline(one.question)}"
        if one.note:
            yield f"  {inline(one.note)}"


def _waiting(data: OwnData) -> Iterator[str]:
    for turn in data.waiting:
        yield from quoted(turn.question)
        yield ""
        yield from quoted(turn.answer)
        yield ""


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset | set) else str(value)
