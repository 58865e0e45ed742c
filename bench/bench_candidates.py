"""How well the FAQ's candidates come to one for each question, over several days of a team.

    python bench/bench_candidates.py [--data FOLDER] [--seeds N] [--visits N] [--server valkey|redis|URL]
                                     [--json] [--write]

Traffic is that of `team_day.py`: its first day, once for each seed, asked with exact matching only, so that no two
wordings are one by a hit. The flows answer in one of two ways: *the same* words to whoever asks the same, as a FAQ or a
deterministic flow does; or *anew*: three sentences that people wrote of the same matter, none of which two wordings
share (other wordings of the intent, which nobody asks that day), as a model does that says it differently each time.
Answers *gone* are none: the cache was cleared. Then the 20 first candidates are compared with the 20 intents that were
asked most: ungrouped (each popular question by itself), put together by words, and by vectors (all-MiniLM-L6-v2).
Candidates that are shown below another one (`near`) are not among the 20.

Cuts (`policy.grouping`) were chosen on seeds 1 to 10, so those that follow are measured; `--first` begins elsewhere.
Without question sets nothing is measured, and this ends with 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import msgspec

from agentic_flywheel import Flywheel
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.insight.popular import PopularQuestion
from agentic_flywheel.policy.identity import normalise
from performance_page import DOCS, circumstances, markdown_table, write_part
from private_server import private_server, private_settings
from similar.remembered import RememberedVectors, real_embedder
from similar.streams import FOLDER, answer_text
from team_day import LEAST_ASKED, LEAST_ASKERS, MOST_CANDIDATES, TOP, Traffic, read_traffic, texts_of, truth_of

if TYPE_CHECKING:
    from agentic_flywheel.curated import FaqCandidate

USERS, INTENTS, WORDINGS, POPULAR = 24, 1000, 8, 1000
SENTENCES = 3
UNGROUPED, BY_WORDS, BY_VECTORS = "ungrouped", "by words", "by vectors"
#: How the flows answer, and in which ways the candidates of it are looked at.
ARMS = {
    "gone": (UNGROUPED, BY_WORDS, BY_VECTORS),
    "anew": (BY_WORDS, BY_VECTORS),
    "the same": (BY_WORDS, BY_VECTORS),
}


class Shown(msgspec.Struct, frozen=True):
    """A candidate as it is judged: the flow, its question, and all that is shown as one with it."""

    flow: str
    question: str
    texts: tuple[str, ...]


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """One list against the truth: of the 20 first, those that belong there (`right`), the intents of the truth among
    them (`found`), those that ask what an earlier one asks (`again`), those with a wording that asks something else
    (`mixed`), such wordings (`strangers`) of all (`texts`)."""

    seed: int
    answers: str
    how: str
    listed: int
    right: int
    found: int
    again: int
    mixed: int
    strangers: int
    texts: int
    truth: int


def judge(traffic: Traffic, shown: Sequence[Shown], *, seed: int, answers: str, how: str) -> Day:
    """A list, best first."""
    truth = truth_of(traffic.days[0])

    def label(flow: str, text: str) -> str:
        return traffic.labels[flow].get(normalise(text), "")

    top = list(shown)[:TOP]
    asks = [(one.flow, label(one.flow, one.question)) for one in top]
    wrong = [sum(label(one.flow, text) != what for text in one.texts) for one, (_, what) in zip(top, asks, strict=True)]
    return Day(
        seed=seed,
        answers=answers,
        how=how,
        listed=len(top),
        right=sum(what in truth for what in asks),
        found=len(set(asks) & set(truth)),
        again=len(asks) - len(set(asks)),
        mixed=sum(count > 0 for count in wrong),
        strangers=sum(wrong),
        texts=sum(len(one.texts) for one in top),
        truth=len(truth),
    )


class _Flows:
    """Flows that answer the same to the same, or anew."""

    def __init__(self, traffic: Traffic, texts: dict[tuple[str, str], list[str]], *, anew: bool) -> None:
        self._labels = traffic.labels
        asked = {visit.text for day in traffic.days for visit in day}
        self._spare = {intent: [text for text in some if text not in asked] for intent, some in texts.items()}
        self._anew = anew

    def register(self, registry: Registry) -> None:
        """Have all flows answer."""
        for flow in self._labels:
            registry.register(flow, self._answering(flow))

    def _answering(self, flow: str) -> object:
        async def answer(question: str) -> str:
            label = self._labels[flow][normalise(question)]
            spare = self._spare[flow, label]
            if not self._anew or len(spare) < SENTENCES:
                return answer_text(f"{flow} {label}")
            return " ".join(random.Random(normalise(question)).sample(spare, SENTENCES))

        return answer


async def one_day(
    traffic: Traffic, texts: dict[tuple[str, str], list[str]], url: str, embedder: RememberedVectors, seed: int
) -> list[Day]:
    """A seed's day, answered in both ways and looked at in all."""
    found: list[Day] = []
    for anew in (True, False):
        flows, tenant = _Flows(traffic, texts, anew=anew), f"day-{random.randrange(10**12)}"
        with tempfile.TemporaryDirectory(prefix="afw-bench-") as folder:
            more: dict[str, object] = {"similar.mode": "off", "embedder.model": "off"}
            settings = private_settings(url, folder, tenant=tenant, data_dir=folder, **more)
            registry = Registry(settings)
            flows.register(registry)
            async with (
                Flywheel.open(settings=settings, registry=registry, background=False) as words,
                Flywheel.open(settings=settings, registry=registry, background=False, embedder=embedder) as vectors,
            ):
                for visit in traffic.days[0]:
                    await words.ask(visit.text, flow=visit.intent[0], user=visit.user)
                await words.settled()
                for answers in ("anew",) if anew else ("the same", "gone"):
                    if answers == "gone":
                        for flow in traffic.labels:
                            await words.cache.clear(flow=flow, dry_run=False)
                    for how in ARMS[answers]:
                        shown = await _shown(vectors if how == BY_VECTORS else words, how)
                        found.append(judge(traffic, shown, seed=seed, answers=answers, how=how))
    return found


