"""What looking for personal data costs: a question, and texts in which there is something and nothing to find.

    .venv/bin/python bench/bench_redaction.py

Processor time, the best of nine rounds. The texts are those of the tests' corpus, put together.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from agentic_flywheel.personal_data import ALL_KINDS
from agentic_flywheel.policy.redaction.finding import Redactor
from redaction_corpus import corpus

ROUNDS, LENGTH = 9, 2000
PROSE = (
    "Redis keeps what it holds in memory and writes it to disk in two ways. A snapshot is taken every 300 seconds if "
    "100 keys changed, and an append-only file records every write; on restart it is replayed, in 12 seconds for 4 GB. "
)


def microseconds(text: str) -> float:
    redactor, times = Redactor(ALL_KINDS), max(20, 40_000 // len(text))
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(times):
            redactor.find(text)
        best = min(best, (time.process_time() - began) / times)
    return best * 1e6


def main() -> None:
    lines = corpus()
    something = " ".join(line.text for line in lines if line.found)[:LENGTH]
    near = " ".join(line.text for line in lines if not line.found)[:LENGTH]
    texts = {
        "a question without digits (34 characters)": "How do I enable Redis persistence?",
        "a question with numbers in it (56 characters)": "What changed in version 7.2 of the 300 nodes since 2024?",
        "2,000 characters of prose, nothing in it": (PROSE * 10)[:LENGTH],
        "2,000 characters of near misses": near,
        "2,000 characters full of personal data": something,
    }
    for name, text in texts.items():
        print(f"{name}: {microseconds(text):.1f} µs, {len(Redactor(ALL_KINDS).find(text))} found")


if __name__ == "__main__":
    main()
