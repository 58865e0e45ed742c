"""What a turn counts for: the question that it asked, and the step that led to it.

Invariant: counted is only what everybody of the tenant may see. A question counts if the answer that it was given is
kept for the whole team under its words alone: so no earlier turn, no override and no domain had a part in it, it was
not private, speaks of nobody's own things, and its flow shares with the team. A step counts if it begins at such a
question and every turn on it is kept for the team. Both follow from the turns themselves, so what was counted for a
turn can be taken back when the turn is deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from agentic_flywheel.model import Outcome, Turn
from agentic_flywheel.policy.identity import digest, normalise, question_hash
from agentic_flywheel.store.askers import mark_of
from agentic_flywheel.store.counters import day_of
from agentic_flywheel.store.keys import scope_of_key, team_question
from agentic_flywheel.store.popularity import STEP, Count, Told

SERVED = frozenset({Outcome.HIT, Outcome.SIMILAR, Outcome.STALE, Outcome.JOINED})
#: How many questions before it are part of a step's name.
DEPTH = 3
#: What is gathered until it is sent; beyond that, questions that are new are not counted.
MOST_GATHERED = 5_000
#: Longer questions are named anew each time, rather than kept at hand with their names.
_LONGEST_KEPT = 400


class Asked(NamedTuple):
    """A question by its name, and the name of the one that it was taken for (its own where that is none)."""

    name: str
    taken_for: str


def name_of(question: str) -> str:
    """The name of a question: the hash that the key of its stored answer has.

    >>> name_of("What is Redis?") == name_of("  what is REDIS ")
    True
    """
    return question_hash(normalise(question)) if len(question) > _LONGEST_KEPT else _name_of(question)


@lru_cache(maxsize=2048)
def _name_of(question: str) -> str:
    return question_hash(normalise(question))


def node_of(names: Sequence[str]) -> str:
    """The name of a way that was gone: that of its only question, or a digest of several."""
    return names[0] if len(names) == 1 else digest("way", *names)


def asked_of(turn: Turn) -> Asked | None:
    """The question that a turn counts for, None where it counts for none."""
    if turn.private:
        return None
    if turn.counts_as:
        return Asked(turn.counts_as, turn.counts_as)
    stored = team_question(turn.entry_key)
    if not stored:
        return None
    own = name_of(turn.question)
    taken_for = name_of(turn.matched_question) if turn.matched_question else own
    return Asked(own, taken_for) if taken_for == stored else None


def step_of(turn: Turn, before: Sequence[Turn]) -> tuple[str, list[str]] | None:
    """The name of the step that led to a turn, and the ids of the turns on it; `before` is oldest first."""
    if scope_of_key(turn.entry_key) != "team" or turn.private:
        return None
    own = name_of(turn.question)
    names: list[str] = []
    ids = [turn.id]
    for earlier in reversed(before[-DEPTH:]):
        if earlier.flow != turn.flow or scope_of_key(earlier.entry_key) != "team" or earlier.private:
            return None
        names.insert(0, name_of(earlier.question))
        ids.append(earlier.id)
        if asked_of(earlier) is not None:
            return None if names[-1] == own else (node_of(names) + STEP + own, ids)
    return None


def steps_over(names: Collection[str], steps: Collection[str]) -> set[str]:
    """Those of all steps whose way leads from, over or to one of these questions."""
    after: dict[str, list[str]] = {}
    for step in steps:
        before, _, to = step.partition(STEP)
        after.setdefault(before, []).append(to)
    # Whether a way's name is that of its only question, or a digest, it does not say itself: so all are followed as if
    # they began there, and the digests that this leads to are known.
    ways = {before: [(before,)] for before in after}
    for way in [(before,) for before in after] + [(before, to) for before in after for to in after[before]]:
        for to in after.get(node_of(way), ()):
            node = node_of([*way, to])
            if len(way) < DEPTH and node in after:
                ways[node].append((*way, to))
    found = set()
    for before, following in after.items():
        for to in following:
            if not set(names).isdisjoint((to, *(name for way in ways[before] for name in way))):
                found.add(before + STEP + to)
    return found


class Tally:
    """What was asked and has not been sent yet."""

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant
        self.counts: dict[Told, Count] = {}

    def add(self, turn: Turn, before: Sequence[Turn], saved_us: int) -> None:
        """Count a turn; `before` are the turns before it in its session, oldest first. A turn that is among them was
        sent once more, and counted before."""
        if any(earlier.id == turn.id for earlier in before):
            return
        asked = asked_of(turn)
        if asked is not None:
            mark = mark_of(turn.user or turn.session_id, self._tenant)
            taken_for = asked.taken_for if asked.taken_for != asked.name else ""
            served = turn.outcome in SERVED
            self._count(asked.name, turn, turn.at, served=served, saved_us=saved_us, mark=mark, taken_for=taken_for)
        step = step_of(turn, before) if before else None
        if step is not None:
            mark = mark_of(turn.user or turn.session_id, self._tenant)
            self._count(step[0], turn, turn.at, served=turn.outcome in SERVED, saved_us=saved_us, mark=mark)

    def add_repeat(self, turn: Turn, *, session: str, at: float, saved_us: int) -> None:
        """Count a turn that differs from one that was served before in nothing but session and time: one without
        session, overrides and domain, so its answer's key names the question."""
        if name := team_question(turn.entry_key):
            mark = mark_of(turn.user or session, self._tenant)
            self._count(name, turn, at, served=True, saved_us=saved_us, mark=mark)

    def _count(
        self, name: str, turn: Turn, at: float, *, served: bool, saved_us: int, mark: int, taken_for: str = ""
    ) -> None:
        place = Told(turn.flow, day_of(at), name)
        count = self.counts.get(place)
        if count is None:
            if len(self.counts) >= MOST_GATHERED:
                return
            count = self.counts[place] = Count(turn.question, at)
        count.asked += 1
        count.served += served
        count.saved_us += saved_us
        count.first = min(count.first, int(at))
        count.last = max(count.last, int(at))
        count.marks.add(mark)
        count.taken_for = taken_for or count.taken_for

    def put_back(self, counts: Mapping[Told, Count]) -> None:
        """Take back what could not be sent."""
        for place, count in counts.items():
            later = self.counts.get(place)
            if later is None:
                self.counts[place] = count
                continue
            later.asked += count.asked
            later.served += count.served
            later.saved_us += count.saved_us
            later.first = min(later.first, count.first)
            later.marks |= count.marks
            later.taken_for = later.taken_for or count.taken_for


def counted_for(
    turns: Sequence[Turn], gone: Collection[str], *, tenant: str, since: float
) -> dict[Told, list[tuple[bool, int]]]:
    """What was counted for the turns `gone` (ids) of a session, as it is to be taken back: their questions, and every
    step that they are on. Turns before `since` (epoch seconds) are not counted any more."""
    found: dict[Told, list[tuple[bool, int]]] = {}
    for turn, name in _told(turns, gone):
        if turn.at >= since:
            told = (turn.outcome in SERVED, mark_of(turn.user or turn.session_id, tenant))
            found.setdefault(Told(turn.flow, day_of(turn.at), name), []).append(told)
    return found


def _told(turns: Sequence[Turn], gone: Collection[str]) -> Iterator[tuple[Turn, str]]:
    for place, turn in enumerate(turns):
        if turn.id in gone and (asked := asked_of(turn)) is not None:
            yield turn, asked.name
        step = step_of(turn, turns[max(0, place - DEPTH) : place])
        if step is not None and not set(gone).isdisjoint(step[1]):
            yield turn, step[0]
