"""The vocabulary of privacy: what a flow, a user or the tenant may ask to be kept, and what comes of all of it.

Invariant: a policy that says nothing of something leaves it as it is; no policy can allow what another one forbids
(`policy.privacy.resolve`).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Whose(StrEnum):
    """Whose policy it is."""

    TENANT = "tenant"
    FLOW = "flow"
    USER = "user"


class PrivacyPolicy(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """What somebody set for a flow, a user or the tenant; None (and no words) where they said nothing.

    `history`: whether turns are kept. `cache`: whether answers are stored and served again. `retention_days`: older
    turns go. `redact`: kinds of personal data that are taken out before anything is written.

    >>> PrivacyPolicy(history=False, retention_days=30).words()
    ['history off', 'retention 30 days']
    """

    history: bool | None = None
    cache: bool | None = None
    retention_days: float | None = None
    redact: frozenset[str] = frozenset()

    def words(self) -> list[str]:
        """What it says, for people."""
        found = [
            f"{name} {'on' if said else 'off'}"
            for name, said in (("history", self.history), ("cache", self.cache))
            if said is not None
        ]
        if self.retention_days is not None:
            found.append(f"retention {self.retention_days:g} days")
        if self.redact:
            found.append(f"redact {', '.join(sorted(self.redact))}")
        return found

    def __bool__(self) -> bool:
        return self != _SAYS_NOTHING


class Rule(msgspec.Struct, gc=False, frozen=True):
    """One policy with whose it is: `name` is the flow or the user, "" for the tenant."""

    whose: Whose
    name: str
    policy: PrivacyPolicy

    def __str__(self) -> str:
        return f"{self.whose} {self.name}" if self.name else str(self.whose)


class Privacy(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What holds for one question: the strictest of all that was said. With each, whose policies say so ("flow docs",
    "user ann", "tenant"), where any does."""

    history: bool = True
    cache: bool = True
    retention_days: float | None = None
    redact: frozenset[str] = frozenset()
    history_by: tuple[str, ...] = ()
    cache_by: tuple[str, ...] = ()
    retention_by: tuple[str, ...] = ()
    redact_by: tuple[str, ...] = ()


#: What holds where nobody said anything.
EVERYTHING = Privacy()
_SAYS_NOTHING = PrivacyPolicy()
