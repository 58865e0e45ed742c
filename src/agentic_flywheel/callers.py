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

    >>> caller = Caller(tenant="docs", scopes=frozenset({Scope.ASK}), name="widget", proof="key")
    >>> caller.may(Scope.ASK), caller.may(Scope.ADMIN)
    (True, False)
    """

    tenant: str
    scopes: frozenset[Scope]
    name: str
    proof: Proof
    user: str | None = None

    def may(self, scope: Scope) -> bool:
        """Whether the caller may do this; an administrator may do everything."""
        return scope in self.scopes or Scope.ADMIN in self.scopes
