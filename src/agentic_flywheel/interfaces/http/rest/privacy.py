"""What is kept: the privacy policies of flows, users and the tenant, and what holds because of them."""

from __future__ import annotations

from typing import Annotated

from agentic_flywheel.callers import Scope
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.interfaces.http.rest.arguments import Body, FlowKey, Meta, Query, UserId, Why
from agentic_flywheel.interfaces.http.rest.operations import Operations
from agentic_flywheel.privacy import MOST_DAYS, PolicyChange, PrivacyPolicy, PrivacyShown, Whose
from agentic_flywheel.privacy_tests import PrivacyTest

privacy = Operations("privacy", "What is kept of questions and answers: policies, retention.")

WhosePolicy = Annotated[Whose, Meta(description="Whose policy: tenant, flow or user.")]
Named = Annotated[str, Meta(max_length=256, description="The flow's key or the user's id; empty for the tenant.")]


class Concerned(Query, frozen=True, kw_only=True):
    """Whose questions; everybody's where nobody is named."""

    flow: Annotated[str, Meta(min_length=1, max_length=256, description="Questions to this flow.")] | None = None
    user_id: UserId | None = None


@privacy.get("/privacy", needs=Scope.READ)
async def show_privacy(call: Call, query: Concerned) -> PrivacyShown:
    """The policies that were set, what holds because of them, how old the oldest turns are, and the last sweep.

    With flow and user_id: what holds for that user's questions to that flow.
    """
    return await call.flywheel.policies.show(flow=query.flow, user=query.user_id)


class PolicyWanted(Body, frozen=True, kw_only=True):
    """The whole policy; what is left out, it says nothing of."""

    history: Annotated[bool, Meta(description="Whether turns are kept.")] | None = None
    cache: Annotated[bool, Meta(description="Whether answers are stored and served again.")] | None = None
    retention_days: Annotated[float, Meta(gt=0, le=MOST_DAYS, description="Older turns go.")] | None = None
    redact: Annotated[
        tuple[Annotated[str, Meta(pattern="^[a-z][a-z0-9_-]{0,39}$")], ...],
        Meta(max_length=100, description="Kinds of personal data that are taken out before anything is written."),
    ] = ()
    why: Why = ""


class Whom(Query, frozen=True, kw_only=True):
    """Of which flow or user."""

    name: Named = ""


@privacy.put("/privacy/{whose}", needs=Scope.ADMIN)
async def set_privacy(call: Call, whose: WhosePolicy, query: Whom, body: PolicyWanted) -> PolicyChange:
    """Set the policy of a flow, a user or the tenant, in place of the one before; the strictest of all holds.

    It holds from the next question on, in every process. With cache false, stored answers are removed.
    """
    policy = PrivacyPolicy(
        history=body.history, cache=body.cache, retention_days=body.retention_days, redact=frozenset(body.redact)
    )
    await _record(call, "privacy.set", whose, query.name, body.why, ", ".join(policy.words()))
    return await call.flywheel.policies.set(whose, query.name, policy=policy)


class Withdrawal(Whom, frozen=True, kw_only=True):
    """Of which flow or user, and why."""

    why: Why = ""


@privacy.delete("/privacy/{whose}", needs=Scope.ADMIN)
async def clear_privacy(call: Call, whose: WhosePolicy, query: Withdrawal) -> PolicyChange:
    """Take back what was set: what the registry says, and other policies, hold on."""
    await _record(call, "privacy.clear", whose, query.name, query.why, None)
    return await call.flywheel.policies.clear(whose, query.name)


async def _record(call: Call, action: str, whose: Whose, name: str, why: str, policy: str | None) -> None:
    await call.flywheel.policies.at(whose, name)  # what is refused is not written down
    target = f"{whose} {name}".strip()
    await call.flywheel.audit.record(action, target, by=call.caller.actor, why=why, policy=policy)


class Tested(Body, frozen=True, kw_only=True):
    """A text, and whose question to which flow it would be."""

    text: Annotated[str, Meta(min_length=1, max_length=100_000, description="The text.")]
    flow: FlowKey | None = None
    user_id: UserId | None = None


@privacy.post("/privacy/test", needs=Scope.ASK, repeats="harmless")
async def test_privacy(call: Call, body: Tested) -> PrivacyTest:
    """What would be kept of a text as a question: what was found in it, what is taken out, who is given the answer.

    Nothing is asked, stored or counted.
    """
    return await call.flywheel.privacy.test(body.text, flow=body.flow, user=call.speaks_for(body.user_id))
