"""Texts cut into words, the same way for what is indexed and what is looked for.

Invariant: total and linear: any text, of any script, is cut without error; a stem holds letters and digits alone (no
space, no ASCII punctuation), so stems joined by spaces are a text that every tokenizer cuts in the same places, and
nothing that a user types can have a meaning of its own in a query. Stop words stay in what is indexed, so that phrases
are exact; they are only taken from what is looked for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence, Set
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple

from agentic_flywheel.search.history.stems import english, french, heads_of

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_TOKEN = re.compile(
    rf"[{_CJK}]+"
    rf"|(?:[^\W_{_CJK}][\u0300-\u036f]*)+(?:['’](?:[^\W_{_CJK}][\u0300-\u036f]*)+)*(?:\+\+|\#(?!\w))?"
    r"|[\u2600-\u27bf\U0001f300-\U0001faff]"  # a sign that people search for as they do for words
)
#: The same for texts of ASCII alone, which most are: twice as fast.
_ASCII_TOKEN = re.compile(r"[A-Za-z0-9]+(?:'[A-Za-z0-9]+)*(?:\+\+|\#(?!\w))?", re.ASCII)
#: What a token of ASCII may hold beside letters and digits.
_MORE_THAN_LETTERS = re.compile(r"['+#]")
_ELISION = re.compile(r"(?:[ldjmtscn]|qu|jusqu|lorsqu|puisqu|quoiqu)'(?=\w)")
_NOT_WORD = re.compile(r"[\W_]+")
#: Words without content, question words and the verbs that go with them included: stripping these alone gives 6 points
#: of recall at 5 (LoCoMo). Folded.
ENGLISH_STOPS = frozenset(
    """
    a about above after again against all also always am an and any anyone anything are aren't as ask asked asking at be
    because been before being below between both but by can can't cannot could couldn't did didn't do does doesn't doing
    don't down during each either else ever every few for from further get gets getting give given go goes going got had
    hadn't has hasn't have haven't having he her here hers herself him himself his how i if in into is isn't it its
    itself just know kind let like ll lot make many may me mean might mine more most much must my myself need no nor not
    now of off often on once one only or other our ours out over own per please re really s same say see shall she
    should shouldn't since so some someone something such t tell than that the their theirs them themselves then there
    these they thing things this those through to together too toward towards type under until up upon us use used uses
    using various ve very via want wants was wasn't way we were weren't what whatever when where whether which while who
    whom whose why will with within without won't would wouldn't yes yet you your yours yourself
    he'd he'll i'd i'll i'm i've she'd she'll they'd they'll they're they've we'd we'll we're we've who'd who'll you'd
    you'll you're you've
    """.split()
)
FRENCH_STOPS = frozenset(
    """
    a ai alors apres as au aucun aussi autre autres aux avant avec avez avoir avons ca car ce ceci cela celle celles
    celui ces cet cette ceux chaque chez combien comme comment d dans de depuis des deux dois doit donc dont du elle
    elles en encore entre es est et etait etant ete etes etre eu eux fait faire fais faut font il ils j je l la
    laquelle le lequel les lesquels leur leurs lui m ma mais me meme memes mes mien moi moins mon n ne ni nos notre
    nous on ont ou oui par parce pas pendant peu peut peuvent peux plus pour pourquoi puis qu quand que quel quelle
    quelles quelqu quels qui quoi s sa sans se sera ses si sien soi son sont sous suis sur ta te tes toi ton tous
    tout toute toutes tres tu un une va vais veut veux vers vos votre vous y
    """.split()
)
#: French stop words that are words of content in English: they do not tell that a text is French.
_EITHER = frozenset(
    "car chez comment dont est etre font main mien on pas plus pour sans si son sous sur ta tes ton vers".split()
)
_LEANINGS = dict.fromkeys(ENGLISH_STOPS - FRENCH_STOPS, -1) | dict.fromkeys(FRENCH_STOPS - ENGLISH_STOPS - _EITHER, 1)


class Word(NamedTuple):
    """A word where it stands in its text, folded."""

    start: int
    end: int
    folded: str


def fold(text: str) -> str:
    """One way of writing for many: compatibility forms, accents, case.

    >>> fold("Mémoire ÉTENDUE"), fold("C++")
    ('memoire etendue', 'c++')
    """
    lowered = text.casefold().replace("’", "'")
    if lowered.isascii():
        return lowered
    decomposed = unicodedata.normalize("NFKD", lowered)
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def words_of(text: str) -> Iterator[Word]:
    """Every word of a text, in order. Scripts without spaces give pairs of neighbouring characters.

    >>> [word.folded for word in words_of("L'hôte n'écrit pas: C++, AFW_REDIS_URL, 记忆系")]
    ['hote', 'ecrit', 'pas', 'cplusplus', 'afw', 'redis', 'url', '记忆', '忆系']
    """
    for match in _tokens_in(text).finditer(text):
        start, end = match.span()
        pieces = _pieces(match[0])
        if len(pieces) > 1:
            yield from (Word(start + at, start + at + 2, piece) for at, piece in enumerate(pieces))
        elif pieces:
            yield Word(start, end, pieces[0])


def _tokens_in(text: str) -> re.Pattern[str]:
    return _ASCII_TOKEN if text.isascii() else _TOKEN


@lru_cache(maxsize=65536)
def _pieces(token: str) -> tuple[str, ...]:
    """The words that a token stands for: one, none, or pairs of neighbouring characters."""
    if token.isascii() and token.isalnum():
        return (token.lower(),)
    if token[0] > "\u303f" and len(token) > 1 and unicodedata.category(token[0]) == "Lo":
        return tuple(token[at : at + 2] for at in range(len(token) - 1))
    folded = _plain(token) if token[0].isalnum() else token
    return (folded,) if folded else ()


def _plain(token: str) -> str:
    word = fold(token)
    if "'" in word:
        word = _ELISION.sub("", word, count=1).removesuffix("'s")
        if word not in ENGLISH_STOPS:
            word = word.replace("'", "")
    if word[-1:] in {"+", "#"}:
        word = word.replace("+", "plus").replace("#", "sharp")
    return word if word in ENGLISH_STOPS else _NOT_WORD.sub("", word)


def is_stop(folded: str, *, as_french: bool) -> bool:
    """Whether a word carries no content of its own; English ones stand in French questions as well."""
    return folded in ENGLISH_STOPS or (as_french and folded in FRENCH_STOPS)


def is_french(text: str) -> bool | None:
    """Whether a text is written in French rather than English; None where nothing tells."""
    return _is_french(text, _tokens_in(text).findall(text))


def _is_french(text: str, tokens: Sequence[str]) -> bool | None:
    if text.isascii() and "'" not in text:
        leaning = sum(map(_LEANINGS.get, map(str.lower, tokens), repeat(0)))
    else:
        leaning = sum(map(_leaning, tokens))
    return leaning > 0 if leaning else None


@lru_cache(maxsize=65536)
def _leaning(token: str) -> int:
    """Above 0: its words stand in French alone; below 0: in English alone."""
    return sum(_LEANINGS.get(piece, 0) for piece in _pieces(token))


@lru_cache(maxsize=65536)
def stem(folded: str, *, as_french: bool) -> str:
    """A folded word as it stands in an index."""
    cut = french(folded) if as_french else english(folded)
    return cut.replace("'", "")


def stems_of(text: str) -> str:
    """A text as indexes hold it: all its stems, joined by single spaces.

    >>> stems_of("How do I enable persistence?"), stems_of("Comment activer les données ?")
    ('how do i enabl persist', 'comm activ les donn')
    """
    tokens = _tokens_in(text).findall(text)
    as_french = bool(_is_french(text, tokens))
    return " ".join(cut for token in tokens for cut in _stems(token, as_french))


def placed_stems_of(text: str, wanted: Set[str] | None = None) -> list[tuple[int, int, str]]:
    """Start, end and stem of every word of a text, in order; only of those whose stem is `wanted`, where that is given.

    >>> placed_stems_of("Persisting: 记忆系")
    [(0, 10, 'persist'), (12, 14, '记忆'), (13, 15, '忆系')]
    >>> placed_stems_of("Persisting: 记忆系", {"忆系"})
    [(13, 15, '忆系')]
    """
    pattern = _tokens_in(text)
    if text.isascii():  # letters keep their places
        text = text.lower()
    tokens = pattern.findall(text)
    chosen = set(tokens)
    if wanted is not None:
        heads = heads_of(frozenset(wanted))
        if text.isascii() and not _MORE_THAN_LETTERS.search(text):
            near = [one for one in chosen if one.startswith(heads)]
        else:
            near = [one for one in chosen if one.lower().startswith(heads) or not (one.isascii() and one.isalnum())]
        as_french = bool(near and _is_french(text, tokens))
        chosen = {one for one in near if not wanted.isdisjoint(_stems(one, as_french))}
    else:
        as_french = bool(_is_french(text, tokens))
    placed: list[tuple[int, int, str]] = []
    for match in pattern.finditer(text) if chosen else ():
        if (token := match[0]) in chosen:
            start, stems = match.start(), _stems(token, as_french)
            if len(stems) == 1:
                placed.append((start, start + len(token), stems[0]))
            else:
                placed += [(start + at, start + at + 2, cut) for at, cut in enumerate(stems)]
    return placed if wanted is None else [one for one in placed if one[2] in wanted]


@lru_cache(maxsize=65536)
def _stems(token: str, as_french: bool) -> tuple[str, ...]:
    return tuple(stem(piece, as_french=as_french) for piece in _pieces(token))
