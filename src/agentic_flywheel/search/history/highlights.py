"""Where what was looked for stands in a text, and the part of an answer around it.

Invariant: offsets are into exactly the text that is returned, in order, never overlapping; a word is marked when its
stem was looked for, whatever its form, and a word of a phrase only where the phrase stands (or it is a term as well).
"""

from __future__ import annotations

from agentic_flywheel.findings import HistoryQuery
from agentic_flywheel.search.history.words import placed_stems_of

#: How much of an answer is shown, in characters.
EXCERPT = 280

Marks = tuple[tuple[int, int], ...]


def marks_of(text: str, query: HistoryQuery) -> Marks:
    """The places of the words looked for.

    >>> marks_of("Persisting with AOF", HistoryQuery(terms=("persist", "aof")))
    ((0, 10), (16, 19))
    """
    if not query.worded:
        return ()
    wanted = set(query.terms)
    words = placed_stems_of(text, None if query.phrases else wanted)
    chosen = {place for place, (_, _, cut) in enumerate(words) if cut in wanted}
    if query.phrases:
        stems = [cut for _, _, cut in words]
        for phrase in (phrase for variants in query.phrases for phrase in variants):
            for place in range(len(stems) - len(phrase) + 1):
                if tuple(stems[place : place + len(phrase)]) == phrase:
                    chosen.update(range(place, place + len(phrase)))
    marks: list[tuple[int, int]] = []
    for place in sorted(chosen):
        start, end, _ = words[place]
        if marks and start < marks[-1][1]:  # pairs of characters overlap
            marks[-1] = (marks[-1][0], end)
        else:
            marks.append((start, end))
    return tuple(marks)


def excerpt_of(answer: str, query: HistoryQuery) -> tuple[str, Marks]:
    """The part of an answer to show, and what is marked in it: from a little before the first word found on."""
    marks = marks_of(answer, query)
    start = 0
    if marks and marks[0][1] > EXCERPT - 40:
        space = answer.find(" ", max(0, marks[0][0] - 80))
        start = space + 1 if 0 <= space < marks[0][0] else marks[0][0]
    end = len(answer)
    if end - start > EXCERPT:
        cut = answer.rfind(" ", start + EXCERPT // 2, start + EXCERPT)
        end = cut if cut > 0 else start + EXCERPT
    before, after = ("… " if start else ""), (" …" if end < len(answer) else "")
    shift = len(before) - start
    kept = tuple((a + shift, b + shift) for a, b in marks if a >= start and b <= end)
    return before + answer[start:end] + after, kept
