"""Who calls the service, and what they may do there.

Invariant: a caller belongs to one tenant, and to one user or to nobody in particular; whatever a caller may do is a
`Scope`. Nothing here knows how a caller proved who it is.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

import msgspec


class Scope(StrEnum):
    """What a caller may do."""

    ASK = "ask"  # ask questions, report answers, read one's own sessions
    READ = "read"  # search and read the team's history, figures, stored answers
    ADMIN = "admin"  # all of it, and change things
    METRICS = "metrics"  # read /metrics


#: How a caller proved who it is: not at all (loopback), by an API key, by a signed token.
Proof: TypeAlias = Literal["none", "key", "token"]


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls: `user` is None where the caller speaks for whomever it names, `name` says who it is in logs.

    `flows` are the only flows (their keys) that there are for it; None: all.

    >>> caller = Caller(tenant="docs", scopes=frozenset({Scope.ASK}), name="widget", proof="key")
    >>> caller.may(Scope.ASK), caller.may(Scope.ADMIN)
    (True, False)
    """

    tenant: str
    scopes: frozenset[Scope]
    name: str
    proof: Proof
    user: str | None = None
    flows: frozenset[str] | None = None

    @property
    def actor(self) -> str:
        """Who calls, as the audit log names it."""
        return self.name if self.proof == "none" else f"{self.proof}:{self.name}"

    def may(self, scope: Scope) -> bool:
        """Whether the caller may do this; an administrator may do everything."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key without its secret: whose it is, what it may do, until when. Times are epoch seconds.

    `rate_per_minute` None is the service's own (`serve.rate_per_minute`), 0 no limit. `used_at` is right to the minute.
    `flows` None: it is not limited to any.
    """

    id: str
    name: str
    tenant: str
    scopes: frozenset[Scope]
    created_at: float
    user: str | None = None
    expires_at: float | None = None
    revoked_at: float | None = None
    rate_per_minute: int | None = None
    used_at: float | None = None
    flows: frozenset[str] | None = None

    def state(self, now: float) -> Literal["active", "expired", "revoked"]:
        """Whether it opens anything at this moment."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"

    @property
    def caller(self) -> Caller:
        """Who calls with this key."""
        return Caller(
            tenant=self.tenant, scopes=self.scopes, name=self.name, proof="key", user=self.user, flows=self.flows
        )


class NewApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was just made, and its secret: nobody can see that again."""

    key: ApiKey
    secret: str


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody did: `action` (`key.create`) to `target`, at `at` (epoch seconds), `why` in their own words.

    `by` is who: `key:NAME`, `token:SUBJECT`, `cli:LOGIN`. `facts` never hold a secret or anybody's words. The log gives
    `id`, `number` (1 for the first) and `digest`, which depends on every entry before.
    """

    action: str
    target: str
    by: str
    at: float
    why: str = ""
    facts: dict[str, str] = {}
    id: str = ""
    number: int = 0
    digest: str = ""

    @property
    def head(self) -> str:
        """What to note elsewhere: it proves this entry and all before."""
        return f"{self.number}:{self.digest}"


class AuditVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the audit log is as it was written: so many `entries` in an unbroken chain, `head` at its end.

    Where it is not `intact`, `broken_at` is the number of the first entry that should be there as it was, and `fault`
    what is wrong with it.
    """

    intact: bool
    entries: int
    head: str
    broken_at: int = 0
    fault: str = ""


class ReceiptVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a receipt is what was given: `faults` are what speaks against it."""

    valid: bool
    signer: str
    audit: str
    faults: tuple[str, ...] = ()
