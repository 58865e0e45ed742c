"""Holds what the askers wrote down against what the server has afterwards.

A turn was *acknowledged* when `ask` returned with `remembered` and the asker had written it down. What must hold, in
the words of the findings below: no acknowledged turn is lost, none is there twice, turns of a session that followed
one another stand in that order, every answer is what the flow says to this question in this context, the context is
that of the session, and everything stored can be read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import redis

from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.model import Entry, Exchange, Turn
from agentic_flywheel.store.codec import decode
from agentic_flywheel.store.keys import SHARDS, Keys
from asker import TENANT, Said, tag

RECALLED = 5
#: Most turns that go along of those between.
RELEVANT = 3


class Findings(msgspec.Struct):
    """What is wrong, as sentences, by kind; and what was counted."""

    lost: list[Said] = []
    twice: list[str] = []
    out_of_order: list[str] = []
    wrong: list[str] = []
    wrong_context: list[str] = []
    damaged: list[str] = []
    untidy: list[str] = []
    excused: int = 0
    counts: dict[str, int] = {}

    def faults(self) -> str:
        """What is wrong, a few of each kind; "" where nothing is."""
        kinds = ("lost", "twice", "out_of_order", "wrong", "wrong_context", "damaged", "untidy")
        found = [(kind, getattr(self, kind)) for kind in kinds]
        return "\n".join(f"{len(some)} {kind}: {one}" for kind, some in found for one in some[:3])


def read_ledgers(folder: Path) -> list[Said]:
    """Everything the askers wrote down; the last line of one that was killed may be torn."""
    said = []
    for path in sorted(folder.glob("*.jsonl")):
        *lines, torn = path.read_bytes().split(b"\n")
        said += [msgspec.json.decode(line, type=Said) for line in lines]
        if torn and path != max(folder.glob(f"{path.stem.rsplit('-', 1)[0]}-*.jsonl")):
            raise AssertionError(f"{path.name} is torn, and its asker went on")
    return said


def audit(client: redis.Redis, said: Sequence[Said], *, may_lose: Iterable[Said] = ()) -> Findings:
    """Look at everything that is there; `may_lose` are turns that the server itself does not promise to have."""
    excused = {(one.session, one.turn) for one in may_lose}
    findings = Findings()
    with client:
        stored, entries = _stored(client, findings)
    by_session: defaultdict[str, list[Said]] = defaultdict(list)
    for one in said:
        by_session[one.session].append(one)
    for session, spoken in by_session.items():
        turns = stored.pop(session, [])
        _audit_session(session, spoken, turns, excused, findings)
    # What nobody wrote down: the asker was killed between the server's word and its own.
    unheard = 0
    for session, turns in stored.items():
        unheard += len(turns)
        _audit_session(session, (), turns, excused, findings)
    outcomes = Counter(one.outcome for one in said)
    findings.counts = {
        "turns": len(said),
        "acknowledged": sum(one.remembered for one in said),
        "by Redis": sum(one.remembered and not one.waits for one in said),
        "by the outbox": sum(one.waits for one in said),
        "sessions": len(by_session),
        "never heard of": unheard,
        "lost with the server's data": findings.excused,
        "entries": entries,
        **dict(sorted(outcomes.items())),
    }
    return findings


def _audit_session(
    session: str, spoken: Sequence[Said], turns: Sequence[Turn], excused: set[tuple[str, str]], findings: Findings
) -> None:
    places = {turn.id: place for place, turn in enumerate(turns)}
    known: dict[str, Exchange] = {one.turn: Exchange(one.question, one.answer) for one in spoken if one.remembered}
    known |= {turn.id: turn.exchange() for turn in turns}
    whole = True
    if len(places) != len(turns):
        again = [turn for turn, times in Counter(turn.id for turn in turns).items() if times > 1]
        findings.twice.append(f"{session}: {again}")
    for one in spoken:
        if not one.answer.startswith(_right(one.question, one.context, known)):
            findings.wrong.append(f"{one.turn} in {session}: {one}")
        place = places.get(one.turn)
        if not one.remembered:
            continue
        if place is None:
            if (session, one.turn) in excused:
                findings.excused, whole = findings.excused + 1, False
            else:
                findings.lost.append(one)
        elif (turns[place].question, turns[place].answer) != (one.question, one.answer):
            findings.wrong.append(f"{one.turn} in {session} was said as {one}, and stands there as {turns[place]}")
    for turn in turns:
        if not turn.answer.startswith(_right(turn.question, turn.context, known)):
            findings.wrong.append(f"stored as {turn.id} in {session}: {turn}")
    _audit_order(session, [one for one in spoken if one.turn in places and one.remembered], places, findings)
    if not session.startswith("shared-") and whole:
        _audit_contexts(session, {one.turn: one for one in spoken}, turns, findings)


def _right(question: str, context: Sequence[str], known: Mapping[str, Exchange]) -> str:
    return tag(question, [known[turn] for turn in context]) if all(turn in known for turn in context) else "?"


def _audit_order(session: str, spoken: Sequence[Said], places: Mapping[str, int], findings: Findings) -> None:
    """A turn that was acknowledged before another was asked stands before it, whoever asked."""
    ended = sorted(spoken, key=lambda one: one.ended)
    behind, furthest = 0, (-1, "")
    for one in sorted(spoken, key=lambda one: one.began):
        while behind < len(ended) and ended[behind].ended < one.began:
            furthest = max(furthest, (places[ended[behind].turn], ended[behind].turn))
            behind += 1
        if furthest[0] > places[one.turn]:
            findings.out_of_order.append(f"{session}: {one.turn} stands before {furthest[1]}")


def _audit_contexts(session: str, spoken: Mapping[str, Said], turns: Sequence[Turn], findings: Findings) -> None:
    """A follow-up in a session of one asker had the last turns, the first, and some of those between, in their order.

    It had some of them where Redis was away, or where the asker was told that some could not be read.
    """
    for place, turn in enumerate(turns):
        before = [earlier.id for earlier in turns[:place]]
        between = before[1:-RECALLED]
        further = min(RELEVANT, len(between))
        ends = tuple(before[:1] * (len(before) > RECALLED)), tuple(before[-RECALLED:])
        one = spoken.get(turn.id)
        if one is None or (one.outcome == "hit" and not one.context):
            continue
        in_order = [t for t in before if t in one.context] == list(one.context)
        middle = one.context[len(ends[0]) : len(one.context) - len(ends[1])]
        if in_order and one.context == (*ends[0], *middle, *ends[1]) and len(middle) == further:
            continue
        told = one.outcome == "bypass" or any(
            "could not be read" in warning or "without memory" in warning for warning in one.warnings
        )
        if not told or not in_order:
            expected = f"{ends[0]} {further} of {between} {ends[1]}"
            findings.wrong_context.append(
                f"{session}: {one.outcome} {turn.id} had {one.context}, not {expected}: {one}"
            )


def _stored(client: redis.Redis, findings: Findings) -> tuple[dict[str, list[Turn]], int]:
    """Every session's turns as they stand, and how many entries there are; all of it looked at."""
    keys, sessions, entries = Keys(TENANT), dict[str, list[Turn]](), 0
    listed = {name.decode() for shard in range(SHARDS) for name in client.zrange(keys.sessions(shard), 0, -1)}
    for raw in client.scan_iter(f"{keys.root}:*", count=1000):
        key = raw.decode()
        if keys.is_entry(key):
            entry = client.get(key)
            if entry is None:  # it has just expired
                continue
            entries += 1
            try:
                decode(entry, Entry)
            except StoreDamaged as error:
                findings.damaged.append(f"{key}: {error}")
        elif key.endswith(":turns"):
            turns = []
            for _, fields in client.xrange(key):
                try:
                    turns.append(decode(fields[b"t"], Turn))
                except StoreDamaged as error:
                    findings.damaged.append(f"{key}: {error}")
            session = turns[0].session_id
            sessions[session] = turns
            header = client.hget(keys.session(session), "turns")
            figures = (int(header or -1), client.hlen(keys.turn_ids(session)), len(turns))
            if len(set(figures)) > 1:
                findings.untidy.append(f"{session}: header, ids and stream count {figures} turns")
            if session not in listed:
                findings.untidy.append(f"{session} is not listed")
    return sessions, entries
