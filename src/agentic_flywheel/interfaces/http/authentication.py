"""Who calls, by what a request carries: an API key, a signed token, or nothing.

Invariant: a credential of ours is one by its form, so it is never taken for one of a service behind, nor passed on to
it: keys begin with `afw_`, tokens name our issuer. A credential that is ours must be right, even where none is
demanded. Everything else in `Authorization` belongs to whoever is behind.

Ours may stand in `X-API-Key`, in `Authorization: Bearer`, or in the cookie `afw_key` (the console's). The first of
these that holds one counts; with a key in `X-API-Key`, `Authorization` is free for the service behind.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import msgspec

from agentic_flywheel.access import PREFIX
from agentic_flywheel.callers import Caller, Scope
from agentic_flywheel.errors import CredentialsRefused, CredentialsUnchecked, RateLimited, StoreError

if TYPE_CHECKING:
    from agentic_flywheel.access import ApiKeys
    from agentic_flywheel.interfaces.http.call import Call
    from agentic_flywheel.interfaces.http.tokens import Tokens
    from agentic_flywheel.settings import Settings
    from agentic_flywheel.store.api_keys import Allowance

COOKIE: Final = "afw_key"
_COOKIE: Final = f"{COOKIE}=".encode()
_CARRIERS: Final = frozenset({b"x-api-key", b"authorization", b"cookie"})
_REMEMBERED = 1000
_log = logging.getLogger(__name__)


class Authentication:
    """How callers are known; `tokens` None where no issuer is set."""

    def __init__(self, settings: Settings, api_keys: ApiKeys, tokens: Tokens | None) -> None:
        self._api_keys = api_keys
        self._tokens = tokens
        self._per_minute = int(settings["serve.rate_per_minute"])
        self._grace_seconds = settings.number("serve.key_grace_seconds")
        self._seen: OrderedDict[bytes, tuple[Caller, float]] = OrderedDict()

    async def caller_of(self, call: Call, headers: Mapping[bytes, bytes]) -> Caller | None:
        """Who calls; None where the request carries no credential of ours.

        Leaves what is for a service behind in `call.upstream_authorization`; tells the rate in headers of the response.
        Raises `CredentialsRefused`, `CredentialsUnchecked`, `RateLimited`.
        """
        if _CARRIERS.isdisjoint(headers):
            return None
        given = headers.get(b"x-api-key", b"").decode("latin-1").strip()
        bearer = headers.get(b"authorization", b"").decode("latin-1").strip()
        scheme, _, credential = bearer.partition(" ")
        credential = credential.strip() if scheme.casefold() == "bearer" else ""
        if not self._ours(credential):
            call.upstream_authorization = bearer
            credential = ""
        if not self._ours(given):
            given = credential
        if not given and _COOKIE in (cookies := headers.get(b"cookie", b"")):
            given = _cookie(cookies)
        if not given:
            return None
        seal = sha256(given.encode()).digest()
        if given.startswith(PREFIX):
            caller = await self._by_key(call, given, seal)
        else:
            assert self._tokens is not None  # `_ours` has seen it
            caller = await self._tokens.caller_of(given)
            if self._per_minute:
                await self._spend(call, caller)
        call.seal = seal
        return caller

    def _ours(self, credential: str) -> bool:
        if credential.startswith(PREFIX):
            return True
        if self._tokens is None or not credential.startswith("eyJ"):
            return False
        return self._tokens.is_ours(credential)

    async def _by_key(self, call: Call, secret: str, seen: bytes) -> Caller:
        try:
            caller, allowance = await self._api_keys.admit(secret, per_minute=self._per_minute)
        except StoreError as error:
            return self._remembered(seen, error)
        except CredentialsRefused:
            self._seen.pop(seen, None)
            raise
        except RateLimited as error:
            call.headers += [(b"ratelimit-policy", b'"key";q=%d;w=60' % error.details["limit"])]
            raise
        self._seen[seen] = caller, time.monotonic()
        self._seen.move_to_end(seen)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        _tell(call, allowance)
        return caller

    def _remembered(self, seen: bytes, error: StoreError) -> Caller:
        """A caller whom Redis cannot vouch for now, as it was known a while ago, without the right to change things."""
        caller, at = self._seen.get(seen, (None, 0.0))
        if caller is None or time.monotonic() - at > self._grace_seconds:
            raise CredentialsUnchecked("the key cannot be checked while Redis is away") from error
        if Scope.ADMIN not in caller.scopes:
            return caller
        return msgspec.structs.replace(caller, scopes=frozenset({Scope.ASK, Scope.READ}))

    async def _spend(self, call: Call, caller: Caller) -> None:
        try:
            allowance = await self._api_keys.spend(f"{caller.tenant}|{caller.name}", per_minute=self._per_minute)
        except StoreError:
            _log.warning("the rate of a token is not known while Redis is away: the call goes on")
        else:
            _tell(call, allowance)


def _tell(call: Call, allowance: Allowance) -> None:
    """The rate, in the fields of draft-ietf-httpapi-ratelimit-headers."""
    if allowance.per_minute:
        full_in = (allowance.per_minute - allowance.left) * 60 // allowance.per_minute
        call.headers += [
            (b"ratelimit-policy", b'"key";q=%d;w=60' % allowance.per_minute),
            (b"ratelimit", b'"key";r=%d;t=%d' % (allowance.left, full_in)),
        ]


def _cookie(cookies: bytes) -> str:
    for pair in cookies.split(b";"):
        name, _, value = pair.strip().partition(b"=")
        if name == COOKIE.encode() and value.startswith(PREFIX.encode()):
            return value.decode("latin-1")
    return ""
