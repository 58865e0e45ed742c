"""The policies on the page on privacy: what holds and whose policies say so, and the form that sets them.

Invariant: whoever speaks for one user is shown what holds for that user; all policies are an administrator's to see and
to set, and a change stands in the audit log before it is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import InputError, StoreError
from agentic_flywheel.interfaces.http.console.doing import written_down
from agentic_flywheel.interfaces.http.console.pages import Action, Went
from agentic_flywheel.privacy import MOST_DAYS, InForce, PrivacyPolicy, SetPolicy, SweepNote, Whose

if TYPE_CHECKING:
    from agentic_flywheel.interfaces.http.console.forms import Form
    from agentic_flywheel.interfaces.http.console.visit import Visit

#: What is said of something that is on or off; "" says nothing.
_SAID: Final = {"": None, "on": True, "off": False}


class PoliciesShown(msgspec.Struct, frozen=True, kw_only=True):
    """What holds, because of what, and the last sweep; `problem` says why nothing is known."""

    in_force: tuple[InForce, ...] = ()
    policies: tuple[SetPolicy, ...] = ()
    flows: tuple[str, ...] = ()
    last_sweep: SweepNote | None = None
    idle_days: float = 0.0
    problem: str = ""


async def policies_of(visit: Visit) -> PoliciesShown:
    """What whoever looks may see of it."""
    everybody = visit.may(Scope.ADMIN)
    try:
        own = visit.caller.user or ""
        shown = await visit.flywheel.policies.show(user=None if everybody else own or None)
    except StoreError as error:
        return PoliciesShown(problem=error.message)
    in_force = shown.in_force if everybody or own else shown.in_force[:1]
    return PoliciesShown(
        in_force=in_force,
        policies=shown.policies if everybody else (),
        flows=tuple(spec.key for spec in visit.flywheel.flows.list(inactive=True)) if everybody else (),
        last_sweep=shown.last_sweep,
        idle_days=shown.idle_days,
    )


async def set_policy(visit: Visit, form: Form) -> Went:
    """Set the policy of a flow, a user or the tenant, or take it back."""
    whose = form.required("whose")
    if whose not in tuple(Whose):
        raise InputError(f"a policy is of the tenant, a flow or a user, not of a {whose!r}")
    of = Whose(whose)
    name = "" if of is Whose.TENANT else form.required("name")
    policies, target = visit.flywheel.policies, f"{of} {name}".strip()
    await policies.at(of, name)  # what is refused is not written down
    why = form.text("why")
    if form.ticked("clear"):
        await written_down(visit, "privacy.clear", target, why=why)
        await policies.clear(of, name)
        return Went("/privacy#policies", said="policy_cleared")
    policy = PrivacyPolicy(
        history=_said(form, "history"),
        cache=_said(form, "cache"),
        retention_days=_days(form.text("retention_days")),
        redact=frozenset(form.text("redact").replace(",", " ").casefold().split()),
    )
    await written_down(visit, "privacy.set", target, why=why, policy=", ".join(policy.words()))
    await policies.set(of, name, policy=policy)
    return Went("/privacy#policies", said="policy_set")


def _said(form: Form, name: str) -> bool | None:
    said = form.text(name)
    if said not in _SAID:
        raise InputError(f"{name} is on or off, not {said!r}")
    return _SAID[said]


def _days(text: str) -> float | None:
    if not text:
        return None
    try:
        return float(text.replace(",", "."))
    except ValueError:
        raise InputError(f"{text!r} is not a number of days; from 0 to {MOST_DAYS}") from None


ACTIONS = (Action("/privacy/policy", set_policy, needs=Scope.ADMIN),)
