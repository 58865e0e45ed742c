"""API keys as people and the service use them.

Invariant: the secret of a key leaves `create` and is nowhere afterwards. Making and revoking a key is in the audit log
before it holds.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from base64 import b32encode
from collections.abc import Collection
from datetime import timedelta

from agentic_flywheel.auditing import Audit
from agentic_flywheel.callers import ApiKey, Caller, NewApiKey, Scope
from agentic_flywheel.errors import CredentialsRefused, InputError, RateLimited, UnknownApiKey
from agentic_flywheel.model import Receipt
from agentic_flywheel.policy.admission import admit_id, admit_text
from agentic_flywheel.store.api_keys import Allowance
from agentic_flywheel.store.store import Store

#: What every key begins with: how it is told from keys of the services behind, and found by scanners for secrets.
PREFIX = "afw_"
_KEY = re.compile(r"afw_([0-9a-f]{12})_([a-z2-7]{52})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}")
_LONGEST_LIFE = timedelta(days=3650)
_MOST_A_MINUTE = 1_000_000
#: Flows that a key may be limited to, and the scopes that such a key can have: what is administered and measured is
#: everybody's.
MOST_FLOWS = 100
_LIMITABLE = frozenset({Scope.ASK, Scope.READ})


class ApiKeys:
    """The API keys of the service, as the operator of one tenant looks after them."""

    def __init__(self, store: Store, audit: Audit, tenant: str) -> None:
        self._store = store
        self._audit = audit
        self._tenant = tenant

    async def create(
        self,
        name: str,
        scopes: Collection[Scope],
        *,
        by: str,
        user: str | None = None,
        expires: timedelta | None = None,
        rate_per_minute: int | None = None,
        flows: Collection[str] | None = None,
        why: str = "",
    ) -> NewApiKey:
        """Make a key of this tenant, bound to `user` where one is named, and limited to `flows` (their keys) where some
        are: to it no others exist. Raises `InputError`."""
        self._check(name, scopes, user, expires, rate_per_minute)
        if flows is not None:
            _check_flows(flows, scopes)
        now = time.time()
        if any(key.name == name and key.state(now) == "active" for key in await self.list()):
            raise InputError(f"there is a key {name!r} already", suggestions=("Choose another name.",), name=name)
        key = ApiKey(
            id=secrets.token_hex(6),
            name=name,
            tenant=self._tenant,
            user=user,
            scopes=frozenset(scopes),
            created_at=now,
            expires_at=None if expires is None else now + expires.total_seconds(),
            rate_per_minute=rate_per_minute,
            flows=None if flows is None else frozenset(flows),
        )
        secret = f"{PREFIX}{key.id}_{b32encode(secrets.token_bytes(32)).decode().rstrip('=').lower()}"
        granted = " ".join(sorted(key.scopes))
        limited = {} if key.flows is None else {"flows": " ".join(sorted(key.flows))}
        facts = {"name": name, "scopes": granted, "user": user, "expires_at": key.expires_at, **limited}
        await self._audit.record("key.create", key.id, by=by, why=why, **facts)
        await self._store.api_keys.add(key, _digest(secret))
        return NewApiKey(key=key, secret=secret)

    async def list(self, *, all_tenants: bool = False) -> list[ApiKey]:
        """The keys of this tenant (or of all), newest first; those that ended for another 90 days."""
        found = await self._store.api_keys.listed()
        return [key for key in found if all_tenants or key.tenant == self._tenant]

    async def revoke(self, named: str, *, by: str, why: str = "", dry_run: bool = True) -> Receipt:
        """End a key of this tenant, by its name or id, at once and everywhere. Raises `UnknownApiKey`."""
        now = time.time()
        found = [key for key in await self.list() if named in {key.id, key.name} and key.state(now) == "active"]
        if not found:
            raise UnknownApiKey(f"no key {named!r} of the tenant {self._tenant!r} is in force", name=named)
        if len(found) > 1:
            ids = ", ".join(key.id for key in found)
            raise InputError(f"{len(found)} keys are called {named!r}: name one by its id ({ids})", name=named)
        (key,) = found
        if not dry_run:
            await self._audit.record("key.revoke", key.id, by=by, why=why, name=key.name)
            await self._store.api_keys.revoke(key.id, at=now)
        target = f"{key.name} ({key.id})"
        return Receipt(action="revoke key", target=target, dry_run=dry_run, removed={"keys": 1}, at=now)

    async def any_active(self) -> bool:
        """Whether any key, of whatever tenant, opens anything."""
        now = time.time()
        return any(key.state(now) == "active" for key in await self._store.api_keys.listed())

    async def admit(self, secret: str, *, per_minute: int = 0) -> tuple[Caller, Allowance]:
        """Who presents a key, and what is left of its rate (`per_minute` where it has none of its own).

        Raises `CredentialsRefused`, `RateLimited`, `StoreError`.
        """
        id_ = key_id(secret)
        found = await self._store.api_keys.look(id_, _digest(secret), per_minute=per_minute)
        if found is None:
            raise CredentialsRefused("no such API key", key_id=id_)
        key, in_force, allowance = found
        if not in_force:
            state = "revoked" if key.revoked_at is not None else "expired"
            raise CredentialsRefused(f"the API key {key.name!r} is {state}", key_id=id_, state=state)
        check_rate(allowance, key.name)
        return key.caller, allowance

    async def spend(self, who: str, *, per_minute: int) -> Allowance:
        """Take one call of the rate of a caller without a key. Raises `RateLimited`, `StoreError`."""
        allowance = await self._store.api_keys.spend(who, per_minute=per_minute)
        check_rate(allowance, who)
        return allowance

    @staticmethod
    def _check(
        name: str, scopes: Collection[Scope], user: str | None, expires: timedelta | None, rate: int | None
    ) -> None:
        if not _NAME.fullmatch(name):
            raise InputError(
                f"a key cannot be called {name!r}",
                suggestions=("Use 1 to 64 letters, digits, spaces and . _ @ -, a letter or digit first.",),
            )
        if re.fullmatch(r"[0-9a-f]{12}", name):
            raise InputError(
                f"{name!r} looks like the id of a key", suggestions=("Choose a name that says who uses it.",)
            )
        if not scopes:
            raise InputError(
                "a key without a scope opens nothing", suggestions=("Name one: ask, read, admin, metrics.",)
            )
        if user is not None:
            admit_id(user, "user")
        if expires is not None and not timedelta(seconds=1) <= expires <= _LONGEST_LIFE:
            raise InputError(f"a key lives from 1 second to {_LONGEST_LIFE.days} days, not {expires}")
        if rate is not None and not 0 <= rate <= _MOST_A_MINUTE:
            raise InputError(f"a rate is 0 (no limit) to {_MOST_A_MINUTE} calls a minute, not {rate}")


def _check_flows(flows: Collection[str], scopes: Collection[Scope]) -> None:
    if isinstance(flows, str) or not 1 <= len(flows) <= MOST_FLOWS:
        raise InputError(f"a key is limited to 1 to {MOST_FLOWS} flows, given as a list")
    for flow in flows:
        if not 1 <= len(admit_text(flow, "flow")) <= 256:
            raise InputError("a flow's key has 1 to 256 characters")
    if beyond := sorted(scope.value for scope in set(scopes) - _LIMITABLE):
        raise InputError(
            f"a key with the scope {' and '.join(beyond)} cannot be limited to flows",
            suggestions=("Give it the scopes ask and read alone.", "Make two keys: one for each purpose."),
        )


def key_id(secret: str) -> str:
    """The public part of a key. Raises `CredentialsRefused` for what cannot be one."""
    match = _KEY.fullmatch(secret)
    if match is None:
        raise CredentialsRefused("this is not an API key of this service, or not the whole of it")
    return match[1]


def check_rate(allowance: Allowance, who: str) -> None:
    """Raises `RateLimited` for who has to wait."""
    if allowance.wait_seconds > 0:
        raise RateLimited(
            f"{who!r} may call {allowance.per_minute} times a minute",
            retry_after_seconds=allowance.wait_seconds,
            limit=allowance.per_minute,
        )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
