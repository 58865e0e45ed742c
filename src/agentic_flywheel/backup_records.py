"""What one line of a backup holds, and how it is written.

    {"kind":"turn","value":{"id":"...","question":"...", ...},"sum":"<16 hexadecimal digits>"}

Invariant: what `read_line` returns is, field by field, what `line_of` was given; everything else raises `LineDamaged`.
`sum` is xxh3_64 of the line as it stands without `,"sum":"..."`. Fields that hold their default are left out; fields
that this release does not know are refused, since leaving them out would lose something in silence.

`KINDS` is the one list of what there is to back up: another kind of knowledge is another row of it, with what reads and
writes it in `backup.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

import msgspec
import xxhash

from agentic_flywheel.curated import FaqRecord
from agentic_flywheel.likeness import Profile, Proposal, Report, SimilarMode
from agentic_flywheel.model import Entry, FlowChange, Session, Turn
from agentic_flywheel.privacy import Rule

FORMAT = "agentic-flywheel backup"
VERSION = 1
#: What may be chosen to be in a backup. What is known of flows is in every one that has answers.
SECTIONS = ("policies", "faq", "counts", "sessions", "entries")
#: A longer line is no record: the largest value that is ever stored has 64 MiB.
LONGEST_LINE = 160 * 1024 * 1024

_SUM = b',"sum":"'
_TAIL = len(_SUM) + 16 + 2


class LineDamaged(Exception):
    """A line that is not a record as it was written; the message says what is the matter with it."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line: what the file is. `at` is when it was begun; `user` and `since` say what it is limited to."""

    format: str
    version: int
    tenant: str
    at: float
    release: str
    sections: tuple[str, ...]
    kinds: tuple[str, ...]
    user: str = ""
    since: float | None = None


class Trailer(msgspec.Struct, frozen=True, kw_only=True):
    """The last line: how many records of each kind there are, and SHA-256 of all lines before it."""

    records: dict[str, int]
    lines: int
    sha256: str
    at: float


class KnownFlow(msgspec.Struct, frozen=True, kw_only=True):
    """What the answers of a flow rest on: its configuration as it was last seen, and its changes, newest first."""

    flow: str
    fingerprint: str
    changed_at: float = 0.0
    revision: str = ""
    etag: str = ""
    changes: tuple[FlowChange, ...] = ()


class SetLifetime(msgspec.Struct, frozen=True, kw_only=True):
    """A lifetime that somebody set at run time; `of` is "type" or "flow"."""

    name: str
    of: str
    ttl_seconds: float


