"""Whether a search finds the turns that answer a question: the product on both indexes, beside other ways of searching.

    python bench/history [--data PLACE ...] [--only locomo,locomo-bare,beam] [--index local,engine] [--quick [N]]
                         [--check] [--write] [--json]

Conversations are put into a real Redis, as asking puts them there, and each set's questions are searched for through
`Flywheel.history.search`: in their own conversation and in all of them, by words, by meaning and by both. A turn counts
as found where the set names it as evidence. The other rows search the same turns: SQLite FTS5 and bm25s by their
defaults, the cosine of MiniLM, and FTS5 and MiniLM put together by rank. See history/sets.py for the sets.

Vectors are computed once (some minutes) and kept in --cache for the next run. Without the sets nothing is measured, and
this ends with 0. `--check` ends with 1 where a claim does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.path[:1] = [str(here.parent), str(here.parents[1] / "tests")]

if TYPE_CHECKING:
    from collections.abc import Sequence

    from history.measures import Row
    from history.sets import HistorySet
    from history.table import Found
    from similar.remembered import RememberedVectors


def measure(
    sets: Sequence[HistorySet], indexes: Sequence[str], vectors: RememberedVectors, *, bm25s: bool
) -> tuple[list[Found], list[str]]:
    """Every way of searching on every set and scope; and the servers that it was measured on."""
    from history.product import INDEXES, SCOPES, run_product
    from history.rivals import run_rivals
    from history.table import Found
    from private_server import private_server

    ours: dict[tuple[str, str], dict[str, list[Row]]] = {}
    servers = []
    for index in indexes:
        with private_server(INDEXES[index]) as server:
            servers.append(f"{server.name} ({index} index)")
            url = server.urls.get("unix socket") or next(iter(server.urls.values()))
            for history in sets:
                for scope, rows in asyncio.run(run_product(history, url, index, vectors)).items():
                    ours.setdefault((history.name, scope), {})[index] = rows
                print(f"  {history.title}, {index} index: {len(history.probes)} questions", file=sys.stderr)
    found = []
    for history in sets:
        for scope in SCOPES:
            others = run_rivals(history, scope, vectors, bm25s=bm25s)
            found.append(Found(history=history, scope=scope, ours=ours[history.name, scope], others=others))
    return found, servers


def main() -> int:
    from agentic_flywheel.search.history.spoken import texts_of
    from history.product import INDEXES
    from history.sets import FOLDER, read_sets
    from history.table import claims, page, plain, write
    from similar.remembered import RememberedVectors, real_embedder

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", type=Path, default=[FOLDER], metavar="PLACE", help="folders or files")
    parser.add_argument("--only", default="", help="sets, separated by commas: locomo, locomo-bare, beam")
    parser.add_argument("--index", default=",".join(INDEXES), help="indexes, separated by commas (default: all)")
    parser.add_argument("--quick", nargs="?", type=int, const=50, metavar="N", help="only N (50) questions of each set")
    parser.add_argument("--embedder", choices=("minilm", "minilm-int8"), default="minilm")
    parser.add_argument("--cache", type=Path, help="folder for vectors (default: in the temporary directory)")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes (default 2)")
    parser.add_argument("--no-bm25s", action="store_true", help="leave out what must be installed first")
    parser.add_argument("--json", action="store_true", help="scores as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a claim does not hold")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/search.md")
    given = parser.parse_args()
    indexes = [index for index in given.index.split(",") if index]
    if unknown := set(indexes) - set(INDEXES):
        parser.error(f"there is no index {', '.join(sorted(unknown))}: choose of {', '.join(INDEXES)}")
    if given.write and (given.only or given.quick):
        parser.error("--write puts the whole table into the page: without --only and --quick")
    sets = read_sets(given.data, only=tuple(filter(None, given.only.split(","))), first=given.quick)
    if not sets:
        print(f"nothing measured: no conversations in {', '.join(map(str, given.data))}", file=sys.stderr)
        return 0
    start = time.monotonic()
    cache = given.cache or Path(tempfile.gettempdir(), f"afw-bench-vectors-{os.getuid()}")
    vectors = RememberedVectors(real_embedder(given.embedder), cache)
    questions = (turn.question for history in sets for turns in history.sessions.values() for turn in turns)
    looked_for = (text for history in sets for probe in history.probes for text in (probe.text, *texts_of(probe.text)))
    vectors.learn((*questions, *looked_for), given.jobs)
    found, servers = measure(sets, indexes, vectors, bm25s=not given.no_bm25s)
    vectors.close()
    text = page(found, servers, given.embedder, time.monotonic() - start)
    if given.json:
        figures = {"found": [plain(one) for one in found], "claims": claims(found)}
        print(json.dumps(msgspec.to_builtins(figures), indent=2))
    else:
        print(text)
    if given.write:
        write(text)
    return int(given.check and not all(claim.met for claim in claims(found)))


if __name__ == "__main__":
    sys.exit(main())
