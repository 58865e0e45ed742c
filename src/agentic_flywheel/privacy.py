"""The vocabulary of privacy: what a flow, a user or the tenant may ask to be kept, and what comes of all of it.

Invariant: a policy that says nothing of something leaves it as it is; no policy can allow what another one forbids
(`policy.privacy.resolve`).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from agentic_flywheel.personal_data import Kind

#: Turns may be kept for so many days; longer is a slip of units.
MOST_DAYS = 36_500
#: How a kind of personal data is written: `email`, `api_key`.
_KINDS = frozenset(kind.value for kind in Kind)


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


def is_kind(word: str) -> bool:
    """Whether a word names a kind of personal data, or all of them."""
    return word == "all" or word in _KINDS


class SweepNote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A sweep of turns past their retention: when it began and ended (epoch seconds, None while it is under way), what
    it removed, and of whom the oldest turn that it left is from when ("tenant", "flow docs", "user ann").

    `shard` and `after` say behind which session it goes on.
    """

    began_at: float
    done_at: float | None = None
    sessions: int = 0
    turns: int = 0
    removed: int = 0
    ended: int = 0
    oldest: dict[str, float] = {}
    shard: int = 0
    after: str = ""


class InForce(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for the tenant, one flow, one user, or a user's questions to a flow; `oldest_at` is when the oldest
    turn was asked that the last sweep left of them (epoch seconds), None where it saw none."""

    tenant: str
    flow: str = ""
    user: str = ""
    privacy: Privacy
    oldest_at: float | None = None


class SetPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """One policy and where it was set: `registry` (a file, changed there) or `run time`."""

    whose: Whose
    name: str = ""
    policy: PrivacyPolicy
    origin: str = "run time"


class PrivacyShown(msgspec.Struct, frozen=True, kw_only=True):
    """All policies, what holds because of them, and the sweep that enforces retention.

    `idle_days` is after how many days without a question whole sessions go (`session.retention_days`; 0: never).
    """

    policies: tuple[SetPolicy, ...]
    in_force: tuple[InForce, ...]
    last_sweep: SweepNote | None = None
    running_sweep: SweepNote | None = None
    idle_days: float = 0.0


class PolicyChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a change did: the policy before and after, the stored answers that it removed, and what people should
    know."""

    whose: Whose
    name: str = ""
    before: PrivacyPolicy
    after: PrivacyPolicy
    removed_answers: int = 0
    notes: tuple[str, ...] = ()
