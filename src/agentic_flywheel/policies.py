"""Privacy policies as people see and set them; what is set holds from the next question on, in every process.

Invariant: a policy of run time can only be stricter than what stands beside it. Where it ends the keeping of answers,
those that are stored are served no more from that moment on, and are removed before the change is reported as done.
Turns that were kept before stay, until their retention or until they are forgotten: the change says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from agentic_flywheel.curation import Cache
from agentic_flywheel.errors import InputError
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.known_policies import KnownPolicies
from agentic_flywheel.matching import Matching
from agentic_flywheel.policy.admission import admit_id
from agentic_flywheel.policy.privacy import resolve
from agentic_flywheel.privacy import (
    MOST_DAYS,
    InForce,
    PolicyChange,
    Privacy,
    PrivacyPolicy,
    PrivacyShown,
    SetPolicy,
    Whose,
    is_kind,
)
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.keys import flight_name
from agentic_flywheel.store.privacy import field_of
from agentic_flywheel.store.scan import Scan
from agentic_flywheel.store.store import Store

#: Policies of run time that one tenant may have: all of them are read after each change.
MOST_POLICIES = 10_000
_PAGE = 200
_NOTHING = PrivacyPolicy()


class Policies:
    """The privacy policies of one tenant; `forget` drops what this process has at hand."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        store: Store,
        known: KnownPolicies,
        cache: Cache,
        matching: Matching,
        forget: Callable[[], None],
    ) -> None:
        self._idle_days = settings.number("session.retention_days")
        self._tenant = settings.text("tenant")
        self._registry = registry
        self._store = store
        self._known = known
        self._cache = cache
        self._matching = matching
        self._forget = forget

    async def show(self, *, flow: str | None = None, user: str | None = None) -> PrivacyShown:
        """All policies and what holds because of them: for the tenant, each flow and each user that has one; or for one
        flow, one user, or a user's questions to a flow. Raises `UnknownFlow`, `StoreError`."""
        await self._known.load(slow=True)
        notes = await self._store.sweeps.read()
        oldest = notes.last.oldest if notes.last is not None else {}
        registry = self._registry.current()
        if flow is None and user is None:
            users = sorted(rule.name for rule in self._known.rules.values() if rule.whose is Whose.USER)
            asked: list[tuple[FlowSpec | None, str]] = [(None, ""), *((spec, "") for spec in registry.flows.values())]
            asked += [(None, name) for name in users]
        else:
            spec = None if flow is None else registry.get(flow, inactive=True)
            asked = [(spec, "" if user is None else admit_id(user, "user"))]
        in_force = tuple(self._in_force(spec, name, oldest) for spec, name in asked)
        concerned = {field for spec, name in asked for field in _fields(spec, name)}
        return PrivacyShown(
            policies=tuple(one for one in self._set() if field_of(one.whose, one.name) in concerned),
            in_force=in_force,
            last_sweep=notes.last,
            running_sweep=notes.running,
            idle_days=self._idle_days,
        )

    async def of(self, *, flow: str | None = None, user: str = "") -> Privacy:
        """What holds now. Raises `UnknownFlow`, `StoreError`."""
        return (await self.show(flow=flow, user=user or None)).in_force[0].privacy

    async def at(self, whose: Whose, name: str = "") -> PrivacyPolicy:
        """What was set at run time for a flow, a user or the tenant. Raises `InputError`, `UnknownFlow`."""
        name = self._admit(whose, name)
        await self._known.load(slow=True)
        rule = self._known.rules.get(field_of(whose, name))
        return _NOTHING if rule is None else rule.policy

    async def set(self, whose: Whose, name: str = "", *, policy: PrivacyPolicy, removes: bool = True) -> PolicyChange:
        """Set the policy of a flow, a user or the tenant (`name` ""), in place of what was set before; one that says
        nothing takes it back. Without `removes`, stored answers that it forbids are left to expire, unserved.

        Raises `InputError` for what cannot be meant, `UnknownFlow`, `StoreError`.
        """
        name = self._admit(whose, name)
        _check(policy)
        before = await self.at(whose, name)
        if len(self._known.rules) >= MOST_POLICIES and field_of(whose, name) not in self._known.rules:
            raise InputError(f"a tenant has at most {MOST_POLICIES} policies; take one back first")
        await self._store.policies.change(whose, name, policy or None)
        await self._known.load(slow=True)
        self._forget()
        removed = await self._unstore(whose, name) if removes and policy.cache is False else 0
        notes = []
        if policy.history is False and before.history is not False:
            notes.append("Turns that were kept before stay until their retention ends; `afw forget` removes them.")
        if before.history is False and policy.history is not False and not self._resolved(whose, name).history:
            notes.append("Another policy still lets no history be kept; `afw privacy show` says which.")
        if policy.retention_days is not None:
            notes.append("Turns past their retention go within a day; `afw session sweep --yes` removes them now.")
        return PolicyChange(
            whose=whose, name=name, before=before, after=policy, removed_answers=removed, notes=tuple(notes)
        )

    async def clear(self, whose: Whose, name: str = "") -> PolicyChange:
        """Take back what was set at run time; what the registry says, and other policies, hold again."""
        return await self.set(whose, name, policy=_NOTHING)

    def _resolved(self, whose: Whose, name: str) -> Privacy:
        spec = self._registry.current().flows.get(name) if whose is Whose.FLOW else None
        return resolve(self._known.rules_of(spec, name if whose is Whose.USER else ""))

    def _admit(self, whose: Whose, name: str) -> str:
        if whose is Whose.TENANT:
            if name:
                raise InputError(f"the tenant's policy has no name, not {name!r}")
            return ""
        if whose is Whose.USER:
            return admit_id(name, "user")
        if field_of(whose, name) in self._known.rules:  # it may have left the registry
            return name
        return self._registry.current().get(name, inactive=True).key

    def _set(self) -> Sequence[SetPolicy]:
        ranks = list(Whose)
        found = [
            SetPolicy(whose=Whose.FLOW, name=spec.key, policy=spec.privacy, origin="registry")
            for spec in self._registry.current().flows.values()
            if spec.privacy is not None
        ]
        found += [SetPolicy(whose=one.whose, name=one.name, policy=one.policy) for one in self._known.rules.values()]
        return sorted(found, key=lambda one: (ranks.index(one.whose), one.name, one.origin))

    def _in_force(self, spec: FlowSpec | None, user: str, oldest: dict[str, float]) -> InForce:
        names = [f"{Whose.FLOW} {spec.key}"] if spec is not None else []
        names += [f"{Whose.USER} {user}"] if user else []
        return InForce(
            tenant=self._tenant,
            flow="" if spec is None else spec.key,
            user=user,
            privacy=resolve(self._known.rules_of(spec, user)),
            oldest_at=oldest.get(names[0] if names else str(Whose.TENANT)) if len(names) < 2 else None,
        )

    async def _unstore(self, whose: Whose, name: str) -> int:
        """Remove the stored answers that a policy lets nobody keep; how many there were."""
        if whose is Whose.TENANT:
            return (await self._cache.clear(everything=True, dry_run=False)).removed["entries"]
        if whose is Whose.FLOW:
            known = name in await self._store.flows.known()
            return (await self._cache.clear(flow=name, dry_run=False)).removed["entries"] if known else 0
        removed, scan = 0, Scan(self._store.link, self._store.keys)
        for flow in await self._store.flows.known():
            async for keys in scan.entry_keys(flow, generation=None):
                for start in range(0, len(keys), _PAGE):
                    found = {
                        key: looked.entry
                        for key, looked, _ in await scan.entries(keys[start : start + _PAGE])
                        if looked.entry is not None and looked.entry.user == name
                    }
                    for key, entry in found.items():
                        await self._matching.forget(key, entry)
                        await self._store.leases.forget(flight_name(key, f"{entry.fingerprint} {entry.generation}"))
                    removed += await self._store.entries.remove(found)
        self._forget()
        return removed


def _fields(spec: FlowSpec | None, user: str) -> list[str]:
    fields = [field_of(Whose.TENANT, "")]
    fields += [field_of(Whose.FLOW, spec.key)] if spec is not None else []
    return [*fields, field_of(Whose.USER, user)] if user else fields


def _check(policy: PrivacyPolicy) -> None:
    days = policy.retention_days
    if days is not None and not (math.isfinite(days) and 0 < days <= MOST_DAYS):
        raise InputError(f"turns are kept for more than 0 and at most {MOST_DAYS} days, not {days:g}")
    strange = sorted(word for word in policy.redact if not is_kind(word))
    if strange:
        raise InputError(f"{strange[0]!r} is no kind of personal data; one is a word such as email or api_key")
    try:
        msgspec.convert(msgspec.to_builtins(policy), PrivacyPolicy)
    except msgspec.ValidationError as error:
        raise InputError(f"this is no privacy policy: {error}") from error
