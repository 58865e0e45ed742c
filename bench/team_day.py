"""Two days of a team's questions: which ask for a place in the FAQ, and what warming brings after a flow changed.

    python bench/team_day.py [--data FOLDER] [--visits N] [--users N] [--intents N] [--wordings N] [--popular N]
                             [--seed N] [--server valkey|redis|URL] [--json] [--write]

Traffic is made up from public, labelled questions: a flow per set (BANKING77; CLINC150 without what is out of its
scope), up to `--intents` intents together, up to `--wordings` wordings of each. Intents are drawn by Zipf's law
(exponent 1, in an order of popularity that the seed decides), wordings of one by it as well. Each of `--visits` visits
of a day is one question of one of `--users` users, drawn evenly; a quarter of the visits go on with one follow-up in
the same session ("How long does that take?"), which leans on the question before it. The product is asked, on a private
Redis, with flows in Python that answer by intent at once: with exact matching only, then with similar questions in mode
`fixed`, profiles strict and faq and no audits, each in tenants of its own.

Candidates: after the first day, the 20 first candidates for the FAQ (those below another one left out) against the
truth: the 20 intents that were asked most often, follow-ups and words about oneself (which nobody but the asker may
see) left out, by enough people. Over several days, and for other answers: `bench_candidates.py`.
Warming: then both flows change. The second day (other draws of the same laws) is asked cold, and, in a tenant that had
the same first day, after a warm-up of `--popular` popular questions and 2 follow-ups of each.

Sets are files in --data named banking77*.jsonl and clinc150*.jsonl, one {"text", "answer_class"} a line; without them
nothing is measured, and this ends with 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import asynccontextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from agentic_flywheel import Flywheel, Outcome
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.policy.identity import normalise
from agentic_flywheel.policy.sharing import personal
from performance_page import DOCS, circumstances, markdown_table, write_part
from private_server import private_server, private_settings
from similar.counts import Share
from similar.remembered import RememberedVectors, real_embedder
from similar.streams import FOLDER, answer_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agentic_flywheel.curated import FaqCandidate
    from agentic_flywheel.model import Answer, Exchange

#: Flow -> the beginning of its set's file name, and of the labels that say nothing of what is asked.
SETS = {"banking": ("banking77", "-"), "assistant": ("clinc150", "oos_")}
FOLLOW_UPS = (
    "How long does that take?",
    "And what does that cost?",
    "Is that possible from abroad?",
    "Why is that so?",
)
FOLLOWED = 0.25
TOP, WARMED_FOLLOW_UPS, MOST_CANDIDATES = 20, 2, 1000
LEAST_ASKED, LEAST_ASKERS = 3, 2  # faq.least_asked, faq.least_askers
ARMS = {"exact only": "", "similar, strict": "strict", "similar, faq": "faq"}

#: A flow and a label of its set.
Intent = tuple[str, str]
T = TypeVar("T")


class Visit(msgspec.Struct, frozen=True):
    """A user's question, and the follow-up of the same session ("" for none)."""

    user: str
    intent: Intent
    text: str
    then: str


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Both days; `labels` says of each flow's texts, in their normal form, what they ask."""

    labels: dict[str, dict[str, str]]
    days: tuple[list[Visit], list[Visit]]
    intents: int
    wordings: int


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The candidates of one arm against the truth. `right` ask what is in the truth, `again` of them what another one
    asks already; `strangers` are wordings that ask something else than their candidate. `of_all` counts intents found
    of the truth that leaves no words out; `reached` those of the truth that are among all candidates, of which there
    are `candidates`."""

    listed: int
    right: int
    again: int
    strangers: int
    truth: int
    all_truth: int
    of_all: int
    candidates: int
    reached: int

    @property
    def precision(self) -> float:
        return self.right / self.listed if self.listed else 0.0

    @property
    def recall(self) -> float:
        return (self.right - self.again) / self.truth if self.truth else 0.0


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """A day as it was answered: `wrong` are answers to another intent; `keys` of what was served from memory."""

    asked: int
    served: int
    wrong: int
    calls: int
    keys: frozenset[str]


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One way of matching: its candidates, its second day cold and warmed, and what became of the warm-up's calls."""

    name: str
    found: Found
    first: Day
    cold: Day
    warm: Day
    warm_calls: int
    warm_used: int


