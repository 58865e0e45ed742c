"""What others find in the same turns: plain FTS5, bm25s, the cosine of MiniLM, and both kinds put together by rank.

Invariant: each is used as it comes. FTS5 cuts and ranks by its defaults, and is asked for any of the words, since its
own default (all of them) finds next to nothing; bm25s has its own stop list and method; MiniLM compares a question with
a turn's question; ranks are put together by 1 / (60 + rank). Within one conversation each has an index of that
conversation alone.
"""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import bench_venv
from history.measures import Row, Turn, score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentic_flywheel.search.protocols import Embedder
    from history.sets import HistorySet, Probe, Remembered

BM25S = ["bm25s==0.3.16", "numpy==2.4.6"]
_COUNT = 100
_RRF = 60
_WORD = re.compile(r"\w+")

Texts = Callable[["Remembered"], str]
#: A group: turns that are searched together, and the questions that are asked of them.
Group = tuple[list[Turn], list[int]]


def run_rivals(history: HistorySet, scope: str, embedder: Embedder, *, bm25s: bool) -> list[Row]:
    """Every rival on one set, in one scope."""
    groups = _groups(history, scope)
    answered = any(turn.answer for turns in history.sessions.values() for turn in turns)
    whole: list[tuple[str, Texts]] = [(", question and answer" if answered else "", _whole)]
    kinds = [*whole, (", questions", lambda turn: turn.question)] if answered else whole
    rows, fts = [], []
    for suffix, text in kinds:
        fts = _fts5(history, groups, text)
        rows.append(_row(f"SQLite FTS5{suffix}", history, fts))
    if bm25s:
        for suffix, text in kinds:
            found = _bm25s(history, groups, text)
            rows += [_row(f"bm25s{suffix}", history, found)] if found else []
    near = _cosine(history, groups, embedder)
    both = [_by_rank(one, other) for one, other in zip(fts, near, strict=True)]
    suffix = ", questions" if answered else ""
    return [*rows, _row("cosine of MiniLM", history, near), _row(f"FTS5{suffix} and MiniLM, by rank", history, both)]


def _groups(history: HistorySet, scope: str) -> list[Group]:
    by_session = {name: [(name, place) for place in range(len(turns))] for name, turns in history.sessions.items()}
    if scope != "conversation":
        return [([turn for turns in by_session.values() for turn in turns], list(range(len(history.probes))))]
    asked = defaultdict(list)
    for number, probe in enumerate(history.probes):
        asked[probe.session].append(number)
    return [(by_session[name], numbers) for name, numbers in asked.items()]


def _row(name: str, history: HistorySet, found: Sequence[Sequence[Turn]]) -> Row:
    return Row(name, [score(turns, _evidence(probe)) for turns, probe in zip(found, history.probes, strict=True)])


def _evidence(probe: Probe) -> frozenset[Turn]:
    return frozenset((probe.session, place) for place in probe.evidence)


def _whole(turn: Remembered) -> str:
    return f"{turn.question}\n{turn.answer}".strip()


def _text_of(history: HistorySet, turn: Turn, text: Texts) -> str:
    return text(history.sessions[turn[0]][turn[1]])


def _fts5(history: HistorySet, groups: list[Group], text: Texts) -> list[list[Turn]]:
    found: list[list[Turn]] = [[]] * len(history.probes)
    for turns, asked in groups:
        connection = sqlite3.connect(":memory:")
        connection.execute("CREATE VIRTUAL TABLE t USING fts5 (text)")
        rows = [(number, _text_of(history, turn, text)) for number, turn in enumerate(turns)]
        connection.executemany("INSERT INTO t (rowid, text) VALUES (?, ?)", rows)
        for number in asked:
            any_of = " OR ".join(f'"{word}"' for word in _WORD.findall(history.probes[number].text))
            sql = "SELECT rowid FROM t WHERE t MATCH ? ORDER BY rank LIMIT ?"
            found[number] = [turns[row] for (row,) in connection.execute(sql, (any_of, _COUNT))]
        connection.close()
    return found


def _bm25s(history: HistorySet, groups: list[Group], text: Texts) -> list[list[Turn]]:
    """In an environment of its own; nothing where it cannot be installed."""
    python = bench_venv.python_with("bm25s", BM25S)
    if python is None:
        print("  bm25s cannot be installed: its rows are left out", file=sys.stderr)
        return []
    asked = [
        {
            "corpus": [_text_of(history, turn, text) for turn in turns],
            "queries": [history.probes[number].text for number in numbers],
        }
        for turns, numbers in groups
    ]
    script = Path(__file__).with_name("bm25s_arm.py")
    done = subprocess.run([python, script], input=json.dumps(asked), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bm25s failed: {done.stderr[-2000:]}")
    found: list[list[Turn]] = [[]] * len(history.probes)
    for (turns, numbers), rankings in zip(groups, json.loads(done.stdout), strict=True):
        for number, ranking in zip(numbers, rankings, strict=True):
            found[number] = [turns[row] for row in ranking]
    return found


def _cosine(history: HistorySet, groups: list[Group], embedder: Embedder) -> list[list[Turn]]:
    found: list[list[Turn]] = [[]] * len(history.probes)
    for turns, asked in groups:
        rows = _vectors(embedder, [_text_of(history, turn, lambda turn: turn.question) for turn in turns])
        near = rows @ _vectors(embedder, [history.probes[number].text for number in asked]).T
        for column, number in enumerate(asked):
            best = np.argsort(-near[:, column], kind="stable")[:_COUNT]
            found[number] = [turns[row] for row in best.tolist()]
    return found


def _vectors(embedder: Embedder, texts: Sequence[str]) -> NDArray[np.float32]:
    return np.stack([embedder.embed([text])[0] for text in texts])


def _by_rank(*rankings: Sequence[Turn]) -> list[Turn]:
    """Reciprocal rank fusion (Cormack and others, SIGIR 2009), k = 60."""
    scores: defaultdict[Turn, float] = defaultdict(float)
    for ranking in rankings:
        for rank, turn in enumerate(ranking, 1):
            scores[turn] += 1 / (_RRF + rank)
    return sorted(scores, key=lambda turn: -scores[turn])
