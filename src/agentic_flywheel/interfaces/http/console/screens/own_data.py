"""What is kept about one person, for that person to see and to take along.

Invariant: somebody sees their own, an administrator anybody's, and each look stands in the audit log.
"""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import InputError
from agentic_flywheel.interfaces.http.console.pages import Action, Page, Screen
from agentic_flywheel.interfaces.http.console.visit import Visit
from agentic_flywheel.interfaces.http.personal import data_of, read_own
from agentic_flywheel.own_data import Absence, OwnSession

_FORMS = ("zip", "json", "markdown")
#: Turns that the page shows; the files have all.
_SHOWN = 20


class OwnDataPage(msgspec.Struct, frozen=True, kw_only=True):
    """How much is kept of what, the newest conversations, and what is kept elsewhere or not at all."""

    user: str
    at: float
    sizes: dict[str, int]
    sessions: tuple[OwnSession, ...]
    absent: tuple[Absence, ...]
    warnings: tuple[str, ...] = ()
    forms: tuple[str, ...] = _FORMS


async def show(visit: Visit) -> Page:
    """What is kept. Raises `InputError`, `NotAllowed`."""
    data = await read_own(visit.call, _user(visit))
    newest = sorted(data.sessions, key=lambda one: -one.session.last_active_at)[:_SHOWN]
    page = OwnDataPage(
        user=data.user,
        at=data.at,
        sizes=data.sizes,
        sessions=tuple(newest),
        absent=data.absent,
        warnings=data.warnings,
    )
    return Page("own_data.html", page)


async def download(visit: Visit) -> Response:
    """All of it as a file. Raises `InputError`, `NotAllowed`."""
    form = visit.text("form", "zip")
    if form not in _FORMS:
        raise InputError(f"form is one of {', '.join(_FORMS)}, not {form!r}")
    return await data_of(visit.call, _user(visit), form)


def _user(visit: Visit) -> str:
    user = visit.text("user") or visit.caller.user
    if not user:
        raise InputError(f"{visit.caller.name!r} speaks for no user: name one with `user`")
    return user


SCREENS = (
    Screen("/privacy/data", show, needs=Scope.ASK, name="privacy"),
    Screen("/privacy/data/file", download, needs=Scope.ASK, name="privacy", twin=""),
)
ACTIONS: tuple[Action, ...] = ()
