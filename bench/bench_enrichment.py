"""How much of what a question about a long session rests on goes along with it: turns from further back, on and off.

    python bench/bench_enrichment.py [FOLDER]

Every probing question of BEAM and LoCoMo (bench/history/sets.py says where they are published) is asked at the end of
its conversation; two remarks of LoCoMo are one exchange. Counted is the share of the exchanges that hold the answer
among those that would go along, by `policy.context.enrich` with the default sizes. FOLDER holds the sets; default:
../shared/data/history beside the project. Without them nothing is measured.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from agentic_flywheel.model import Exchange, Outcome, Reason, Turn
from agentic_flywheel.policy import relevance
from agentic_flywheel.policy.context import enrich
from agentic_flywheel.policy.relevance import Earlier
from agentic_flywheel.store.codec import encode
from history.sets import read_sets

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "history"
LAST = 5


def turn(place: int, said: Exchange) -> Turn:
    return Turn(
        str(place),
        "s",
        0.0,
        said.question,
        said.answer,
        "f",
        "",
        Outcome.MISS,
        Reason.NOT_STORED,
        "",
        origin_trace_id="",
    )


def share(sessions: Sequence[tuple[Sequence[Turn], Sequence[tuple[str, frozenset[int]]]]], further: int) -> float:
    """The share of evidence that goes along, mean over the questions, in percent."""
    found: list[float] = []
    for turns, probes in sessions:
        earlier = [Earlier.of(one, len(encode(one))) for one in turns[1:-LAST]]
        for question, evidence in probes:
            along = enrich(question, turns[-LAST:], turns[0], earlier, limit=LAST, tokens=2000, further=further)
            places = {int(id_) for id_ in along.turn_ids}
            found.append(len(evidence & places) / len(evidence))
    return 100 * sum(found) / len(found)


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for one in read_sets([folder]):
        pair = 2 if "locomo" in one.name else 1
        sessions = []
        for name, said in one.sessions.items():
            parts = [said[at : at + pair] for at in range(0, len(said), pair)]
            sides = [Exchange(p[0].question, p[1].question if len(p) > 1 else p[0].answer) for p in parts]
            turns = [turn(place, exchange) for place, exchange in enumerate(sides)]
            probes = [(p.text, frozenset(e // pair for e in p.evidence)) for p in one.probes if p.session == name]
            sessions.append((turns, probes))
        print(f"{one.title}: none {share(sessions, 0):.1f} %", end="")
        reach = relevance.MOST_TURNS
        for most in (32, 64, 128, reach):
            relevance.MOST_TURNS = most
            print(f", looking {most} turns back {share(sessions, 3):.1f} %", end="")
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