def read_traffic(folder: Path, *, visits: int, users: int, intents: int, wordings: int, seed: int) -> Traffic | None:
    """Both days, decided by the sets and the arguments alone; None where there are no sets."""
    draw = random.Random(seed)
    texts = texts_of(folder)
    if not texts:
        return None
    labels: dict[str, dict[str, str]] = {}
    for (flow, label), some in texts.items():
        labels.setdefault(flow, {}).update((normalise(text), label) for text in some)
    chosen = draw.sample(sorted(texts), min(intents, len(texts)))
    worded = {intent: draw.sample(texts[intent], min(wordings, len(texts[intent]))) for intent in chosen}

    def visit() -> Visit:
        intent = _zipf(draw, chosen)
        then = _zipf(draw, FOLLOW_UPS) if draw.random() < FOLLOWED else ""
        return Visit(f"user-{draw.randrange(users)}", intent, _zipf(draw, worded[intent]), then)

    first, second = ([visit() for _ in range(visits)] for _ in range(2))
    return Traffic(labels=labels, days=(first, second), intents=len(chosen), wordings=sum(map(len, worded.values())))


def texts_of(folder: Path) -> dict[Intent, list[str]]:
    """The sets' questions by intent, each once."""
    texts: dict[Intent, list[str]] = {}
    known: set[tuple[str, str]] = set()
    for flow, (beginning, vague) in SETS.items():
        for file in sorted(folder.glob(f"{beginning}*.jsonl")):
            for row in map(json.loads, filter(str.strip, file.read_text("utf-8").splitlines())):
                text, label = row["text"].strip(), row["answer_class"]
                if not label.startswith(vague) and (flow, normalise(text)) not in known:
                    known.add((flow, normalise(text)))
                    texts.setdefault((flow, label), []).append(text)
    return texts


def _zipf(draw: random.Random, ranked: Sequence[T]) -> T:
    weights = list(accumulate(1 / rank for rank in range(1, len(ranked) + 1)))
    return draw.choices(ranked, cum_weights=weights)[0]


def truth_of(day: Sequence[Visit], *, everything: bool = False) -> list[Intent]:
    """The intents asked most by enough people; with `everything` in whatever words, also those about oneself."""
    counted = [visit for visit in day if everything or not personal(visit.text)]
    asked = Counter(visit.intent for visit in counted)
    people = {intent: len({visit.user for visit in counted if visit.intent == intent}) for intent in asked}
    enough = [i for i, count in asked.items() if count >= LEAST_ASKED and people[i] >= LEAST_ASKERS]
    return sorted(enough, key=lambda intent: (-asked[intent], intent))[:TOP]


def judge(candidates: Sequence[FaqCandidate], traffic: Traffic) -> Found:
    """What was found, against what was asked on the first day."""
    every = [(one.flow, traffic.labels[one.flow].get(normalise(one.question), "")) for one in candidates]
    shown = [one for one in candidates if not one.near][:TOP]
    asks = [(one.flow, traffic.labels[one.flow].get(normalise(one.question), "")) for one in shown]
    truth, everything = truth_of(traffic.days[0]), truth_of(traffic.days[0], everything=True)
    right = [intent for intent in asks if intent in truth]
    return Found(
        listed=len(asks),
        right=len(right),
        again=len(right) - len(set(right)),
        strangers=sum(
            traffic.labels[one.flow].get(normalise(text)) != label
            for one, (_, label) in zip(shown, asks, strict=True)
            for text in (*one.wordings, *one.alike)
        ),
        truth=len(truth),
        all_truth=len(everything),
        of_all=len(set(asks) & set(everything)),
        candidates=len(every),
        reached=len(set(every) & set(truth)),
    )


