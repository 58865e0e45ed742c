"""The product on a question stream: a real Redis, the facade, a flow in Python that knows every question's answer.

Invariant: questions are asked one after another, and what goes on beside an answer (labels, audits) has ended before
the next one is asked, so a run can be repeated. A hit is judged by the text that the asker is given, alone.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from agentic_flywheel import Flywheel, Outcome
from agentic_flywheel.comparing import EmbeddingComparer, Said, Verdict, as_comparer
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.model import Sharing
from agentic_flywheel.search.embedding import embedder_of
from private_server import private_settings
from similar.counts import EXACT, EXACT_WRONG, MISS, SIMILAR, WRONG, Run
from similar.policies import STRICT, Ours
from similar.remembered import RememberedVectors, real_embedder
from similar.streams import Stream, answer_text

if TYPE_CHECKING:
    from agentic_flywheel.model import Answer

#: One person asks everything, of a flow whose answers are kept by person: a question about "my card" and one about "a
#: card" have the same neighbours then, as they do for the other rows.
_ASKER = "asker"


class Place(msgspec.Struct, frozen=True):
    """Where and with what the product runs: address of the Redis, name of the embedder, folder of kept vectors."""

    url: str
    embedder: str
    cache: Path
    seed: int


def run_ours(policy: Ours, stream: Stream, place: Place) -> Run:
    """One policy on one stream, in a tenant of its own."""
    return asyncio.run(_run(policy, stream, place))


async def _run(policy: Ours, stream: Stream, place: Place) -> Run:
    answers: dict[str, str] = {}

    async def answer(question: str) -> str:
        return answers[question]

    outcomes: list[str] = []
    mistakes: list[tuple[str, str, float]] = []
    start = perf_counter()
    opened = _Opened(policy, answer, place)
    async with opened as flywheel:
        for asked in stream.asked:
            text = answers[asked.text] = answer_text(asked.answer_class)
            given = await flywheel.ask(asked.text, flow="bench", user=_ASKER)
            await flywheel.settled()
            outcomes.append(_outcome(given, right=given.text == text))
            if outcomes[-1] == WRONG:
                mistakes.append((asked.text, given.matched_question, given.similarity or 0.0))
    return Run(
        policy=policy.name,
        outcomes="".join(outcomes),
        mistakes=mistakes,
        seconds=perf_counter() - start,
        compared=opened.comparer.compared,
        misjudged=opened.comparer.misjudged,
        unjudged=opened.comparer.unjudged,
    )


def run_traps(traps: Sequence[tuple[str, str]], place: Place) -> Run:
    """Pairs of questions that differ in one word and have different answers: the first is stored, the second asked.

    Each pair is alone with a configuration of its own, so that it meets no other.
    """
    return asyncio.run(_run_traps(traps, place))


async def _run_traps(traps: Sequence[tuple[str, str]], place: Place) -> Run:
    async def answer(question: str) -> str:
        return answer_text(question)

    outcomes: list[str] = []
    mistakes: list[tuple[str, str, float]] = []
    async with _Opened(STRICT, answer, place) as flywheel:
        for number, (stored, asked) in enumerate(traps):
            await flywheel.ask(stored, flow="bench", user=_ASKER, config={"trap": number})
            await flywheel.settled()
            given = await flywheel.ask(asked, flow="bench", user=_ASKER, config={"trap": number})
            await flywheel.settled()
            outcomes.append(_outcome(given, right=False))
            if outcomes[-1] == WRONG:
                mistakes.append((asked, given.matched_question, given.similarity or 0.0))
    return Run(policy=STRICT.name, outcomes="".join(outcomes), mistakes=mistakes)


class _Watched(EmbeddingComparer):
    """The product's own comparer; counts how often it judges otherwise than the labels: answers of one class are the
    same text."""

    compared = misjudged = unjudged = 0

    async def compare(self, one: Said, other: Said) -> Verdict:
        verdict = await super().compare(one, other)
        self.compared += 1
        self.unjudged += verdict.same is None
        self.misjudged += verdict.same is not None and verdict.same is not (one.answer == other.answer)
        return verdict


async def _perfect(one: Said, other: Said) -> bool:
    return one.answer == other.answer


class _Opened:
    """A flywheel in a tenant of its own, and the folder that it has to itself."""

    def __init__(self, policy: Ours, answer: Any, place: Place) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="afw-bench-")
        named: dict[str, object] = {
            "tenant": f"similar-{random.randrange(10**12)}",
            "similar.patience_seconds": 60.0,  # a machine under load must not turn hits into misses
            **policy.settings(),
        }
        settings = private_settings(place.url, self._folder.name, **named)
        registry = Registry(settings)
        registry.register("bench", answer, sharing=Sharing.USER)
        vectors = RememberedVectors(real_embedder(place.embedder), place.cache)
        self._embedding = embedder_of(settings, vectors)
        self.comparer = _Watched(self._embedding)
        self._flywheel = Flywheel.open(
            settings=settings,
            registry=registry,
            embedder=vectors,
            comparer=as_comparer(_perfect) if policy.perfect else self.comparer,
            draw=random.Random(place.seed).random,
        )

    async def __aenter__(self) -> Flywheel:
        flywheel = await self._flywheel.__aenter__()
        if not (await flywheel.similar.ready() and await self._embedding.ready(60)):
            raise SystemExit("the embedder does not work: afw doctor says why")
        return flywheel

    async def __aexit__(self, *error: Any) -> None:
        await self._flywheel.aclose()
        await self._embedding.aclose()
        self._folder.cleanup()


def _outcome(given: Answer, *, right: bool) -> str:
    if given.warnings:
        raise SystemExit(f"{given.question!r}: {'; '.join(given.warnings)}")
    match given.outcome:
        case Outcome.MISS:
            return MISS
        case Outcome.HIT:
            return EXACT if right else EXACT_WRONG
        case Outcome.SIMILAR:
            return SIMILAR if right else WRONG
        case other:
            raise SystemExit(f"{given.question!r} came to {other} ({given.reason}): the stream measures nothing")
