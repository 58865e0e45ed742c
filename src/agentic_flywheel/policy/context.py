"""Which earlier turns enrich a question, within a budget, and how they are put in front of it.

Invariant: deterministic; what is chosen here is exactly what the flow is given and what the answer's identity
covers. Default sizes are measured (docs/threads.md): the last 5 exchanges, the first one, and of those between them
the 3 that share most with the question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from agentic_flywheel.model import Exchange, Turn
from agentic_flywheel.policy.identity import digest
from agentic_flywheel.policy.relevance import Earlier, Owned, cut, relevant, whose, within_reach
from agentic_flywheel.policy.sharing import personal
from agentic_flywheel.threads import Carried, ContextTurn

#: Rule of thumb for English and French text; budgets are bounds, not measurements.
CHARACTERS_PER_TOKEN = 4
#: So many characters of what an asker brings along are read for words about oneself; more passes for such words.
MOST_READ = 100_000


class Enrichment(msgspec.Struct, gc=False, frozen=True):
    """The chosen turns, oldest first, and the exchanges as the flow is given them; `private` if any of them is, `own`
    if any is its user's alone. `flows` are those that answered."""

    turns: tuple[ContextTurn, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    private: bool = False
    own: bool = False
    flows: frozenset[str] = frozenset()

    @property
    def turn_ids(self) -> tuple[str, ...]:
        """The chosen turns by id."""
        return tuple(turn.turn_id for turn in self.turns)


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


def enrich(
    question: str,
    turns: Sequence[Turn],
    first: Turn | None,
    earlier: Sequence[Earlier] = (),
    *,
    limit: int,
    tokens: int,
    further: int = 0,
) -> Enrichment:
    """The last `limit` of `turns`, the session's `first`, and up to `further` of those between, within `tokens`.

    `earlier` is what is known of those between, oldest first like `turns`. Where room is short the newest are kept,
    then the first. Of those between, the ones that share most with the question are taken; where fewer than `further`
    share any word, those that come next before the newest ("and the third one?" has no words to look for).
    """
    if limit <= 0 or tokens <= 0:
        return Enrichment()
    room = tokens * CHARACTERS_PER_TOKEN
    recent: list[_Chosen] = []
    for turn in reversed(turns[-limit:]):
        exchange = Exchange(turn.question, cut(turn.answer))
        room -= len(exchange.question) + len(exchange.answer)
        if room < 0:
            return _together((), reversed(recent))
        recent.append((ContextTurn(turn.id, Carried.NEWEST), exchange, whose(turn)))
    recent.reverse()
    if first is None or any(chosen.turn_id == first.id for chosen, _, _ in recent):
        return _together((), recent)  # nothing lies between
    exchange = Exchange(first.question, cut(first.answer))
    room -= len(exchange.question) + len(exchange.answer)
    if room < 0:
        return _together((), recent)
    begun = (ContextTurn(first.id, Carried.FIRST), exchange, whose(first))
    if not (earlier and further > 0):
        return _together((begun,), recent)
    return _together((begun, *_further(question, within_reach(earlier), room, further)), recent)


_Chosen = tuple[ContextTurn, Exchange, Owned]


def _further(question: str, between: Sequence[Earlier], room: int, count: int) -> list[_Chosen]:
    """Up to `count` of the turns `between`, in their order, that fit into so many characters."""
    chosen: dict[str, _Chosen] = {}

    def take(turn: Earlier, why: Carried, words: tuple[str, ...] = ()) -> bool:
        nonlocal room
        size = len(turn.exchange.question) + len(turn.exchange.answer)
        if size > room:
            return False
        room -= size
        chosen[turn.id] = (ContextTurn(turn.id, why, words), turn.exchange, turn.owned)
        return True

    for found in relevant(question, between):
        if len(chosen) == count:
            break
        take(found.turn, Carried.RELEVANT, found.words)
    for turn in reversed(between):
        if len(chosen) == count or not (turn.id in chosen or take(turn, Carried.NEWEST)):
            break
    return [chosen[turn.id] for turn in between if turn.id in chosen]


def _together(before: Iterable[_Chosen], recent: Iterable[_Chosen]) -> Enrichment:
    chosen = [*before, *recent]
    owned = [one for _, _, one in chosen]
    return Enrichment(
        tuple([turn for turn, _, _ in chosen]),
        tuple([exchange for _, exchange, _ in chosen]),
        any([one.private for one in owned]),  # noqa: C419  (a generator takes longer, and this is on every way)
        any([one.own for one in owned]),  # noqa: C419
        frozenset([one.flow for one in owned]),
    )


def carried(exchanges: Sequence[Exchange]) -> Enrichment:
    """What the asker brings along takes the place of the session's turns: whole, since the asker chose it."""
    asked = [exchange.question for exchange in exchanges]
    own = sum(map(len, asked)) > MOST_READ or any(map(personal, asked))
    return Enrichment(exchanges=tuple(exchanges), own=own)


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
