"""What a conversation is called until somebody gives it a title: its first question that says something, made short.

Invariant: a pure function of what was asked; never longer than `LONGEST`, one line, without control characters. What
was asked in private gives no title: titles stand in lists of sessions.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from agentic_flywheel.model import Turn

#: Characters; a list of sessions shows a title on one line.
LONGEST = 80
#: A title is not cut before this, however long the next word is.
_SHORTEST = 40
#: So much of a question, and of a sentence of it, is looked at.
_READ = 2000
_READ_ON = 400

_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_MARKS = re.compile(r"^(?:#{1,6}\s+|[>*-]\s+)|\*\*|__|`")
_SENTENCES = re.compile(r"(?<=[.!?…])\s+|\n\s*\n")
#: Openings that say nothing of what is asked; taken off one after the other. English and French.
_OPENINGS = re.compile(
    r"""(?:
    (?:hi|hello|hey|hiya|greetings|good\ (?:morning|afternoon|evening)|dear|bonjour|bonsoir|salut|coucou)
        (?:\ (?:there|all|everyone|everybody|team|folks|guys|claude|chatgpt|assistant|bot|à\ tous|tout\ le\ monde))?\b
    |(?:many\ )?thanks(?:\ in\ advance)?\b|thank\ you\b|merci(?:\ d'avance)?\b
    |(?:please|kindly|ok(?:ay)?|so|well|um|uh|alors|donc|svp|stp)\b|s'il\ (?:te|vous)\ pla[iî]t\b
    |(?:can|could|would|will)\ (?:you|someone|anyone|somebody|anybody)\b(?:\ (?:please|kindly|possibly|maybe))?
        (?:\ (?:help\ (?:me|us)(?:\ (?:to|with|by))?|tell\ (?:me|us)|let\ (?:me|us)\ know)\b)?
    |i\ ?(?:would|'d|d)\ (?:like|love)\ (?:you\ )?to\ (?:know|ask|understand|learn)\b
    |i\ (?:want|need)\ to\ (?:know|ask|understand)\b
    |i\ (?:was|am)\ (?:just\ )?wondering\b|i'm\ (?:just\ )?wondering\b|i\ wonder\b|do\ you\ know\b|may\ i\ ask\b
    |(?:i\ (?:have|'ve\ got)\ )?(?:a|an|one|another|my|the)?\ ?(?:quick|small|short|simple|stupid|dumb)?\ ?question
        (?:\ (?:is|for\ you))?\ ?(?=:|,|-|–)
    |tell\ me\b|let\ me\ know\b|explain\ to\ me\b|help\ me\ (?:to\ )?(?=\w)
    |(?:peux|pourrais)-?\ ?tu\b|tu\ (?:peux|pourrais)\b|(?:pouvez|pourriez)-?\ ?vous\b|vous\ (?:pouvez|pourriez)\b
    |est-ce\ que\ (?:tu\ (?:peux|pourrais)|vous\ (?:pouvez|pourriez))\b
    |(?:me|nous|m'|n')\ ?(?:dire|expliquer|indiquer|aider\ à)\b
    |je\ (?:voudrais|veux|souhaite|souhaiterais|aimerais)\ (?:bien\ )?(?:savoir|comprendre|demander)\b
    |(?:j'ai\ )?une\ (?:petite\ )?question\ ?(?=:|,|-|–)|(?:dis|dites|explique|expliquez)-(?:moi|nous)\b
    )[\s,.!:;–-]*(?:(?:if|whether|si)\ )?""",
    re.IGNORECASE | re.VERBOSE,
)
#: Words without content of their own: a question of these alone gives a title only while there is no better one.
_LIGHT = frozenset(
    """
    a an and are be can do does for get go have hello help hey hi how i in is it me more my no not of ok okay on
    or please so test testing thank thanks that the there this to today up us was we well what when where which
    who why with yes you à au aide bonjour bonsoir ça ce coucou comment de des du en est et il je la le les me
    merci moi non on oui ou pour pourquoi qu que qui quoi salut si svp tu un une va vous
    """.split()
)


class Title(NamedTuple):
    """A title that follows from what was asked; `weak`: it says next to nothing, so that a better one may follow."""

    text: str
    weak: bool


class Titled(NamedTuple):
    """A session's title, and the turn that it comes from ("" where there is none)."""

    text: str
    turn: str
    weak: bool


@lru_cache(maxsize=1024)
def title_of(question: str) -> Title:
    """The title that a question gives.

    >>> title_of("Hi! Could you please tell me how I turn persistence off?").text
    'How I turn persistence off?'
    >>> title_of("hello"), title_of("Where are the logs?").weak
    (Title(text='hello', weak=True), False)
    """
    question = question[:_READ]
    told = _bare(_telling(_CODE.sub("\n", question)) or question)[:_READ_ON]
    bare = told
    while opening := _OPENINGS.match(bare):
        if not opening.end():
            break
        bare = bare[opening.end() :]
    weak = not _says_something(bare)
    if weak:
        bare = told
    elif bare != told and (first := bare.split(" ", 1)[0]).islower() and first.isalpha():
        bare = bare[0].upper() + bare[1:]
    return Title(_shortened(bare), weak)


def titled(turns: Iterable[Turn]) -> Titled:
    """The title that turns, in their order, give their session: that of the first one that says something."""
    best = Titled("", "", True)
    for turn in turns:
        if turn.private:
            continue
        title = title_of(turn.question)
        if title.text and (not best.text or not title.weak):
            best = Titled(title.text, turn.id, title.weak)
        if not best.weak:
            break
    return best


def _telling(text: str) -> str:
    """Of a text that is too long for a title, the first question that says something, else its first sentence."""
    sentences = [sentence for sentence in map(str.strip, _SENTENCES.split(text)) if sentence]
    if len(" ".join(sentences)) <= LONGEST:
        return " ".join(sentences)
    asking = (sentence for sentence in sentences if sentence.endswith("?") and _says_something(sentence))
    saying = (sentence for sentence in sentences if _says_something(sentence))
    return next(asking, None) or next(saying, None) or " ".join(sentences)


def _bare(text: str) -> str:
    return _SPACE.sub(" ", _MARKS.sub("", _SPACE.sub(" ", text).strip())).strip()


def _says_something(text: str) -> bool:
    words = re.findall(r"[^\W_]+", text.casefold())
    return any(word not in _LIGHT and (len(word) > 1 or not word.isascii()) for word in words)


def _shortened(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    kept = text[: LONGEST - 1]
    if text[LONGEST - 1] != " " and (space := kept.rfind(" ")) >= _SHORTEST:
        kept = kept[:space]
    # A combining mark belongs to the character before it.
    while unicodedata.combining(text[len(kept)]) and kept:
        kept = kept[:-1]
    return kept.rstrip(" ,;:-–") + "…"