class Team:
    """A team's flows and its flywheel, in a tenant of its own."""

    def __init__(self, traffic: Traffic, flywheel: Flywheel) -> None:
        self._traffic = traffic
        self._calls = 0
        self.flywheel = flywheel

    def configure(self, version: int) -> None:
        """Register all flows as configured in some way."""
        for flow in self._traffic.labels:
            self.flywheel.registry.register(flow, self._answering(flow), options={"version": version})

    def _answering(self, flow: str) -> object:
        async def answer(question: str, history: Sequence[Exchange]) -> str:
            self._calls += 1
            return self._right(flow, history[0].question, question) if history else self._right(flow, question)

        return answer

    def _right(self, flow: str, text: str, then: str = "") -> str:
        return answer_text(f"{flow} {self._traffic.labels[flow][normalise(text)]} {then}")

    async def live(self, day: Sequence[Visit], name: str) -> Day:
        """Ask a day's questions, one after another."""
        before = self._calls
        given: list[tuple[Answer, str]] = []
        for number, visit in enumerate(day):
            flow, _ = visit.intent
            for asked in filter(None, (visit.text, visit.then)):
                session = f"{name}-{number}" if visit.then else None
                answer = await self.flywheel.ask(asked, flow=flow, user=visit.user, session=session)
                await self.flywheel.settled()
                if answer.warnings:
                    raise SystemExit(f"{asked!r}: {'; '.join(answer.warnings)}")
                given.append((answer, self._right(flow, visit.text, "" if asked == visit.text else asked)))
        served = [answer for answer, _ in given if answer.outcome in {Outcome.HIT, Outcome.SIMILAR}]
        return Day(
            asked=len(given),
            served=len(served),
            wrong=sum(answer.text != right for answer, right in given),
            calls=self._calls - before,
            keys=frozenset(answer.key for answer in served if answer.key),
        )


@asynccontextmanager
async def team(traffic: Traffic, url: str, profile: str, embedder: RememberedVectors) -> AsyncIterator[Team]:
    """A team that nobody else has anything to do with; with a profile, similar questions are answered by it."""
    with tempfile.TemporaryDirectory(prefix="afw-bench-") as folder:
        matching: dict[str, object] = {"similar.mode": "off", "embedder.model": "off"}
        if profile:
            matching = {
                "similar.mode": "fixed",
                "similar.profile": profile,
                "similar.audit_share": 0.0,  # an audit is a call that no asker caused
                "similar.patience_seconds": 60.0,  # a machine under load must not turn hits into misses
            }
        tenant = f"team-{random.randrange(10**12)}"
        settings = private_settings(url, folder, tenant=tenant, data_dir=folder, **matching)
        given = {"embedder": embedder} if profile else {}
        flywheel = Flywheel.open(settings=settings, registry=Registry(settings), background=False, **given)
        async with flywheel:
            if profile and not await flywheel.similar.ready():
                raise SystemExit("the embedder does not work: afw doctor says why")
            opened = Team(traffic, flywheel)
            opened.configure(1)
            yield opened


