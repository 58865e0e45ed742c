"""Similar questions answered from memory: how many, and how many wrongly; the product beside other policies.

    python bench/similar [--data PLACE ...] [--only banking,clinc,qqp,zipf] [--quick [N]] [--check] [--write] [--json]

Streams of public, labelled questions are asked one after another. Our rows are the product itself: the facade on a
private Redis, with its own embedder, and a flow that knows every question's answer. The other rows are what other
caches do with the same stream and the same vectors: exact only, one fixed cut of the cosine, vCache. A hit is wrong
where its answer is that of another class.

Vectors are computed once (some minutes) and kept in --cache for the next run. PLACE is a folder, or files, named
banking77*.jsonl, clinc150*.jsonl (one {"text", "answer_class"} per line) and qqp*.jsonl ({"a", "b", "same",
"cluster_a", "cluster_b"}); without them nothing is measured, and this ends with 0. `--check` ends with 1 where a claim
does not hold.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import sys
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.path[:1] = [str(here.parent), str(here.parents[1] / "tests")]

if TYPE_CHECKING:
    from similar.counts import Run
    from similar.product import Place
    from similar.streams import Stream
    from similar.table import StreamRuns


def measure(
    streams: list[Stream], traps: list[tuple[str, str]], place: Place, jobs: int, *, perfect: bool
) -> tuple[list[StreamRuns], Run]:
    """Every policy on every stream, `jobs` of them at a time."""
    from similar.others import run_others, run_swept
    from similar.policies import FIXED, LEARN, LEARN_PERFECT
    from similar.product import run_ours, run_traps
    from similar.table import StreamRuns

    policies = (*FIXED, *LEARN, *(LEARN_PERFECT if perfect else ()))
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        trapped = pool.submit(run_traps, traps, place)
        ours: dict[int, list[Future[Run]]] = {}
        others = {}
        for number, stream in sorted(enumerate(streams), key=lambda item: -len(item[1].asked)):
            ours[number] = [pool.submit(run_ours, policy, stream, place) for policy in policies]
            for future in ours[number]:
                future.add_done_callback(functools.partial(_tell, stream))
            others[number] = (pool.submit(run_others, stream, place), pool.submit(run_swept, stream, place))
        found = []
        for number, stream in enumerate(streams):
            done = [future.result() for future in ours[number]]
            rows, swept = (future.result() for future in others[number])
            found.append(StreamRuns(stream=stream, others=rows, ours=done, swept=swept))
        return found, trapped.result()


def _tell(stream: Stream, done: Future[Run]) -> None:
    if not done.cancelled() and done.exception() is None:
        run = done.result()
        speed = run.requests / run.seconds
        print(f"  {stream.name}, {run.policy}: {run.requests:,} questions, {speed:,.0f} a second", file=sys.stderr)


def main() -> int:
    from private_server import private_server
    from similar.others import read_traps, trap_similarities
    from similar.product import Place
    from similar.remembered import RememberedVectors, real_embedder
    from similar.streams import FOLDER, read_streams, texts_of
    from similar.table import TrapRuns, claims, page, plain, write

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", type=Path, default=[FOLDER], metavar="PLACE")
    parser.add_argument("--only", default="", help="streams, separated by commas: banking, clinc, qqp, zipf")
    parser.add_argument("--quick", nargs="?", type=int, const=500, metavar="N", help="only the first N (500) of each")
    parser.add_argument("--seed", type=int, default=1, help="of the order, of what is drawn, of the audits (default 1)")
    parser.add_argument("--order", choices=("shuffled", "file"), default="shuffled", help="of the questions")
    parser.add_argument("--embedder", choices=("minilm", "minilm-int8"), default="minilm")
    parser.add_argument("--perfect", action="store_true", help="learn with a comparer that makes no mistakes, too")
    parser.add_argument("--server", default="valkey", help="valkey (default), redis, or a Redis address")
    parser.add_argument("--cache", type=Path, help="folder for vectors (default: in the temporary directory)")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes (default 2)")
    parser.add_argument("--mistakes", action="store_true", help="show the wrong hits of strict as well")
    parser.add_argument("--json", action="store_true", help="counts as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a claim does not hold")
    parser.add_argument("--write", action="store_true", help="put the table into docs/similar-questions.md")
    given = parser.parse_args()
    if given.write and (given.only or given.quick):
        parser.error("--write puts the whole table into the page: without --only and --quick")
    streams = read_streams(
        given.data,
        only=tuple(filter(None, given.only.split(","))),
        seed=given.seed,
        shuffled=given.order == "shuffled",
        first=given.quick,
    )
    if not streams:
        print(f"nothing measured: no question sets in {', '.join(map(str, given.data))}", file=sys.stderr)
        return 0
    start = time.monotonic()
    cache = given.cache or Path(tempfile.gettempdir(), f"afw-bench-vectors-{os.getuid()}")
    traps = read_traps()[: given.quick]
    vectors = RememberedVectors(real_embedder(given.embedder), cache)
    vectors.learn(itertools.chain(*map(texts_of, streams), *traps), given.jobs)
    near = trap_similarities(traps, vectors)
    vectors.close()
    with private_server(given.server) as server:
        url = server.urls.get("unix socket") or next(iter(server.urls.values()))
        found, trapped = measure(
            streams, traps, Place(url, given.embedder, cache, given.seed), given.jobs, perfect=given.perfect
        )
    trap_runs = TrapRuns(ours=trapped, similarities=near)
    seconds = time.monotonic() - start
    text = page(found, trap_runs, server.name, given.embedder, seconds)
    if given.json:
        figures = {"streams": [plain(runs) for runs in found], "traps": trap_runs, "claims": claims(found, trap_runs)}
        print(json.dumps(msgspec.to_builtins(figures), indent=2))
    else:
        print(text)
    if given.mistakes:
        for runs in found:
            print(f"\n{runs.stream.title}: wrong hits of strict")
            for asked, matched, similarity in runs.ours[0].mistakes:
                print(f"  {similarity:.4f}  {asked}\n          {matched}")
        print("\ntraps served by strict", *(f"  {trap}" for trap in trapped.mistakes), sep="\n")
    if given.write:
        write(text)
    return int(given.check and not all(claim.met for claim in claims(found, trap_runs)))


if __name__ == "__main__":
    sys.exit(main())