async def _shown(flywheel: Flywheel, how: str) -> list[Shown]:
    if how == UNGROUPED:
        popular = await flywheel.popular.list(limit=POPULAR)
        enough = [one for one in popular if one.asked >= LEAST_ASKED and one.askers >= LEAST_ASKERS]
        return [_alone(one) for one in enough]
    candidates = (await flywheel.faq.list(limit=MOST_CANDIDATES)).candidates
    return [_together(one) for one in candidates if not one.near]


def _alone(one: PopularQuestion) -> Shown:
    return Shown(one.flow, one.question, tuple(wording.text for wording in one.wordings))


def _together(one: FaqCandidate) -> Shown:
    return Shown(one.flow, one.question, (one.question, *one.wordings, *one.alike))


def table(days: Sequence[Day]) -> str:
    """What docs/faq.md shows."""
    rows = []
    for answers, ways in ARMS.items():
        for how in ways:
            some = [day for day in days if (day.answers, day.how) == (answers, how)]
            recalls = [day.found / day.truth for day in some]
            rows.append(
                [
                    how if how == UNGROUPED else f"{how}, answers {answers}",
                    f"{mean(recalls):.2f} ({min(recalls):.2f} to {max(recalls):.2f})",
                    f"{mean(day.right / day.listed for day in some):.2f}",
                    f"{mean(day.again for day in some):.1f}",
                    f"{mean(day.mixed for day in some):.1f}",
                    f"{mean(day.strangers for day in some):.1f} of {mean(day.texts for day in some):.0f}",
                ]
            )
    head = ["", "recall at 20", "precision at 20", "ask what another asks", "with a wrong wording", "wrong wordings"]
    return markdown_table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=FOLDER, metavar="FOLDER", help="where the question sets are")
    parser.add_argument("--seeds", type=int, default=10, help="so many days (default 10)")
    parser.add_argument("--first", type=int, default=11, help="the first seed (default 11)")
    parser.add_argument("--visits", type=int, default=1000, help="visits a day (default 1000)")
    parser.add_argument("--server", default="valkey", help="valkey (default), redis, or a Redis address")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--write", action="store_true", help="put the table into docs/faq.md")
    given = parser.parse_args()
    texts = texts_of(given.data)
    if not texts:
        print(f"nothing measured: no question sets in {given.data}", file=sys.stderr)
        return
    embedder = RememberedVectors(real_embedder("minilm"), Path(tempfile.gettempdir(), "afw-bench-no-vectors"))
    days: list[Day] = []
    seeds = range(given.first, given.first + given.seeds)
    with private_server(given.server) as server:
        url = server.urls.get("unix socket") or next(iter(server.urls.values()))
        for seed in seeds:
            traffic = read_traffic(
                given.data, visits=given.visits, users=USERS, intents=INTENTS, wordings=WORDINGS, seed=seed
            )
            assert traffic is not None, "there are texts"
            days += asyncio.run(one_day(traffic, texts, url, embedder, seed))
            print(f"  seed {seed}", file=sys.stderr)
        name = server.name
    embedder.close()
    if given.json:
        print(json.dumps([msgspec.structs.asdict(day) for day in days], indent=2))
        return
    made = (
        f"Means over the days of seeds {seeds[0]} to {seeds[-1]} (for recall, the least and the most of them): "
        f"{given.visits:,} visits of {USERS} users, up to {WORDINGS} wordings of each intent. {circumstances(name)}"
    )
    print(table(days), "", made, sep="\n")
    if given.write:
        write_part("candidates", f"{table(days)}\n\n{made}", DOCS / "faq.md")


if __name__ == "__main__":
    sys.exit(main())
