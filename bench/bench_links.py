"""How well sessions on one topic are told from others: what the floor of `policy.topics` rests on.

    python bench/bench_links.py [FOLDER] [--write]

The chats of BEAM (bench/history/sets.py says where they are published) are each about one matter for some hundred
exchanges. Cut into sessions of some exchanges, three of each chat far apart, they are made the sessions of one user:
those of one chat belong together, others do not (two chats may well touch on the same thing, so what counts as wrong
here is not always). For each floor, the share of the sessions that find one of their own chat, and the share of the
links that lead to another chat, by `policy.topics` as `insight.links` uses it: at most 5 links of each session.
FOLDER holds the sets; default: ../shared/data/history beside the project. Without them nothing is measured.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from agentic_flywheel.policy.topics import FLOOR, LEAST_WORDS, likeness, rarity_of, spread, topic_of
from history.sets import read_sets
from performance_page import DOCS, circumstances, markdown_table, write_part

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "history"
FLOORS = (0.06, 0.10, 0.14, 0.18, 0.22, 0.26, 0.30)
LENGTHS = (3, 6, 12)
MOST_LINKS = 5
#: Where in its chat a session begins, as a share of the chat.
PLACES = (0.05, 0.45, 0.85)


def found_at(chats: list[list[tuple[str, str]]], length: int) -> dict[float, tuple[float, float]]:
    """For each floor: the share of sessions that find their own chat, and that of links to others."""
    sessions = [
        (number, topic_of(spread(said[start : start + length])))
        for number, said in enumerate(chats)
        for start in (int(place * (len(said) - length)) for place in PLACES)
    ]
    rarity = rarity_of([topic for _, topic in sessions])
    found: dict[float, tuple[float, float]] = {}
    for floor in FLOORS:
        finds = links = wrong = 0
        for at, (chat, topic) in enumerate(sessions):
            alike = []
            for other, (its, theirs) in enumerate(sessions):
                share, words = likeness(topic, theirs, rarity)
                if other != at and share >= floor and len(words) >= LEAST_WORDS:
                    alike.append((share, its))
            shown = sorted(alike, reverse=True)[:MOST_LINKS]
            finds += any(its == chat for _, its in shown)
            links += len(shown)
            wrong += sum(its != chat for _, its in shown)
        found[floor] = finds / len(sessions), wrong / links if links else 0.0
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="where the sets are")
    parser.add_argument("--write", action="store_true", help="put the table into docs/threads.md")
    given = parser.parse_args()
    sets = read_sets([given.folder], only=["beam"])
    if not sets:
        print(f"nothing measured: no chats in {given.folder}", file=sys.stderr)
        return
    chats = [[(turn.question, turn.answer) for turn in said] for said in sets[0].sessions.values()]
    by_length = {length: found_at(chats, length) for length in LENGTHS}
    rows = [
        [
            f"**{floor:.2f}**" if floor == FLOOR else f"{floor:.2f}",
            *(f"{value:.0%}" for length in LENGTHS for value in by_length[length][floor]),
        ]
        for floor in FLOORS
    ]
    head = ["likeness of", *(text for length in LENGTHS for text in (f"{length} turns: found", "to others"))]
    table = markdown_table(head, rows)
    made = f"{len(chats) * len(PLACES)} sessions of {len(chats)} chats. {circumstances('no Redis')}"
    print(table, "", made, sep="\n")
    if given.write:
        write_part("links", f"{table}\n\n{made}", DOCS / "threads.md")


if __name__ == "__main__":
    sys.exit(main())
