"""Which earlier turns enrich a question, within a budget, and how they are put in front of it.

Invariant: deterministic; what is chosen here is exactly what the flow is given and what the answer's identity
covers. Default sizes are measured (needed words present in the last 5 exchanges plus the first: CAsT 2021, 76 %;
docs/sharing.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agentic_flywheel.model import Exchange, Turn
from agentic_flywheel.policy.identity import digest

#: Characters of an earlier answer that are carried along; its beginning holds what follow-ups refer to.
ANSWER_CHARACTERS = 600
#: Rule of thumb for English and French text; budgets are bounds, not measurements.
CHARACTERS_PER_TOKEN = 4


class Enrichment(msgspec.Struct, gc=False, frozen=True):
    """The chosen turns, oldest first, and the exchanges as the flow is given them; `private` if any of them is."""

    turn_ids: tuple[str, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    private: bool = False


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """The field a question belongs to, composed in front of it; part of the answer's identity."""

    name: str
    description: str = ""
    context_type: str = "general"
    stack_info: str = ""
    cultural_info: str = ""

    def digest(self) -> str:
        """The domain's name in an identity."""
        return digest("domain", *(str(getattr(self, field)) for field in self.__struct_fields__))


def enrich(turns: Sequence[Turn], first: Turn | None, *, limit: int, tokens: int) -> Enrichment:
    """The last `limit` turns (given oldest first) and the session's `first`, newest kept within `tokens`.

    The session's first turn goes first when room is short.
    """
    if limit <= 0 or tokens <= 0:
        return Enrichment()
    chosen: list[tuple[Turn, Exchange]] = []
    room = tokens * CHARACTERS_PER_TOKEN
    recent = list(turns[-limit:])
    oldest = [first] if first is not None and first.id not in {turn.id for turn in recent} else []
    for turn in [*reversed(recent), *oldest]:
        exchange = Exchange(turn.question, _cut(turn.answer))
        size = len(exchange.question) + len(exchange.answer)
        if size > room:
            break
        room -= size
        chosen.append((turn, exchange))
    chosen.reverse()
    return Enrichment(
        tuple(turn.id for turn, _ in chosen),
        tuple(exchange for _, exchange in chosen),
        any(turn.private for turn, _ in chosen),
    )


def carried(exchanges: Sequence[Exchange]) -> Enrichment:
    """What the asker brings along takes the place of the session's turns: whole, since the asker chose it."""
    return Enrichment(exchanges=tuple(exchanges))


def _cut(answer: str) -> str:
    return answer if len(answer) <= ANSWER_CHARACTERS else answer[: ANSWER_CHARACTERS - 1].rstrip() + "…"


def compose(
    question: str, exchanges: Sequence[Exchange] = (), domain: Domain | None = None, instructions: str = ""
) -> str:
    """The text for a flow: instructions and earlier exchanges (for flows that take neither apart), domain, question.

    >>> compose("And on mobile?", [Exchange("How do I log in?", "With a token.")])
    'Earlier in this conversation:\\nQ: How do I log in?\\nA: With a token.\\n\\nQuestion: And on mobile?'
    """
    parts: list[str] = [f"Instructions:\n{instructions}"] if instructions else []
    if domain is not None:
        lines = [f"Domain: {domain.name} ({domain.context_type})", domain.description]
        if domain.stack_info:
            lines.append(f"Technical setting: {domain.stack_info}")
        if domain.cultural_info:
            lines.append(f"Cultural setting: {domain.cultural_info}")
        parts.append("\n".join(line for line in lines if line))
    if exchanges:
        told = "\n".join(f"Q: {e.question}\nA: {e.answer}" for e in exchanges)
        parts.append(f"Earlier in this conversation:\n{told}")
    parts.append(f"Question: {question}" if parts else question)
    return "\n\n".join(parts)
