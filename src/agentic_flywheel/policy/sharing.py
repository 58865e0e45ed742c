"""Who may share an answer, and whether a question needs its context.

Invariant: an answer is offered to others only if it was computed without earlier turns, or with turns identical to
theirs. Words can only narrow this, never widen it: 22 % of real follow-ups carry no marker at all, so no rule on
words could be trusted to say that a question stands alone (measured on CAsT 2019-22 and CANARD; docs/sharing.md).
"""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum
from functools import lru_cache

from agentic_flywheel.model import Directives, Sharing


class Scope(StrEnum):
    """Where an answer is kept: with the whole team, one user, or one session."""

    TEAM = "team"
    USER = "user"
    SESSION = "session"


_WORD = re.compile(r"[^\W_]+(?:[’'][^\W_]+)*|[^\s\w]")

# Words that point at something said before. English and French; folded (no accents), lower case.
_POINTING = frozenset(
    "it its itself he him his she her hers they them their theirs this that these those there here then one ones such "
    "former latter same other others another else again also too instead more less further next previous above below "
    "il ils elle elles lui leur leurs eux ce cet cette ces cela ca celui celle ceux celles y en dont "
    "autre autres meme memes aussi encore plutot davantage precedent suivant".split()
)
# Words that point at the asker: the answer may be about this person.
_PERSONAL = frozenset("my mine our ours mon ma mes notre nos mien mienne miens miennes notres".split())
# Finds any of them quickly in most questions' way of writing; only what it finds is looked at word by word.
_PERSONAL_SEEN = re.compile(r"\b(?:my|mine|our|mon|ma|mes|nos|notre|mien)", re.IGNORECASE)
# Openings that hang a question on the one before.
_LEAD_IN = re.compile(
    r"^(?:and|but|or|so|ok(?:ay)?|yes|no|then|what about|how about|why(?: not)?\W*$|how so|how come\W*$|what if not|"
    r"et|mais|ou|donc|oui|non|alors|qu en est il|pourquoi(?: pas)?\W*$|comment ca)\b"
)
# Ways to ask in which such words point at nothing.
_FORMULA = re.compile(
    r"\b(?:est ce|y a t il|il y a|faut il|peut il|en|(?:is|are|was|were) there|there (?:is|are)|"
    r"is it (?:possible|true|ok|safe|better|necessary|recommended|free))\b"
)
_STOP = frozenset(
    "a an the of to in on at by for from with without about into over under as and or but if than so not no nor "
    "is are was were be been being am do does did done have has had can could will would shall should may might must "
    "what which who whom whose when where why how i you we me us your tell give show please explain describe list "
    "le la les un une des du de d l au aux a et ou mais si que qui quoi quel quelle quels quelles quand comment "
    "pourquoi combien est sont etait etre avoir ai as avons avez ont fait faire peut peux peuvent dois doit faut "
    "je tu nous vous me te se s qu c j m t n ne pas dans sur sous par pour avec sans chez vers entre mon ma mes".split()
)


def is_light(word: str) -> bool:
    """Whether a folded word says nothing of what a question is about: function words, words that point."""
    return word in _STOP or word in _POINTING or word in _PERSONAL


def _words(text: str) -> list[str]:
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return [w for token in _WORD.findall(plain.replace("’", "'")) for w in token.split("'") if w[:1].isalnum()]


def marker(question: str) -> str:
    """The word or reason for which a question may lean on earlier turns or on who asks, "" where there is none.

    >>> marker("What about mobile?"), marker("How does it scale?"), marker("How do I enable Redis persistence?")
    ('what about', 'it', '')
    """
    words = _words(question)
    plain = " ".join(words)
    if lead := _LEAD_IN.match(plain):
        return lead.group(0).strip()
    for word in words:
        if word in _POINTING or word in _PERSONAL:
            return word
    if len({w for w in words if w not in _STOP}) < 3:
        return "fewer than three content words"
    return ""


def leaning(question: str) -> str:
    """What ties a question to an earlier one, so that it should not be asked without it; "" where nothing does.

    >>> leaning("What about mobile?"), leaning("In that setup?"), leaning("Please explain"), leaning("What is Redis?")
    ('what about', 'that', 'no content word', '')
    """
    words = _words(question)
    plain = " ".join(words)
    if lead := _LEAD_IN.match(plain):
        return lead.group(0).strip()
    if tie := next((word for word in _FORMULA.sub("", plain).split() if word in _POINTING), ""):
        return tie
    return "" if any(word not in _STOP for word in words) else "no content word"


def personal(question: str) -> bool:
    """Whether the question speaks of what belongs to the asker ("my", "our", "notre")."""
    if question.isascii() and _PERSONAL_SEEN.search(question) is None:
        return False
    return _speaks_of_the_asker(question)


@lru_cache(maxsize=256)  # a session's turns are looked at with each of its questions
def _speaks_of_the_asker(question: str) -> bool:
    return any(word in _PERSONAL for word in _words(question))


def scope_of(
    sharing: Sharing, directives: Directives, *, question: str, user: str, sensitive: bool = False
) -> Scope | None:
    """Where the answer to a question is kept and looked for; None where the flow shares with nobody.

    A question about the asker's own things, or with personal data in it (`sensitive`), is narrowed to the user, and to
    the session where no user is known.
    """
    if sharing is Sharing.NONE:
        return None
    if directives.private or sharing is Sharing.SESSION:
        return Scope.SESSION
    if sharing is Sharing.USER or sensitive or personal(question):
        return Scope.USER if user else Scope.SESSION
    return Scope.TEAM


def may_stand_alone(question: str, *, allowed: bool) -> bool:
    """Whether a follow-up may be looked for without its context: the word-for-word exception.

    It holds only where the flow allows it and the words carry no marker; that the stored answer was the first of
    its session is checked against the entry itself.
    """
    return allowed and not marker(question)
