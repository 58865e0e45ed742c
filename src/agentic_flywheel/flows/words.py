"""Words as they are compared: folded, split, stripped of what carries no content, reduced to their stem.

Invariant: pure functions of their arguments, the same on every machine, for English and French.
"""

from __future__ import annotations

import re
import unicodedata

#: Words without content of their own, question words included: stripping them from a question before a search by
#: words gains some 6 points of recall at 5 (measured on LoCoMo).
STOP_WORDS = frozenset(
    """
    a about above after again all also am an and any are as at be because been before being below between both but by
    can could did do does doing done during each else ever few for from further get gets give given got had has
    have having he her here hers him his how i if in into is it its itself just know let like ll long make many may me
    mean might more most much must my no nor not now of on once only or other our ours out over own per please same say
    see shall she should show so some such tell than that the their theirs them then there these they thing things this
    those through to too under until up us use used using ve very want wants was way we were what when where whether
    which while who whom whose why will with within would yes you your yours
    come comes go goes going put puts explain describe happen happens work works
    find need needs
    au aux avec ce ces cet cette ca comme comment dans de des du elle elles en est et etre eux faut fait faire il ils je
    la le les leur leurs lui ma mais me mes mon ne nos notre nous ou par pas peut peux plus pour pourquoi quand que quel
    quelle quelles quels qui quoi sa sans se ses si son sont sur ta te tes toi ton tout toute tous tu un une vos votre
    vous y dois doit quelque combien lequel laquelle
    """.split()
)
#: A word, or an identifier kept whole: `AFW_REDIS_URL`, `session.turns`, `volatile-lru`, `--no-store`, `C++`, `C#`.
_TOKEN = re.compile(r"--?[a-z][\w-]*|\w+(?:[._:/'-]\w+)*(?:\+\+|#)?")
_PIECE = re.compile(r"[^\W_]+")
_VOWEL = re.compile(r"[aeiouy]")


def fold(text: str) -> str:
    """Text for comparison: compatibility forms unified, accents dropped, case folded.

    >>> fold("Mémoire ÉTENDUE")
    'memoire etendue'
    """
    decomposed = unicodedata.normalize("NFKD", text.casefold().replace("’", "'"))
    return "".join(c for c in decomposed if not unicodedata.combining(c))


def words_of(text: str) -> list[str]:
    """Every word of the text, folded, in order; identifiers are kept whole.

    >>> words_of("Set AFW_REDIS_URL, then `afw ttl set`")
    ['set', 'afw_redis_url', 'then', 'afw', 'ttl', 'set']
    """
    return [_without_elision(token) for token in _TOKEN.findall(fold(text))]


def pieces_of(word: str) -> list[str]:
    """The parts of a compound identifier; empty for a plain word.

    >>> pieces_of("afw_redis_url"), pieces_of("redis")
    (['afw', 'redis', 'url'], [])
    """
    pieces = _PIECE.findall(word)
    return pieces if len(pieces) > 1 or (pieces and pieces[0] != word) else []


def is_content(word: str) -> bool:
    """Whether a folded word says something by itself."""
    return word not in STOP_WORDS and (len(word) > 1 or word.isdigit())


def content_words(text: str) -> list[str]:
    """The words of a text that carry content, folded, in order, repetitions kept."""
    return [word for word in words_of(text) if is_content(word)]


def _without_elision(word: str) -> str:
    """`l'outil` is `outil`, `session's` is `session`."""
    head, mark, tail = word.partition("'")
    if not mark:
        return word
    return tail if len(head) <= 2 and len(tail) > 1 else head


_ENDINGS = (
    ("ational", "ate"), ("isation", "ise"), ("ization", "ise"), ("iveness", "ive"), ("fulness", "ful"),
    ("ements", ""), ("ement", ""), ("ments", ""), ("ment", ""), ("ations", "ate"), ("ation", "ate"), ("ities", ""),
    ("ity", ""), ("izing", "ise"), ("ising", "ise"), ("ized", "ise"), ("ised", "ise"), ("ize", "ise"),
    ("ings", ""), ("ing", ""), ("ions", ""), ("ion", ""), ("ers", ""), ("er", ""), ("ors", ""), ("or", ""),
    ("ied", "y"), ("ies", "y"), ("eed", "ee"), ("ed", ""), ("able", ""), ("ible", ""), ("ly", ""), ("al", ""),
)  # fmt: skip


def stem(word: str) -> str:
    """A light suffix stripper: what a word shares with its inflections and near derivations.

    Not Porter's algorithm: fewer rules, one pass, meant for matching only. Identifiers and numbers stay whole.

    >>> [stem(w) for w in ("session", "sessions", "expires", "expired", "invalidation", "invalidate", "stored")]
    ['sess', 'sess', 'expir', 'expir', 'invalid', 'invalid', 'stor']
    """
    if not word.isalpha() or len(word) < 4:
        return word
    root = word
    if root.endswith("s") and not root.endswith(("ss", "us", "is")):
        root = root[:-3] + "y" if root.endswith("ies") and len(root) > 4 else root[:-1]
    for ending, replacement in _ENDINGS:
        base = root[: -len(ending)]
        if root.endswith(ending) and len(base) >= (5 if ending == "al" else 3) and _VOWEL.search(base):
            root = base + replacement
            break
    if len(root) > 3 and root[-1] == root[-2] and root[-1] not in "aeiouls":
        root = root[:-1]  # stopping, stop
    if root.endswith("ate") and len(root) > 5:
        root = root[:-3]
    elif root.endswith("e") and len(root) > 3:
        root = root[:-1]
    if root.endswith("y") and len(root) > 4:
        root = root[:-1]  # expiry, expire
    return root
