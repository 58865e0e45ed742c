"""Which of several privacy policies holds: the strictest, in each thing by itself.

Invariant: what one policy forbids, no other one allows. So more policies never keep more, and neither their order nor
saying one twice changes anything (property tests).
"""

from __future__ import annotations

from collections.abc import Sequence

from agentic_flywheel.privacy import EVERYTHING, Privacy, Rule


def resolve(rules: Sequence[Rule]) -> Privacy:
    """What holds for a question under these policies.

    Turns are kept, and answers stored and served, only where no policy says `off`; the shortest retention holds; all
    kinds that any policy names are redacted.

    >>> from agentic_flywheel.privacy import PrivacyPolicy, Whose
    >>> tenant = Rule(Whose.TENANT, "", PrivacyPolicy(retention_days=90, redact=frozenset({"email"})))
    >>> flow = Rule(Whose.FLOW, "legal", PrivacyPolicy(history=False, retention_days=30, redact=frozenset({"iban"})))
    >>> found = resolve([tenant, flow])
    >>> found.history, found.cache, found.retention_days, sorted(found.redact), found.history_by
    (False, True, 30, ['email', 'iban'], ('flow legal',))
    """
    if not rules:
        return EVERYTHING
    no_history = [rule for rule in rules if rule.policy.history is False]
    no_cache = [rule for rule in rules if rule.policy.cache is False]
    redacting = [rule for rule in rules if rule.policy.redact]
    days = min((rule.policy.retention_days for rule in rules if rule.policy.retention_days is not None), default=None)
    ending = [rule for rule in rules if days is not None and rule.policy.retention_days == days]
    return Privacy(
        history=not no_history,
        cache=not no_cache,
        retention_days=days,
        redact=frozenset().union(*(rule.policy.redact for rule in redacting)),
        history_by=_named(no_history),
        cache_by=_named(no_cache),
        retention_by=_named(ending),
        redact_by=_named(redacting),
    )


def no_history(privacy: Privacy) -> str:
    """Why nothing of a conversation is kept, in one line; "" where it is.

    >>> no_history(Privacy(history=False, history_by=("flow legal", "user ann")))
    'no history: policy of flow legal and of user ann'
    """
    return "" if privacy.history else f"no history: policy of {' and of '.join(privacy.history_by)}"


def no_cache(privacy: Privacy) -> str:
    """Why no answer is stored or served again, in one line; "" where answers are."""
    return "" if privacy.cache else f"no cache: policy of {' and of '.join(privacy.cache_by)}"


def _named(rules: Sequence[Rule]) -> tuple[str, ...]:
    return tuple(sorted({str(rule) for rule in rules}))
