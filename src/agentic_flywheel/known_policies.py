"""Which privacy policy holds for a question, as far as this process knows.

Invariant: every question that reads Redis reads the version of the policies with it, so a change holds from the next
question on, in every process; only after a change are they read again, which costs that one question a round trip.
While Redis is away the last known ones hold: those of this process, else those that a process of this machine left on
disk. Where neither is, a turn waits in the outbox until the policies can be asked (`policy.unknown = wait`), or nothing
is kept of it (`withhold`). The registry's policies are known always.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.policy.privacy import resolve
from agentic_flywheel.privacy import EVERYTHING, Privacy, PrivacyPolicy, Rule, Whose
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.privacy import PolicyFile, PolicyStore, field_of
from agentic_flywheel.store.store import Store

#: Answers to "what holds" that are remembered until something changes.
_MOST = 4096
_UNKNOWN = Rule(Whose.TENANT, "(unknown while Redis is away)", PrivacyPolicy(history=False))
_NO_RULES: Mapping[str, Rule] = {}


class KnownPolicies:
    """The policies of one tenant; `version` is None until Redis said one. `withholds`: what is not known is not kept.
    `on_disk` gives the file, None where there is to be none."""

    def __init__(self, store: PolicyStore, on_disk: Callable[[], PolicyFile | None], *, withholds: bool) -> None:
        self._store = store
        self._on_disk = on_disk
        self._withholds = withholds
        self._guessed = False
        self._unknown = False
        self._resolved: dict[tuple[str, PrivacyPolicy | None, str], Privacy] = {}
        self.version: str | None = None
        self.rules: Mapping[str, Rule] = _NO_RULES

    def of(self, spec: FlowSpec, user: str) -> Privacy:
        """What holds for a question to a flow."""
        if not self.rules and spec.privacy is None and not self._unknown:
            return EVERYTHING
        name = (spec.key, spec.privacy, user)
        known = self._resolved.get(name)
        if known is None:
            if len(self._resolved) >= _MOST:
                self._resolved.clear()
            known = self._resolved[name] = resolve(self.rules_of(spec, user))
        return known

    def rules_of(self, spec: FlowSpec | None, user: str) -> list[Rule]:
        """All that was said for a flow (None: none), a user ("": none) and the tenant."""
        return self.rules_for("" if spec is None else spec.key, spec, user)

    def rules_for(self, flow: str, spec: FlowSpec | None, user: str) -> list[Rule]:
        """As `rules_of`, for a flow that may not be in the registry any more."""
        fields = [field_of(Whose.TENANT, "")]
        if flow:
            fields.append(field_of(Whose.FLOW, flow))
        if user:
            fields.append(field_of(Whose.USER, user))
        found = [rule for field in fields if (rule := self.rules.get(field)) is not None]
        if spec is not None and spec.privacy is not None:
            found.append(Rule(Whose.FLOW, spec.key, spec.privacy))
        return [*found, _UNKNOWN] if self._unknown else found

    @property
    def withholds_some(self) -> bool:
        """Whether there is anybody of whom no history is kept."""
        return self._unknown or any(rule.policy.history is False for rule in self.rules.values())

    async def follow(self, version: str) -> bool:
        """Redis said this version: whether anything is different from what was known. Raises `StoreError`."""
        if version == self.version:
            return False
        before, unknown = self.rules, self._unknown
        if version:
            await self.load()
        else:
            self._learn("", _NO_RULES)
        return self.rules != before or unknown

    async def load(self, *, slow: bool = False) -> None:
        """Read all policies. Raises `StoreError`."""
        table = await self._store.table(slow=slow)
        self._learn(table.version, table.rules)
        if (file := self._on_disk()) is not None:
            await asyncio.to_thread(file.write, table.rules)

    def fall_back(self) -> None:
        """Redis cannot be asked: if it never was, see what was known on this machine."""
        if self.version is not None or self._guessed:
            return
        self._guessed = True
        file = self._on_disk()
        rules = None if file is None else file.read()
        self.rules = rules or _NO_RULES
        self._unknown = rules is None and self._withholds
        self._resolved.clear()

    def _learn(self, version: str, rules: Mapping[str, Rule]) -> None:
        self.version, self.rules, self._unknown = version, rules, False
        self._resolved.clear()


def known_policies(settings: Settings, store: Store) -> KnownPolicies:
    """Those of a tenant, as its settings have it."""
    withholds = settings["policy.unknown"] == "withhold"
    return KnownPolicies(store.policies, lambda: store.policy_file, withholds=withholds)
