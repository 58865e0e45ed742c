"""A readable answer out of passages: bounded, and cut only where a reader would.

Invariant: what is quoted stands in the document, word for word; cuts fall between sentences, list items, table rows or
lines of code, and are marked; an open code block is closed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentic_flywheel.flows.passage_index import Found, terms_of

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[A-Z0-9`*\"'(\[])")
_ELLIPSIS = "…"
_MOST_PASSAGES = 3
#: Least score, against the best passage's, for a further passage: of the same section, and of another one.
_SAME_SECTION, _OTHER_SECTION = 0.45, 0.7
_LEAST_ROOM = 160


def compose(found: Sequence[Found], terms: set[str], limit: int) -> tuple[str, list[Found]]:
    """The answer's text in Markdown and the passages it was made of, the best one first."""
    chosen = _choose(found, limit)
    room = limit
    parts: list[str] = []
    used: list[Found] = []
    sections: list[tuple[tuple[str, tuple[str, ...]], list[Found]]] = []
    for item in chosen:
        place = (item.passage.file, item.passage.titles)
        for known, members in sections:
            if known == place:
                members.append(item)
                break
        else:
            sections.append((place, [item]))
    for (_, titles), members in sections:
        heading = f"**{' › '.join(titles[-2:])}**"
        room -= len(heading) + 2
        shares: dict[int, str] = {}
        for item in members:  # best first, so that what is cut is what matters least
            text = fit(item.passage.text, terms, max(room, _LEAST_ROOM if item is chosen[0] else 0))
            if text:
                shares[item.position] = text
                room -= len(text) + 2
        if shares:
            parts += [heading, *(shares[position] for position in sorted(shares))]
            used += [item for item in members if item.position in shares]
    return "\n\n".join(parts), used


def _choose(found: Sequence[Found], limit: int) -> list[Found]:
    best = found[0]
    chosen = [best]
    room = limit - len(best.passage.text)
    for item in found[1:]:
        same = (item.passage.file, item.passage.titles) == (best.passage.file, best.passage.titles)
        near = same and abs(item.position - best.position) <= 2
        least = _SAME_SECTION if near else _OTHER_SECTION
        if (
            len(chosen) < _MOST_PASSAGES
            and item.score >= least * best.score
            and room >= min(len(item.passage.text), 300)
        ):
            chosen.append(item)
            room -= len(item.passage.text)
    return chosen


def fit(text: str, terms: set[str], limit: int) -> str:
    """The text within `limit` characters: whole, or the parts of it that hold the question's words, with what leads in
    and what they lead to.

    >>> fit("One thing. Another thing is red. A third.", {"red"}, 28)
    'Another thing is red. …'
    >>> fit("A user needs rights:\\n\\n`+get +set`\\n\\nRights cost time.", {"right"}, 45)
    'A user needs rights:\\n\\n`+get +set`\\n\\n…'
    """
    if len(text) <= limit:
        return text
    if limit < 20:
        return ""
    blocks = _split_blocks(text)
    kept: list[str] = []
    room = limit - 4
    ranked = sorted(range(len(blocks)), key=lambda n: (-_worth(blocks[n], terms), n))
    # A block that ends with a colon is nothing without the next one.
    led = [n + 1 for n in ranked[:1] if n + 1 < len(blocks) and blocks[n].rstrip().endswith(":")]
    lead = [n - 1 for n in ranked[:1] if n > 0 and blocks[n - 1].rstrip().endswith(":")]
    taken: dict[int, str] = {}
    for number in [*ranked[:1], *led, *lead, *ranked[1:]]:
        if number in taken:
            continue
        block = blocks[number]
        share = block if len(block) <= room else _cut(block, terms, room) if not taken else ""
        if share:
            taken[number] = share
            room -= len(share) + 2
    previous = -1
    for number in sorted(taken):
        if previous >= 0 and number > previous + 1:
            kept.append(_ELLIPSIS)
        kept.append(taken[number])
        previous = number
    if kept and previous < len(blocks) - 1 and not kept[-1].endswith(_ELLIPSIS):
        kept.append(_ELLIPSIS)
    return "\n\n".join(kept)


def _split_blocks(text: str) -> list[str]:
    """The blocks of a passage; a code block with blank lines in it stays one."""
    blocks: list[str] = []
    inside = False
    for block in text.split("\n\n"):
        if inside:
            blocks[-1] += "\n\n" + block
        else:
            blocks.append(block)
        inside ^= len(re.findall(r"^\s*(?:```|~~~)", block, re.MULTILINE)) % 2 == 1
    return blocks


def _cut(block: str, terms: set[str], limit: int) -> str:
    lines = block.splitlines()
    first = lines[0].lstrip()
    if first.startswith("|"):
        return _rows(lines, min(2, len(lines)), terms, limit)
    if first.startswith(("```", "~~~")):
        fence = first[:3]
        kept = lines[:1]
        for line in lines[1:-1]:
            if sum(len(k) + 1 for k in kept) + len(line) + len(fence) + 4 > limit:
                break
            kept.append(line)
        return "\n".join([*kept, _ELLIPSIS, fence]) if len(kept) > 1 else ""
    if first.startswith(("- ", "* ", "+ ")) or re.match(r"\d+[.)] ", first):
        return _rows(_items(lines), 0, terms, limit)
    return _sentences(block, terms, limit)


def _items(lines: list[str]) -> list[str]:
    items: list[str] = []
    for line in lines:
        if items and (line.startswith("  ") or not line.strip()):
            items[-1] += "\n" + line
        else:
            items.append(line)
    return items


def _rows(rows: list[str], header: int, terms: set[str], limit: int) -> str:
    """The header and the rows (or list items) that hold most of the question, in their order."""
    room = limit - sum(len(row) + 1 for row in rows[:header]) - 2
    order = sorted(range(header, len(rows)), key=lambda n: (-_worth(rows[n], terms), n))
    least = 0.5 * _worth(rows[order[0]], terms) if order else 0.0
    useful = [n for n in order if _worth(rows[n], terms) >= least]
    kept: list[int] = []
    for number in useful:
        if len(rows[number]) + 1 <= room:
            kept.append(number)
            room -= len(rows[number]) + 1
    return "\n".join([*rows[:header], *(rows[number] for number in sorted(kept))]) if kept else ""


def _sentences(block: str, terms: set[str], limit: int) -> str:
    """A run of whole sentences that begins where the question's words do."""
    sentences = _SENTENCE_END.split(block)
    worths = [_worth(sentence, terms) for sentence in sentences]
    start = worths.index(max(worths))
    length = len(sentences[start])
    stop = start + 1
    if length > limit:
        words = sentences[start][: limit - 2].rpartition(" ")[0]
        return f"{words} {_ELLIPSIS}"
    while (
        start > 0 and length + len(sentences[start - 1]) + 1 <= limit - 2 and sum(map(len, sentences[:start])) < limit
    ):
        start -= 1
        length += len(sentences[start]) + 1
    while stop < len(sentences) and length + len(sentences[stop]) + 1 <= limit - 2:
        length += len(sentences[stop]) + 1
        stop += 1
    text = " ".join(sentences[start:stop])
    return text if stop == len(sentences) else f"{text} {_ELLIPSIS}"


def _worth(text: str, terms: set[str]) -> float:
    present = {term for term, _ in terms_of(text)}
    return float(len(present & terms))