class SetSimilar(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody set for a flow's similar questions."""

    flow: str
    profile: Profile | None = None
    mode: SimilarMode | None = None
    max_error: float | None = None


class BlockedPair(msgspec.Struct, frozen=True, kw_only=True):
    """Two questions (the digest of the pair) that are never taken for each other."""

    flow: str
    pair: str


class StoredEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A stored answer: its key without the tenant, when it ends (epoch seconds), and itself."""

    key: str
    ends_at: float
    entry: Entry


class AskedOn(msgspec.Struct, frozen=True, kw_only=True):
    """How often a question, in one wording, was asked of a flow on one day (`yyyymmdd`, UTC), or a step was taken
    (`name` has both ends): see `store.popularity`. `marks` are those of the askers."""

    flow: str
    day: str
    name: str
    asked: int
    served: int
    saved_us: int
    first: int
    last: int
    marks: tuple[int, ...]
    text: str


class JoinedWording(msgspec.Struct, frozen=True, kw_only=True):
    """A wording (by its name) that is another wording of a question, and the day on which that was last seen."""

    flow: str
    name: str
    leads_to: str
    day: str


class Kind(NamedTuple):
    """One kind of record: which section it belongs to, and what it holds."""

    section: str
    type: type[msgspec.Struct]


KINDS: Mapping[str, Kind] = {
    "flow": Kind("entries", KnownFlow),
    "lifetime": Kind("policies", SetLifetime),
    "privacy": Kind("policies", Rule),
    "similar": Kind("policies", SetSimilar),
    "blocked": Kind("policies", BlockedPair),
    "report": Kind("policies", Report),
    "proposal": Kind("policies", Proposal),
    "faq": Kind("faq", FaqRecord),
    "joined": Kind("counts", JoinedWording),
    "asked": Kind("counts", AskedOn),
    "session": Kind("sessions", Session),
    "turn": Kind("sessions", Turn),
    "entry": Kind("entries", StoredEntry),
}
#: The lines at both ends of a file.
ENDS: Mapping[str, type[msgspec.Struct]] = {"header": Header, "trailer": Trailer}


class Record(msgspec.Struct, frozen=True):
    """One record: its kind, and a value of that kind's type."""

    kind: str
    value: Any


class UnknownKind(LineDamaged):
    """A sound record of a kind that this release does not know."""


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    value: msgspec.Raw


def line_of(kind: str, value: msgspec.Struct) -> bytes:
    """A record as a line, its line break included.

    >>> line_of("blocked", BlockedPair(flow="docs", pair="00ff"))
    b'{"kind":"blocked","value":{"flow":"docs","pair":"00ff"},"sum":"dccbc5e0100da174"}\\n'
    """
    named = msgspec.convert(value, _named(_type_of(kind)), from_attributes=True)
    body = msgspec.json.encode({"kind": kind, "value": named})
    return body[:-1] + _SUM + xxhash.xxh3_64_hexdigest(body).encode() + b'"}\n'


def read_line(line: bytes) -> Record:
    """The record again. Raises `LineDamaged`; `UnknownKind` for a sound one of a kind that is not in `KINDS`."""
    bare = line.removesuffix(b"\n")
    if bare == line:
        raise LineDamaged("it is cut off")
    body, tail = bare[:-_TAIL] + b"}", bare[-_TAIL:]
    if not tail.startswith(_SUM) or not tail.endswith(b'"}'):
        raise LineDamaged("it has no checksum")
    if xxhash.xxh3_64_hexdigest(body).encode() != tail[len(_SUM) : -2]:
        raise LineDamaged("it fails its checksum")
    try:
        found = msgspec.json.decode(body, type=_Line)
        type_ = _type_of(found.kind)
        named = msgspec.json.decode(found.value, type=_named(type_))
        return Record(found.kind, msgspec.convert(named, type_, from_attributes=True))
    except KeyError:
        raise UnknownKind(f"it holds a record of the kind {found.kind!r}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise LineDamaged(f"it is not what this release writes: {error}") from error


def _type_of(kind: str) -> type[msgspec.Struct]:
    return KINDS[kind].type if kind in KINDS else ENDS[kind]


@cache
def _named(type_: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """`type_` as objects by field name, where it is stored as an array; parts of it likewise."""
    fields: list[Any] = []
    for part in msgspec.structs.fields(type_):
        if part.default is not msgspec.NODEFAULT:
            fields.append((part.name, _named_part(part.type), part.default))
        elif part.default_factory is not msgspec.NODEFAULT:
            default = msgspec.field(default_factory=part.default_factory)
            fields.append((part.name, _named_part(part.type), default))
        else:
            fields.append((part.name, _named_part(part.type)))
    return msgspec.defstruct(
        type_.__name__, fields, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True
    )


def _named_part(type_: Any) -> Any:
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return _named(type_)
    if get_origin(type_) is tuple and len(get_args(type_)) == 2 and get_args(type_)[1] is ...:
        return tuple[_named_part(get_args(type_)[0]), ...]  # type: ignore[misc]  # a type that is made at run time
    if isinstance(type_, UnionType):
        return Union[tuple(_named_part(part) for part in get_args(type_))]  # noqa: UP007  # likewise
    return type_
