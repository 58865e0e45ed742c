"""API keys of the service, and the audit log."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Annotated, Literal

import msgspec
from starlette.responses import Response

from agentic_flywheel.callers import ApiKey, AuditEntry, AuditVerdict, Scope
from agentic_flywheel.flows.named import keys_of
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.interfaces.http.personal import data_of
from agentic_flywheel.interfaces.http.rest.arguments import Body, FlowKey, Limit, Meta, Query, Removal, Why
from agentic_flywheel.interfaces.http.rest.operations import Items, Operations
from agentic_flywheel.model import Receipt

access = Operations("access", "Who may call the service, and who did what.")


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """An API key without its secret. `rate_per_minute` null is the service's own, 0 no limit; `flows` null: it is not
    limited to any."""

    id: str
    name: str
    tenant: str
    scopes: frozenset[Scope]
    state: Literal["active", "expired", "revoked"]
    created_at: float
    user: str | None
    expires_at: float | None
    revoked_at: float | None
    rate_per_minute: int | None
    used_at: float | None
    flows: frozenset[str] | None


class KeyFilter(Query, frozen=True, kw_only=True):
    """Which keys."""

    all_tenants: Annotated[bool, Meta(description="Those of all tenants; for the service's own administrators.")] = (
        False
    )


class KeyViews(msgspec.Struct, frozen=True, kw_only=True):
    """Keys, newest first; those that ended stay listed for 90 days."""

    items: tuple[KeyView, ...]


@access.get("/keys", needs=Scope.ADMIN)
async def list_keys(call: Call, query: KeyFilter) -> KeyViews:
    """List the API keys, newest first."""
    if query.all_tenants:
        call.require_operator()
    now = time.time()
    found = await call.flywheel.api_keys.list(all_tenants=query.all_tenants)
    return KeyViews(items=tuple(_view(key, now) for key in found))


class NewKey(Body, frozen=True, kw_only=True):
    """A key to make. `user_id` binds it to a user, `expires_seconds` ends it after so long; with `flows` (their keys)
    no other flow exists to it."""

    name: Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}$")]
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=4)]
    user_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    expires_seconds: Annotated[float, Meta(ge=1, le=315_360_000)] | None = None
    rate_per_minute: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    flows: Annotated[list[FlowKey], Meta(min_length=1, max_length=100)] | None = None
    why: Why = ""


class KeyMade(msgspec.Struct, frozen=True, kw_only=True):
    """The key, and its secret, which nobody can see again."""

    key: KeyView
    secret: str


@access.post("/keys", needs=Scope.ADMIN, status=201, repeats="refused")
async def create_key(call: Call, body: NewKey) -> KeyMade:
    """Make an API key; its secret is in this answer alone."""
    made = await call.flywheel.api_keys.create(
        body.name,
        set(body.scopes),
        by=call.caller.actor,
        user=body.user_id,
        expires=None if body.expires_seconds is None else timedelta(seconds=body.expires_seconds),
        rate_per_minute=body.rate_per_minute,
        flows=None if body.flows is None else keys_of(call.flywheel.registry.current(), body.flows),
        why=body.why,
    )
    return KeyMade(key=_view(made.key, time.time()), secret=made.secret)


KeyName = Annotated[str, Meta(min_length=1, max_length=64, description="A key's name or id.")]


@access.delete("/keys/{key_name}", needs=Scope.ADMIN)
async def revoke_key(call: Call, key_name: KeyName, query: Removal) -> Receipt:
    """End a key, at once and in every process."""
    return await call.flywheel.api_keys.revoke(key_name, by=call.caller.actor, why=query.why, dry_run=query.dry_run)


class AuditFilter(Query, frozen=True, kw_only=True):
    """How much of the log."""

    limit: Limit = 50
    cursor: Annotated[str, Meta(max_length=1000, description="next_cursor of the page before.")] = ""


class AuditItems(Items, frozen=True, kw_only=True):
    """What was administered, newest first."""

    items: tuple[AuditEntry, ...]


@access.get("/audit", needs=Scope.ADMIN)
async def list_audit(call: Call, query: AuditFilter) -> AuditItems:
    """Who administered what, when and why, newest first."""
    found, cursor = await call.flywheel.audit.list(limit=query.limit, cursor=query.cursor)
    return AuditItems(items=tuple(found), next_cursor=cursor)


class HeadNoted(Query, frozen=True, kw_only=True):
    """What was noted of the log before."""

    against: Annotated[
        str, Meta(max_length=100, pattern=r"^([0-9]{1,20}:[0-9a-f]{64})?$", description="A head that was noted.")
    ] = ""


@access.get("/audit/verdict", needs=Scope.ADMIN)
async def verify_audit(call: Call, query: HeadNoted) -> AuditVerdict:
    """Whether every entry of the audit log stands where and as it was written."""
    return await call.flywheel.audit.verify(against=query.against)


def _view(key: ApiKey, now: float) -> KeyView:
    names = [name for name in KeyView.__struct_fields__ if name != "state"]
    return KeyView(state=key.state(now), **{name: getattr(key, name) for name in names})


class OwnDataForm(Query, frozen=True, kw_only=True):
    """How it is written: for programs, to read, or both in one file."""

    form: Literal["json", "markdown", "zip"] = "json"


@access.get(
    "/users/{user_id}/data",
    needs=Scope.ASK,
    produces={
        "application/json": "All that is kept about a person,",
        "text/markdown": "to read,",
        "application/zip": "or both in one file.",
    },
)
async def own_data(
    call: Call, user_id: Annotated[str, Meta(min_length=1, max_length=256)], query: OwnDataForm
) -> Response:
    """All that is kept about a user: conversations, stored answers, counts, reports, keys, what the audit log says.

    For that user, and administrators. It also says what is not in it, and why.
    """
    return await data_of(call, user_id, query.form)