async def measure(traffic: Traffic, url: str, embedder: RememberedVectors, popular: int) -> list[Arm]:
    """Every arm: two tenants that have the same first day; the flows of both change, and one of them is warmed."""
    arms: list[Arm] = []
    for name, profile in ARMS.items():
        began = time.monotonic()
        async with team(traffic, url, profile, embedder) as one:
            first = await one.live(traffic.days[0], "first")
            found = judge((await one.flywheel.faq.list(limit=MOST_CANDIDATES)).candidates, traffic)
            one.configure(2)
            cold = await one.live(traffic.days[1], "second")
        async with team(traffic, url, profile, embedder) as other:
            await other.live(traffic.days[0], "first")
            other.configure(2)
            report = await other.flywheel.warming.run(popular=popular, follow_ups=WARMED_FOLLOW_UPS, concurrency=1)
            await other.flywheel.settled()
            warm = await other.live(traffic.days[1], "second")
        called = {item.key for item in report.items if item.called}
        if report.state != "done" or report.failed:
            raise SystemExit(f"the warm-up came to nothing: {report}")
        arms.append(
            Arm(
                name=name,
                found=found,
                first=first,
                cold=cold,
                warm=warm,
                warm_calls=report.asked,
                warm_used=len(called & warm.keys),
            )
        )
        print(f"  {name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return arms


def candidates_table(arms: Sequence[Arm]) -> str:
    """The candidates of this one day."""
    rows = [
        [
            arm.name,
            f"{arm.found.precision:.2f} ({arm.found.right}/{arm.found.listed})",
            f"{arm.found.recall:.2f} ({arm.found.right - arm.found.again}/{arm.found.truth})",
            str(arm.found.again),
            str(arm.found.strangers),
            f"{arm.found.reached}/{arm.found.truth} ({arm.found.candidates})",
            f"{arm.found.of_all}/{arm.found.all_truth}",
        ]
        for arm in arms
    ]
    head = ["", "precision at 20", "recall at 20", "ask what another asks", "wordings that ask something else"]
    return markdown_table([*head, "found among all candidates", "of the 20 in any words, by the first 20"], rows)


def warming_table(arms: Sequence[Arm]) -> str:
    """What docs/warming.md shows."""
    rows = [
        [
            arm.name,
            *(f"{Share(day.served, day.asked).value:.1%}" for day in (arm.cold, arm.warm)),
            *(f"{day.calls:,}" for day in (arm.cold, arm.warm)),
            str(arm.warm_calls),
            f"{Share(arm.warm_used, arm.warm_calls).value:.0%} ({arm.warm_used})",
            f"{arm.cold.wrong}, {arm.warm.wrong}",
        ]
        for arm in arms
    ]
    head = ["", "served, cold", "served, warmed", "askers' calls, cold", "warmed", "calls by warming", "of them used"]
    return markdown_table([*head, "wrong, cold and warmed"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=FOLDER, metavar="FOLDER", help="where the question sets are")
    parser.add_argument("--visits", type=int, default=1000, help="visits a day (default 1000)")
    parser.add_argument("--users", type=int, default=24, help="users (default 24)")
    parser.add_argument("--intents", type=int, default=1000, help="at most so many intents (default: all)")
    parser.add_argument("--wordings", type=int, default=8, help="at most so many wordings of each (default 8)")
    parser.add_argument("--popular", type=int, default=100, help="popular questions that are warmed (default 100)")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn (default 1)")
    parser.add_argument("--server", default="valkey", help="valkey (default), redis, or a Redis address")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--write", action="store_true", help="put the table into docs/warming.md")
    given = parser.parse_args()
    sizes = {name: getattr(given, name) for name in ("visits", "users", "intents", "wordings", "seed")}
    traffic = read_traffic(given.data, **sizes)
    if traffic is None:
        print(f"nothing measured: no question sets in {given.data}", file=sys.stderr)
        return
    embedder = RememberedVectors(real_embedder("minilm"), Path(tempfile.gettempdir(), "afw-bench-no-vectors"))
    with private_server(given.server) as server:
        url = server.urls.get("unix socket") or next(iter(server.urls.values()))
        arms = asyncio.run(measure(traffic, url, embedder, given.popular))
        name = server.name
    embedder.close()
    if given.json:
        print(json.dumps([_plain(arm) for arm in arms], indent=2))
        return
    warmed_of = f"{given.popular} popular questions warmed, {WARMED_FOLLOW_UPS} follow-ups of each"
    own = sum(personal(visit.text) for visit in traffic.days[0]) / given.visits
    made = (
        f"{given.visits:,} visits a day of {given.users} users, {arms[0].first.asked:,} questions on the first; "
        f"{traffic.intents} intents of {len(traffic.labels)} flows in {traffic.wordings} wordings, {own:.0%} of the "
        f"visits in words about oneself; {warmed_of}; seed {given.seed}. {circumstances(name)}"
    )
    found, warmed = candidates_table(arms), warming_table(arms)
    print(found, "", warmed, "", made, sep="\n")
    if given.write:
        write_part("team-day", f"{warmed}\n\n{made}", DOCS / "warming.md")


def _plain(arm: Arm) -> object:
    days = {name: {**msgspec.structs.asdict(getattr(arm, name)), "keys": 0} for name in ("first", "cold", "warm")}
    for day in days.values():
        del day["keys"]
    ratios = {"precision": arm.found.precision, "recall": arm.found.recall}
    return {**msgspec.structs.asdict(arm), **days, "found": {**msgspec.structs.asdict(arm.found), **ratios}}


if __name__ == "__main__":
    sys.exit(main())
