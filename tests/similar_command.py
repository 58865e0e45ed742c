"""`afw` with an embedder of its own, and evidence that opens the cut, as tests of similar questions run it."""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from afw_command import REGISTRY, Afw, Done
from agentic_flywheel import Flywheel
from agentic_flywheel.settings import load_settings

STORED = "How do I rotate the signing keys of the gateway?"
ALIKE = "How can I rotate the signing keys of the gateway?"
#: The embedder takes the two for the same; the guards do not.
ON, OFF = "How do I enable the debug log of the gateway?", "How do I disable the debug log of the gateway?"

_NOTIONS = {"enable": "switch", "disable": "switch"}
_PASSED_OVER = {"how", "do", "can", "i", "the", "of"}
_ROOM = 512
#: A command waits three seconds for its embedder, which a busy test machine may take to load the libraries it needs.
_ATTEMPTS = 10


def notions(texts: Sequence[str]) -> list[list[float]]:
    """An embedder: questions of the same notions have the same vector, whatever else stands in them."""
    rows = []
    for text in texts:
        row = [0.001] + [0.0] * _ROOM
        for word in text.casefold().strip("?").split():
            if word not in _PASSED_OVER:
                row[1 + zlib.crc32(_NOTIONS.get(word, word).encode()) % _ROOM] += 1.0
        rows.append(row)
    return rows


class SimilarAfw(Afw):
    """`afw` whose flow `echo` has learnt that questions that are very much alike have the same answer."""

    def __init__(self, home: Path, redis_url: str) -> None:
        super().__init__(home, redis_url)
        # `echo` is the last flow of the file.
        self.registry.write_text(f"{REGISTRY}    similar: {{floor: 0.9, max_error: 0.05}}\n")
        self.environ |= {
            "PYTHONPATH": os.pathsep.join([str(home), str(Path(__file__).parent)]),
            "AFW_EMBEDDER_MODEL": "python:similar_command:notions",
            "AFW_SIMILAR_PATIENCE_SECONDS": "20",  # a busy test machine is not an outage
            "AFW_SIMILAR_AUDIT_SHARE": "0",  # an audit would store an answer under the words that were asked
        }
        self.learn({"miss:any:99:right": 60})

    def learn(self, labels: dict[str, int]) -> None:
        """Add labels to what is known of `echo`; its cut follows."""

        async def record(flywheel: Flywheel) -> None:
            await flywheel.similar.status("echo")  # loads the embedder
            reporting = flywheel.similar._reporting
            await reporting._learning.record(flywheel.flows.show("echo"), flywheel._matching.fingerprint, labels)

        self.inside(record)

    def keep(self, question: str) -> dict[str, Any]:
        """Ask `echo` a question it has not heard, and see to it that others can be compared with it."""
        answer = self.json("ask", question, "--flow", "echo")
        for _ in range(_ATTEMPTS):
            shown = self.json("explain", question, "--flow", "echo")
            if question in {near["question"] for near in shown["similar"]}:
                return dict(answer)
            self.ok("ask", question, "--flow", "echo", "--no-cache")
        raise AssertionError(f"{question!r} is not among the questions that others are compared with")

    def alike(self, question: str, *options: str) -> Done:
        """Ask `echo` a question that is like a stored one; it must be answered from memory."""
        for _ in range(_ATTEMPTS):
            done = self.run("ask", question, "--flow", "echo", "--only-if-cached", *options)
            if done.code == 0:
                return done
        raise AssertionError(f"{question!r} is not answered from memory: {done}")

    def inside(self, work: Callable[[Flywheel], Awaitable[object]]) -> None:
        """Run `work` with a flywheel of this process, on what the command uses."""

        async def opened() -> None:
            settings = load_settings(environ=self.environ, directory=self.work)
            async with Flywheel.open(settings=settings, background=False) as flywheel:
                await work(flywheel)

        asyncio.run(opened())
