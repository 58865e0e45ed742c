"""One request as its handler sees it: who calls, for which tenant, and the flywheel to answer with.

Invariant: a handler never reads a credential. What a caller may do is asked here (`require`, `speaks_for`), and the
flywheel that a call gets is that of the caller's own tenant, open until the response has been sent.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any, cast

from agentic_flywheel.callers import Caller, Scope
from agentic_flywheel.errors import CredentialsMissing, InputError, NotAllowed

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.interfaces.http.again import Again
    from agentic_flywheel.interfaces.http.service import Service

_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Call:
    """One request; `call_of(request)` gives it.

    `known` is who calls, None where nothing says so and this address is not open. `request_id` is the caller's own
    where that is usable (`X-Request-ID`), `traceparent` its W3C trace context or "". `route` is the path's pattern,
    once it is known: what logs and metrics may name. `seal` is a digest of the credential by which the caller is known,
    b"" where none was needed: it binds to whoever calls what is handed out to them. `upstream_authorization` is an
    `Authorization` header that is none of ours: a proxy passes it on, and nothing keeps it. `body_limit` (bytes) may be
    raised before the body is read, and `headers` be added to: every response of the call has them. `again` is how the
    same request could be answered once more, where a handler says so of one that it answered from memory.
    """

    __slots__ = (
        "_flywheel",
        "again",
        "body_limit",
        "headers",
        "known",
        "request_id",
        "route",
        "seal",
        "service",
        "traceparent",
        "upstream_authorization",
    )

    def __init__(self, service: Service, *, request_id: str = "", traceparent: str = "") -> None:
        self.service = service
        self.known: Caller | None = None
        self.request_id = request_id if _SAFE_ID.fullmatch(request_id) else secrets.token_hex(8)
        self.traceparent = traceparent if _TRACEPARENT.fullmatch(traceparent) else ""
        self.route = ""
        self.seal = b""
        self.body_limit = service.body_limit
        self.upstream_authorization = ""
        self.headers: list[tuple[bytes, bytes]] = []
        self.again: Again | None = None
        self._flywheel: Flywheel | None = None

    @property
    def caller(self) -> Caller:
        """Who calls. Raises `CredentialsMissing` where nothing says so."""
        if self.known is None:
            raise CredentialsMissing("this address is only answered to who says who they are")
        return self.known

    def require(self, scope: Scope) -> Caller:
        """The caller, who may do this. Raises `CredentialsMissing` and `NotAllowed`."""
        caller = self.caller
        if not caller.may(scope):
            raise NotAllowed(f"{caller.name!r} lacks the scope {scope.value!r}", scope=scope.value, key=caller.name)
        return caller

    def require_operator(self) -> Caller:
        """The caller, who administers what all tenants of the service share: the registry, the embedder.

        That is an administrator of the tenant that the service itself was started for. Raises `NotAllowed`.
        """
        caller = self.require(Scope.ADMIN)
        home = self.service.settings.text("tenant")
        if caller.tenant != home:
            raise NotAllowed(f"this is shared by all tenants; only administrators of {home!r} may", key=caller.name)
        return caller

    def speaks_for(self, user: str | None) -> str | None:
        """The user in whose name the call is made: the caller's own, or the one that the request names.

        Raises `NotAllowed` where the request names another than the caller is, unless that is an administrator.
        """
        caller = self.caller
        if caller.user is None or (user and caller.may(Scope.ADMIN)):
            return user or None
        if user and user != caller.user:
            raise NotAllowed(f"{caller.name!r} speaks for one user alone, not for {user!r}", key=caller.name)
        return caller.user

    @property
    def flows(self) -> frozenset[str] | None:
        """The only flows that there are for the caller; None: all."""
        return self.caller.flows

    def one_flow(self, named: str | None) -> str | None:
        """Of which flow something is looked up: of the one that is named, "" and None for all.

        For a caller that is limited to flows: the one that it has, else the one that it names. Raises `InputError`
        where it has several and names none, `UnknownFlow` for another.
        """
        flows = self.caller.flows
        if flows is None or named in flows:
            return named or None
        if named:
            return self.flywheel.registry.current().only(flows).get(named, inactive=True).key
        if len(flows) == 1:
            return next(iter(flows))
        raise InputError(
            "this key is limited to several flows: name the one that you mean",
            suggestions=tuple(f"Name {flow!r}." for flow in sorted(flows)[:5]),
        )

    @property
    def flywheel(self) -> Flywheel:
        """The flywheel of the caller's tenant, opened at first use. Raises `CredentialsMissing`, `ServiceBusy`."""
        if self._flywheel is None:
            self._flywheel = self.service.tenants.lend(self.caller.tenant)
        return self._flywheel

    def release(self) -> None:
        """Give the flywheel back; the gate does this when the response has been sent."""
        if self._flywheel is not None:
            self.service.tenants.take_back(self._flywheel)
            self._flywheel = None


def call_of(connection: HTTPConnection | Any) -> Call:
    """The call that a Starlette request (or an ASGI scope) belongs to."""
    scope = connection if isinstance(connection, dict) else connection.scope
    return cast("Call", scope["afw.call"])
