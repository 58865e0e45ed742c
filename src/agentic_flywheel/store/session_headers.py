"""What is known of a session without its turns: how it is read, and what it will be once turns are appended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.model import Session, Turn
from agentic_flywheel.store.codec import DAMAGED, place, stored
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Command
from agentic_flywheel.titles import Titled, title_of, titled

_FIELDS = (
    "id", "owner", "title", "tags", "flow", "turns", "created_at", "last_active_at", "config", "title_from", "links"
)  # fmt: skip

#: Fields that hold what people wrote.
PRIVATE = frozenset({"title", "tags", "config"})


def header_command(keys: Keys, session: str) -> Command:
    """What to send to read a session's header; see `header_of`."""
    return ("HMGET", keys.session(session), *_FIELDS)


def header_of(reply: Sequence[bytes | None]) -> Session | None:
    """The reply to `header_command`, None where there is no such session. Raises `StoreDamaged`."""
    named = zip(_FIELDS, reply, strict=True)
    # A title that cannot be opened costs nobody the session.
    raw: Mapping[str, bytes] = {name: value for name, value in named if value is not None and value != DAMAGED}
    if "created_at" not in raw:
        return None
    try:
        return Session(
            id=raw.get("id", b"").decode(),
            owner=raw.get("owner", b"").decode(),
            title=raw.get("title", b"").decode(),
            tags=tuple(msgspec.json.decode(raw["tags"], type=list[str])) if "tags" in raw else (),
            flow=raw.get("flow", b"").decode(),
            turns=int(raw.get("turns", b"0")),
            created_at=float(raw["created_at"]),
            last_active_at=float(raw.get("last_active_at", raw["created_at"])),
            config=msgspec.json.decode(raw["config"], type=dict[str, Any]) if "config" in raw else {},
            title_from=raw.get("title_from", b"").decode(),
            links=tuple(msgspec.json.decode(raw["links"], type=list[str])) if "links" in raw else (),
        )
    except (ValueError, msgspec.DecodeError) as error:
        raise StoreDamaged(f"what is known of a session is not what was written: {error}") from error


def title_word(title: Titled, key: str) -> str | bytes:
    """A title as scripts are given it: `=` before one that says something, `~` before a weak one; "" for none. `key` is
    the session's."""
    if not title.text:
        return ""
    return stored(f"{'~' if title.weak else '='}{title.text}".encode(), place(key, "title"), lead=1)


def private_word(key: str, name: str, value: str | bytes) -> str | bytes:
    """What a field of a session's header is given; what people wrote is marked for sealing."""
    if name not in PRIVATE or not value:
        return value
    return stored(value.encode() if isinstance(value, str) else value, place(key, name))


def of_one_owner(owner: str, turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Those of some turns that can be appended to a session of `owner`, "" where it has none yet: the first who is
    named is it then. Two users can begin sessions of one id before either sees the other's."""
    own: list[Turn] = []
    for turn in turns:
        owner = owner or turn.user
        if turn.user in ("", owner):
            own.append(turn)
    return tuple(own)


def session_with(session: Session | None, turns: Sequence[Turn]) -> Session:
    """The header of a session (None: not begun) once these turns, of which there is at least one, are appended."""
    first, last = turns[0], turns[-1]
    owner = next((turn.user for turn in turns if turn.user), "")
    begun = session or Session(id=first.session_id, owner=owner, created_at=first.at)
    title, title_from = begun.title, begun.title_from
    if not title or (title_from and title_of(title).weak):
        given = titled(turns)
        if given.text and not (title and given.weak):
            title, title_from = given.text, given.turn
    return msgspec.structs.replace(
        begun,
        owner=begun.owner or owner,
        title=title,
        title_from=title_from,
        flow=last.flow,
        turns=begun.turns + len(turns),
        last_active_at=last.at,
    )
