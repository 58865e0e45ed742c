"""Conversations by last activity: all of the team's, or those of whoever the caller speaks for."""

from __future__ import annotations

import msgspec

from agentic_flywheel.callers import Scope
from agentic_flywheel.interfaces.http.console.pages import Action, Page, Screen
from agentic_flywheel.interfaces.http.console.visit import Visit
from agentic_flywheel.model import Session


class SessionsView(msgspec.Struct, frozen=True, kw_only=True):
    """A page of sessions; `user` and `tag` are what the list was narrowed to."""

    sessions: tuple[Session, ...] = ()
    user: str = ""
    tag: str = ""
    cursor: str = ""
    warnings: tuple[str, ...] = ()


async def show(visit: Visit) -> Page:
    """Sessions, newest first. Whoever may only ask sees those of their own user, and none without one."""
    user = visit.user or visit.text("user")
    if visit.user is None and not visit.may(Scope.READ):
        return Page("sessions.html", SessionsView())
    tag = visit.text("tag")
    page = await visit.flywheel.sessions.list(
        user=user or None, tag=tag or None, limit=visit.whole("limit", 25, most=100), cursor=visit.text("cursor")
    )
    view = SessionsView(sessions=page.sessions, user=user, tag=tag, cursor=page.cursor, warnings=page.warnings)
    return Page("sessions.html", view)


SCREENS = (Screen("/sessions", show, needs=Scope.ASK, name="sessions", place=20),)
ACTIONS: tuple[Action, ...] = ()
