"""Answers as they are compared with each other: their sentences, and what can be told without any vector.

Invariant: the work is bounded whatever an answer holds: at most `LONGEST` characters are read and at most `MOST` pieces
made; every piece fits into what an embedder reads at once. The order of two answers never matters.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from agentic_flywheel.policy.similarity.language import fold, language_of
from agentic_flywheel.policy.similarity.reading import Reading, read

#: Characters of an answer that are read; what stands behind them is compared by equality alone.
LONGEST = 50_000
#: Pieces that an answer is cut into, at most: each costs one embedding.
MOST = 64
#: Shortest and longest piece, in characters. 256 tokens, what all-MiniLM-L6-v2 reads, are about 1,000 characters.
SHORTEST_PIECE = 24
LONGEST_PIECE = 900
#: Share of the other words of content that two sentences must have in common for opposed words, a negation or another
#: name to be a plain contradiction (docs/comparer.md: below, paraphrases begin to look like contradictions).
PLAIN = 0.9

_LINK = re.compile(r"!?\[([^\[\]]{0,300})\]\([^()\s]{0,1000}\)")
#: What only looks, at the beginning of a line: headings, bullets, numbers of list items, quotation bars.
_LEAD = re.compile(r"(?:#{1,6} |> ?|[-*+•] |\(?\d{1,3}[.)] )+")
_RULES = frozenset("-*_=|: ")
_EMPHASIS = re.compile(r"\*\*|__|(?<![\w*])\*(?=\S)|(?<=\S)\*(?![\w*])|`")
_END = re.compile(r"(?:(?<=[.!?…])|(?<=[.!?…][\"')\]»]))\s(?=[\"'(\[«]?[^\W_a-z])|\n+")
_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")

#: Openings of answers that give none, English and French; folded, behind an apology. A longer answer may begin so and
#: go on to answer: only a short one is a refusal as a whole.
_REFUSALS = re.compile(
    r"(?:(?:i(?:'m| am) )?(?:so |very |really )?sorry|apologies|my apologies|i apologi[sz]e|unfortunately|hmm?"
    r"|(?:je suis |nous sommes )?desolee?s?|malheureusement|toutes mes excuses|pardon)?[\s,.:;!—–-]*(?:but |mais )?"
    r"(?:(?:as an ai[\w ]{0,40}|en tant qu[\w' ]{0,40}),? )?"
    r"(?:i (?:do not|don't|really don't|did not|didn't) (?:know|find|understand"
    r"|have (?:any |enough |that |the |this |access|specific))"
    r"|i(?:'m| am) (?:not sure|unable|not able|not aware)"
    r"|i (?:can ?not|can't|could not|couldn't|am unable to) (?:help|answer|assist|find|provide|say|tell)"
    r"|i have no (?:information|idea|data|answer)"
    r"|(?:there (?:is|was)|we have) no (?:information|answer|result|data)|no (?:information|answer|results?|data)"
    r" (?:(?:is|are|was|were) )?(?:found|available)|nothing (?:was )?found|the (?:documents?|context|text|sources?)"
    r" (?:do(?:es)? not|don't|doesn't) (?:contain|mention|say|provide)"
    r"|(?:je|nous|on) (?:ne |n')(?:sais|savons|sait|peux|pouvons|peut|suis|sommes|dispose|disposons|ai|avons|trouve"
    r"|comprends)"
    r"|(?:je suis|nous sommes) (?:incapable|dans l'incapacite)|aucune? (?:information|reponse|resultat|donnee)"
    r"|il n'y a (?:pas|aucune?)|les? documents? ne (?:contien|mentionn|di))"
)
_REFUSAL_WORDS = 45
_AFFIRMS = frozenset("yes yeah yep yup oui correct indeed absolutely certainly exactement effectivement".split())
_DENIES = frozenset("no nope nah non incorrect never jamais".split())


def plain(answer: str) -> str:
    """What an answer says, without what only looks: Markdown's marks, addresses of links, numbers of list items.

    >>> plain("**Yes**: see [the manual](http://example.org/a).\\n\\n1. Open it\\n2. Read it")
    'Yes: see the manual.\\nOpen it\\nRead it'
    """
    text = unicodedata.normalize("NFC", answer[:LONGEST])
    lines = []
    for written in text.splitlines():
        line = " ".join(written.split())
        if not line.startswith(("```", "~~~")) and not (len(line) > 2 and _RULES.issuperset(line)):
            lead = _LEAD.match(line)
            lines.append(_EMPHASIS.sub("", _LINK.sub(r"\1", line[lead.end() if lead else 0 :])).strip())
    return "\n".join(line for line in lines if line)


def pieces(text: str) -> tuple[str, ...]:
    """A plain text as sentences, in order, short ones joined and long ones cut; `MOST` of them at most.

    >>> pieces("Answers are kept for 7 days. Then they are asked anew.\\nOk.")
    ('Answers are kept for 7 days.', 'Then they are asked anew. Ok.')
    """
    sentences = [part for piece in _END.split(text) if (part := piece.strip())]
    size = max(SHORTEST_PIECE, len(text) * 2 // MOST)
    found: list[str] = []
    for sentence in sentences:
        for part in _cut(sentence):
            if found and len(found[-1]) + len(part) < LONGEST_PIECE and min(len(found[-1]), len(part)) < size:
                found[-1] = f"{found[-1]} {part}"
            else:
                found.append(part)
    return tuple(found[:MOST])


def _cut(sentence: str) -> list[str]:
    """A sentence in parts of at most `LONGEST_PIECE`, cut between words where it has any."""
    parts = []
    while len(sentence) > LONGEST_PIECE:
        at = sentence.rfind(" ", LONGEST_PIECE // 2, LONGEST_PIECE)
        at = at if at > 0 else LONGEST_PIECE
        parts.append(sentence[:at])
        sentence = sentence[at:].lstrip()
    return [*parts, sentence] if sentence else parts


def same_words(one: str, other: str) -> bool:
    """Whether two plain texts have the same words and symbols; white space, case and closing marks do not count."""
    return _bare(one) == _bare(other)


def _line(text: str) -> str:
    return _SPACE.sub(" ", fold(text)).strip()


def _bare(text: str) -> str:
    return _SPACE.sub(" ", text.casefold()).strip().rstrip(".!?… ")


def is_refusal(text: str) -> bool:
    """Whether a plain text is an answer that gives none ("I don't know"), in English or French.

    >>> [is_refusal(t) for t in ("Sorry, I don't know.", "Désolé, je ne sais pas.", "It is not known to fail.")]
    [True, True, False]
    """
    head = _line(text[:600])
    return _REFUSALS.match(head) is not None and len(_WORD.findall(text[:600])) <= _REFUSAL_WORDS


def polarity(text: str) -> bool | None:
    """Whether a plain text begins by saying yes (True) or no (False); None where it does neither.

    >>> polarity("Yes, it does."), polarity("Non, jamais."), polarity("No more than 5 users can log in.")
    (True, False, None)
    """
    found = _OPENING.match(_line(text[:80]))
    if found is None:
        return None
    return True if found[1] in _AFFIRMS else False if found[1] in _DENIES else None


_OPENING = re.compile(r"([a-z]+)\s*(?:[,.:;!—–-]|$)")
_OPENED = re.compile(r"^\W*\w+\W*")


class Contradiction(msgspec.Struct, gc=False, frozen=True):
    """What two sentences seem to contradict each other in. `plain`: they do; else their wording differs too much to
    say, as "it is not needed" and "it is optional" do."""

    evidence: str
    plain: bool


def opposed(one: Sequence[str], other: Sequence[str], aligned: Iterable[tuple[int, int]]) -> Contradiction | None:
    """The plainest contradiction between pieces of two answers that are about one thing; `aligned` are their indexes.

    >>> opposed(["You have 30 days."], ["You have 14 days."], [(0, 0)]).evidence
    'numbers: 30 / 14'
    """
    ours, theirs = polarity(one[0]) if one else None, polarity(other[0]) if other else None
    if None not in {ours, theirs} and ours != theirs:
        words = ["yes" if side else "no" for side in (ours, theirs)]
        return Contradiction(f"one begins with {words[0]}, the other with {words[1]}", plain=True)
    unsure = None
    for left, right in aligned:
        found = contradiction(one[left], other[right])
        if found is not None and found.plain:
            return found
        unsure = unsure or found
    return unsure


def contradiction(one: str, other: str) -> Contradiction | None:
    """What two sentences about one thing contradict each other in. It has two sides (numbers, opposed words, names):
    what only one of them mentions is none, but for a negation."""
    french = "fr" in {language_of(one), language_of(other)}
    # Past the memory for questions: sentences of answers are read once.
    left, right = read.__wrapped__(_unopened(one), french), read.__wrapped__(_unopened(other), french)
    ours, theirs = _values(left) - _values(right), _values(right) - _values(left)
    if ours and theirs:
        return Contradiction(_sides("numbers", sorted(ours.elements()), sorted(theirs.elements())), plain=True)
    for group in left.poles.keys() & right.poles.keys():
        pole, opposite = left.poles[group], right.poles[group]
        if pole.keys().isdisjoint(opposite.keys()):
            return _judged("opposites", [*pole.values()], [*opposite.values()], left, right)
    if len(left.negations) % 2 != len(right.negations) % 2:
        return _judged("negation", [*left.negations], [*right.negations], left, right)
    names, others = _names(left, right), _names(right, left)
    return _judged("names", names, others, left, right) if names and others else None


def _names(one: Reading, other: Reading) -> list[str]:
    """Names that only one has, in no spelling: "Suriname" is "Surinam"."""
    return [
        name
        for name in one.names
        if name not in other.words and not difflib.get_close_matches(name, other.words, n=1, cutoff=0.75)
    ]


def _unopened(text: str) -> str:
    """The text without the yes or no that it begins with: "No, it does not" denies once."""
    return text if polarity(text) is None else _OPENED.sub("", text, count=1)


def _values(reading: Reading) -> Counter[str]:
    """Its numbers without their units: "4" and "4 years" are no contradiction."""
    found: Counter[str] = Counter()
    for number, count in reading.numbers.items():
        found[number.split(" ", 1)[0].rstrip("º")] += count
    return found


def _judged(kind: str, ours: list[str], theirs: list[str], left: Reading, right: Reading) -> Contradiction:
    """A contradiction in these words; plain where nearly all other words of content are the same."""
    differ = {*ours, *theirs}
    words = [{stem for stem, word in side.content.items() if word not in differ} for side in (left, right)]
    longer = max(map(len, words))
    alike = len(words[0] & words[1]) / longer if longer else 1.0
    return Contradiction(_sides(kind, ours or ["none"], theirs or ["none"]), plain=alike >= PLAIN)


def _sides(kind: str, ours: Iterable[str], theirs: Iterable[str]) -> str:
    return f"{kind}: {' '.join(ours)[:60]} / {' '.join(theirs)[:60]}"
