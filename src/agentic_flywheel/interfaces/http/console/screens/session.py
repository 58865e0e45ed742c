"""One conversation: its turns, what each rests on, what changed between them; and what people call it."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import InputError
from agentic_flywheel.interfaces.http.console.forms import Form
from agentic_flywheel.interfaces.http.console.pages import Action, Page, Screen, Went
from agentic_flywheel.interfaces.http.console.visit import Visit
from agentic_flywheel.interfaces.http.sight import admit_session
from agentic_flywheel.model import Thread
from agentic_flywheel.threads import SessionLink

_SHOWN = 50
_MEDIA = {"markdown": ("text/markdown; charset=utf-8", "md"), "json": ("application/json", "json")}


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """A session with its newest turns; `earlier` are not shown. `alike` are sessions on the same topic."""

    thread: Thread
    earlier: int = 0
    alike: tuple[SessionLink, ...] = ()


async def show(visit: Visit) -> Page:
    """A session. Raises `UnknownSession`, also for another user's."""
    session = visit.required("id")
    await admit_session(visit.call, session)
    limit = None if visit.text("turns") == "all" else _SHOWN
    thread = await visit.flywheel.sessions.show(session, limit=limit)
    linked = await visit.flywheel.links.of(session, user=visit.user) if visit.may(Scope.READ) else None
    tied = {link.session_id for link in thread.links}
    view = SessionView(
        thread=thread,
        earlier=max(0, thread.session.turns - len(thread.turns)),
        alike=() if linked is None else tuple(link for link in linked.links if link.session_id not in tied),
    )
    return Page("session.html", view)


async def export(visit: Visit) -> Response:
    """A session as a file."""
    session, form = visit.required("id"), visit.text("form", "markdown")
    if form not in _MEDIA:
        raise InputError(f"form is one of {', '.join(_MEDIA)}, not {form!r}")
    await admit_session(visit.call, session)
    text = await visit.flywheel.sessions.export(session, form=form)
    media_type, ending = _MEDIA[form]
    name = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in session)[:60].strip("-")
    headers = {"Content-Disposition": f'attachment; filename="{name or "session"}.{ending}"'}
    return Response(text, headers=headers, media_type=media_type)


async def entitle(visit: Visit, form: Form) -> Went:
    """Give a session its title, and its tags. Without a title it is called by what was asked in it."""
    session = form.required("id")
    await admit_session(visit.call, session)
    known = await visit.flywheel.sessions.resume(session)
    if form.text("title") != known.title:
        await visit.flywheel.sessions.rename(session, form.text("title") or None)
    wanted = list(dict.fromkeys(form.text("tags").replace(",", " ").split()))
    gone = [tag for tag in known.tags if tag not in wanted]
    if gone or tuple(wanted) != known.tags:
        await visit.flywheel.sessions.tag(session, add=wanted, remove=gone)
    return Went(visit.link("/session", id=session), said="kept")


SCREENS = (
    Screen("/session", show, needs=Scope.ASK, name="session"),
    Screen("/session/export", export, needs=Scope.ASK, name="export", twin=""),
)
ACTIONS = (Action("/session/title", entitle, needs=Scope.ASK),)
