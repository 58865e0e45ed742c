"""A question put to a flow from a page: it goes on with a session, or begins one, and leads there."""

from __future__ import annotations

from agentic_flywheel.callers import Scope
from agentic_flywheel.interfaces.http.console.forms import Form
from agentic_flywheel.interfaces.http.console.pages import Action, Screen, Went
from agentic_flywheel.interfaces.http.console.visit import Visit
from agentic_flywheel.interfaces.http.sight import admit_session
from agentic_flywheel.model import Directives


async def ask(visit: Visit, form: Form) -> Went:
    """Ask, and show the session that the answer is in."""
    session = form.text("session")
    if session:
        await admit_session(visit.call, session)
    directives = Directives(
        no_cache=form.ticked("no_cache"), standalone=form.ticked("standalone"), private=form.ticked("private")
    )
    answer = await visit.flywheel.ask(
        form.required("question"),
        session=session or None,
        flow=form.text("flow") or None,
        user=visit.user,
        directives=directives,
    )
    await visit.flywheel.flush()  # a question without a session is written behind, and is to be seen now
    return Went(visit.link("/session", id=answer.session_id) + f"#turn-{answer.turn_id}")


SCREENS: tuple[Screen, ...] = ()
ACTIONS = (Action("/ask", ask, needs=Scope.ASK),)
