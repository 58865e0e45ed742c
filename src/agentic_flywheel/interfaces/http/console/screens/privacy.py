"""Privacy: what is kept where and for how long, what an asker can demand, forgetting with a receipt, the audit log.

Invariant: nothing is removed that was not shown before and named by hand; that somebody had something forgotten is in
the audit log before it is. Whoever speaks for one user has that user's own forgotten and nobody else's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from agentic_flywheel.callers import AuditEntry, Scope
from agentic_flywheel.errors import InputError, NotAllowed, UnknownSession
from agentic_flywheel.interfaces.http.console.forms import Form
from agentic_flywheel.interfaces.http.console.pages import Action, Page, Screen
from agentic_flywheel.interfaces.http.console.screens.privacy_policies import ACTIONS as POLICY_ACTIONS
from agentic_flywheel.interfaces.http.console.screens.privacy_policies import PoliciesShown, policies_of
from agentic_flywheel.interfaces.http.console.visit import Visit
from agentic_flywheel.model import Receipt
from agentic_flywheel.store.warm_jobs import KEPT_MS

if TYPE_CHECKING:
    from agentic_flywheel.settings import Settings

_DAY: Final = 86400.0
#: How long figures, popular questions and keys that ended are kept (docs/how-it-works.md).
_FIGURES_DAYS: Final = 90
#: What an asker can demand of a single question, as `Directives` has it.
DIRECTIVES: Final = ("no-store", "private", "no-cache", "only-if-cached", "standalone", "max-age", "max-stale")
_KINDS: Final = ("session", "user")


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of what is kept (`what` among the words): where (`redis`, `disk`, `logs`), and from how many seconds to
    how many; both None where something else ends it, which the words say."""

    what: str
    where: str
    least_seconds: float | None = None
    most_seconds: float | None = None


class PrivacyPage(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept, what can be demanded, and what the form of forgetting is filled with."""

    kept: tuple[Kept, ...]
    policies: PoliciesShown = PoliciesShown()
    directives: tuple[str, ...] = DIRECTIVES
    kind: str = "session"
    target: str = ""
    own: str = ""
    everybody: bool = False


class ForgetPage(msgspec.Struct, frozen=True, kw_only=True):
    """What forgetting would remove, or has; `mistyped` says that what was typed is not the name."""

    kind: str
    target: str
    receipt: Receipt
    why: str = ""
    mistyped: bool = False

    @property
    def document(self) -> str:
        """The receipt to keep, whole, so that `afw audit receipt` can verify it."""
        return msgspec.json.encode(self.receipt).decode()


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """The audit log, newest first."""

    entries: tuple[AuditEntry, ...]
    cursor: str


def kept_of(settings: Settings) -> tuple[Kept, ...]:
    """All that is kept of what people ask, under these settings."""
    lifetimes = [settings.number(f"ttl.{kind}_seconds") for kind in ("technical", "creative", "document")]
    retention = settings.number("session.retention_days") * _DAY
    figures = _FIGURES_DAYS * _DAY
    return (
        Kept(what="turns", where="redis", least_seconds=retention or None, most_seconds=retention or None),
        Kept(what="answers", where="redis", least_seconds=min(lifetimes), most_seconds=max(lifetimes)),
        Kept(what="index", where="redis" if settings["search.index"] == "engine" else "disk"),
        Kept(what="figures", where="redis", least_seconds=figures, most_seconds=figures),
        Kept(what="popular", where="redis", least_seconds=figures, most_seconds=figures),
        Kept(what="faq", where="redis"),
        Kept(what="reports", where="redis"),
        Kept(what="warm_ups", where="redis", least_seconds=KEPT_MS / 1000, most_seconds=KEPT_MS / 1000),
        Kept(what="outbox", where="disk" if settings["outbox.enabled"] else ""),
        Kept(what="audit", where="redis"),
        Kept(what="logs", where="logs"),
    )


async def show(visit: Visit) -> Page:
    """The page; `session` or `user` fill in the form."""
    session, user = visit.text("session"), visit.text("user")
    everybody = visit.may(Scope.ADMIN)
    page = PrivacyPage(
        kept=kept_of(visit.flywheel.settings),
        policies=await policies_of(visit),
        kind="user" if user and not session else "session",
        target=session or user,
        own=visit.caller.user or "",
        everybody=everybody,
    )
    return Page("privacy.html", page)


async def forget(visit: Visit, form: Form) -> Page:
    """Show what would be forgotten of a session or a user, and forget it once its name was typed again."""
    kind, target, why = form.required("kind"), form.required("target"), form.text("why")
    await _admit(visit, kind, target)
    work = visit.flywheel.forgetting.session if kind == "session" else visit.flywheel.forgetting.user
    typed = form.text("typed")
    if typed != target:
        receipt = await work(target, dry_run=True)
        page = ForgetPage(kind=kind, target=target, receipt=receipt, why=why, mistyped=bool(typed))
        return Page("forget.html", page, 400 if typed else 200)
    receipt = await visit.flywheel.audit.carry_out(
        f"{kind}.forget", target, lambda only_look: work(target, dry_run=only_look), by=visit.caller.actor, why=why
    )
    return Page("forget.html", ForgetPage(kind=kind, target=target, receipt=receipt, why=why))


async def audit(visit: Visit) -> Page:
    """Who did what, when and why."""
    found, cursor = await visit.flywheel.audit.list(
        limit=visit.whole("limit", 50, most=200), cursor=visit.text("cursor")
    )
    return Page("audit.html", AuditPage(entries=tuple(found), cursor=cursor))


async def _admit(visit: Visit, kind: str, target: str) -> None:
    """Raises `InputError`, `NotAllowed` and `UnknownSession` for what is not the caller's to have forgotten."""
    if kind not in _KINDS:
        raise InputError(f"a session or a user can be forgotten, not a {kind!r}")
    if visit.may(Scope.ADMIN):
        return
    caller = visit.call.require(Scope.ASK)
    if caller.user is None:
        raise NotAllowed(f"{caller.name!r} speaks for no user and lacks the scope 'admin'", scope="admin")
    if kind == "user":
        if target != caller.user:
            raise NotAllowed(f"{caller.name!r} may have its own user forgotten, not {target!r}", key=caller.name)
    elif (await visit.flywheel.sessions.resume(target)).owner != caller.user:
        raise UnknownSession(f"no session {target!r}", session_id=target)


SCREENS = (
    Screen("/privacy", show, needs=Scope.ASK, name="privacy", place=80),
    Screen("/privacy/audit", audit, needs=Scope.ADMIN, name="privacy"),
)
ACTIONS = (Action("/privacy/forget", forget, needs=Scope.ASK), *POLICY_ACTIONS)
