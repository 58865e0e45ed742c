"""bm25s as it comes, in an environment of its own: groups of texts and questions in, rankings out, as JSON."""

from __future__ import annotations

import json
import sys

import bm25s

_COUNT = 100


def main() -> None:
    """Answer all groups on stdin."""
    answered = []
    for group in json.load(sys.stdin):
        model = bm25s.BM25()
        model.index(bm25s.tokenize(group["corpus"], show_progress=False), show_progress=False)
        words = bm25s.tokenize(group["queries"], show_progress=False, return_ids=False)
        count = min(_COUNT, len(group["corpus"]))
        rows, scores = model.retrieve(words, k=count, show_progress=False)
        answered.append(
            [
                [int(row) for row, score in zip(*ranking, strict=True) if score > 0]
                for ranking in zip(rows, scores, strict=True)
            ]
        )
    json.dump(answered, sys.stdout)


main()
