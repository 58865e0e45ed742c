"""A question as guards read it: words, numbers, names, code, symbols, negations, and the places of its content.

Invariant: a pure function of the text, linear in its length, the same on every machine. Only the first
`READ_CHARACTERS` are read; `guards` refuses longer questions unless they are the same.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import msgspec

from agentic_flywheel.policy.similarity.numbers import is_ordinal_ending, roman, spelled, unit_of, value_of
from agentic_flywheel.policy.similarity.tokens import Token, tokens_of
from agentic_flywheel.policy.similarity.words import is_common, word_of

_JOINED = {
    ("log", "in"): "login", ("log", "on"): "login", ("log", "out"): "logout", ("log", "off"): "logout",
    ("sign", "in"): "signin", ("sign", "up"): "signup", ("sign", "out"): "signout", ("set", "up"): "setup",
    ("turn", "on"): "turnon", ("turn", "off"): "turnoff", ("switch", "on"): "switchon", ("switch", "off"): "switchoff",
    ("check", "in"): "checkin", ("check", "out"): "checkout", ("opt", "in"): "optin", ("opt", "out"): "optout",
    ("pick", "up"): "pickup", ("drop", "off"): "dropoff", ("back", "up"): "backup", ("roll", "back"): "rollback",
    ("e", "mail"): "email", ("wi", "fi"): "wifi", ("zoom", "in"): "zoomin", ("zoom", "out"): "zoomout",
    ("mot", "passe"): "motdepasse", ("hors", "ligne"): "horsligne", ("web", "site"): "website",
    ("on", "line"): "online", ("off", "line"): "offline", ("bon", "marche"): "bonmarche", ("up", "load"): "upload",
    ("grand", "mere"): "grandmere", ("grand", "pere"): "grandpere", ("petit", "dejeuner"): "petitdejeuner",
    ("apres", "midi"): "aprem", ("front", "end"): "frontend", ("back", "end"): "backend", ("pass", "word"): "password",
    ("down", "load"): "download", ("user", "name"): "username", ("en", "ligne"): "enligne",
}  # fmt: skip
_JOIN_HEADS = frozenset(first for first, _ in _JOINED)
_NEGATIONS = frozenset(
    "not never no none nobody nothing nowhere neither without cannot pas jamais rien aucun aucune ni sans nul"
    " nulle".split()
)
_SCOPES = {
    "only": "only", "solely": "only", "exclusively": "only", "except": "except", "unless": "unless",
    "excluding": "except", "besides": "except", "seulement": "only", "uniquement": "only", "exclusivement": "only",
    "sauf": "except", "excepte": "except", "hormis": "except", "instead": "instead", "almost": "almost",
    "presque": "almost", "until": "until",
}  # fmt: skip
_WH = {
    "who": "who", "whom": "who", "whose": "who", "qui": "who", "when": "when", "quand": "when", "where": "where",
    "why": "why", "pourquoi": "why", "how": "how", "comment": "how", "combien": "amount", "what": "what",
    "which": "what", "quel": "what", "quelle": "what", "quels": "what", "quelles": "what", "quoi": "what",
}  # fmt: skip
#: Nouns and measures after a question word that say what is asked for: "what time" is when, "how many" an amount.
_WH_AFTER = {
    "time": "when", "year": "when", "date": "when", "day": "when", "heure": "when", "annee": "when", "place": "where",
    "country": "where", "city": "where", "pays": "where", "ville": "where", "endroit": "where", "reason": "why",
    "reasons": "why", "raison": "why", "raisons": "why", "cause": "why", "causes": "why", "way": "how", "ways": "how",
    "steps": "how", "process": "how", "procedure": "how", "facon": "how", "maniere": "how", "person": "who",
    "name": "who", "number": "amount", "price": "amount", "cost": "amount", "prix": "amount", "purpose": "why",
}  # fmt: skip
_HOW_AFTER = frozenset("many much long far old tall big often fast high deep soon large heavy wide".split())
_ROLES = frozenset(
    "from to into by with for against than over under as before after without de vers avec pour contre que par sans"
    " sous sur avant apres chez in on at using en dans du des d".split()
)
_BINDING = frozenset("of for in on at about with from by de du des d pour en sur dans avec au aux".split())
_COMPARING = frozenset(
    "difference differences differ different between compare comparison compared similarity similarities similar"
    " relation"
    " relationship vs versus both distance comparer comparaison rapport entre ressemblance commun".split()
)
_MODAL = {
    "can": "can", "could": "can", "should": "should", "must": "must", "may": "can", "puis": "can", "peut": "can",
    "dois": "should", "doit": "should", "faut": "should", "will": "will", "did": "did", "was": "did", "were": "did",
}  # fmt: skip
_ONE_ROLE = {"du": "de", "des": "de", "d": "de"}
_LINKS = frozenset({"and", "or", "vs", "versus", "et", "ou"})
_SKIPPED = frozenset("the a an my your his her its our their le la les l un une des du mon ma mes son sa ses".split())


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One question, read.

    `words` and `stems` are all of it, `content` stems with the word that each was, `sequence` the content in order
    (stems and "#number"), `gaps` what stands before each of them: "" (nothing), "of" (a preposition), "and" or "x"
    (anything else); `asks` what is asked for, `hints` the same by a noun
    ("what time"), `symmetric` whether things are compared; `roles` pairs of
    preposition and stem, `names` and `poles` as they are shown in evidence.
    """

    words: frozenset[str]
    stems: frozenset[str]
    content: dict[str, str]
    sequence: tuple[str, ...]
    gaps: tuple[str, ...]
    numbers: Counter[str]
    ones: int
    negations: tuple[str, ...]
    scopes: frozenset[str]
    poles: dict[int, dict[int, str]]
    names: dict[str, str]
    codes: frozenset[str]
    initials: str
    symbols: Counter[str]
    asks: frozenset[str]
    hints: frozenset[str]
    symmetric: bool
    roles: frozenset[tuple[str, str]]
    text: str


@lru_cache(maxsize=8192)
def read(text: str, french: bool) -> Reading:
    """Read a question by the rules of French or English inflection; the lists of both apply either way."""
    return _Reader(text, french).reading()


class _Reader:
    """Collects the sides of one reading while it walks over the tokens once."""

    def __init__(self, text: str, french: bool) -> None:
        self.french = french
        self.tokens, self.clean = tokens_of(text)
        self.cased = _carries_case(self.tokens)
        self.words: dict[str, None] = {}
        self.stems: dict[str, None] = {}
        self.content: dict[str, str] = {}
        self.sequence: list[str] = []
        self.gaps: list[str] = []
        self.gap = ""
        self.numbers: Counter[str] = Counter()
        self.ones = 0
        self.negations: list[str] = []
        self.scopes: set[str] = set()
        self.poles: dict[int, dict[int, str]] = {}
        self.names: dict[str, str] = {}
        self.codes: set[str] = set()
        self.initials: list[str] = []
        self.symbols: Counter[str] = Counter()
        self.asked: dict[str, None] = {}
        self.hints: set[str] = set()
        self.roles: set[tuple[str, str]] = set()
        self.role = ""

    def reading(self) -> Reading:
        """Walk and sum up."""
        tokens, at = self.tokens, 0
        plain = [token.folded if token.kind == "word" else "" for token in tokens]
        while at < len(tokens):
            token = tokens[at]
            if token.kind == "word":
                at += self._word(at, token, plain)
            elif token.kind == "number":
                at += self._number(at, token)
            elif token.kind == "symbol":
                self.symbols[token.folded] += 1
                at += 1
            else:
                self._code(token)
                at += 1
        return Reading(
            frozenset(self.words), frozenset(self.stems), self.content, tuple(self.sequence), tuple(self.gaps),
            self.numbers, self.ones, tuple(self.negations), frozenset(self.scopes), self.poles, self.names,
            frozenset(self.codes), "".join(self.initials), self.symbols, frozenset(self.asked), frozenset(self.hints),
            not _COMPARING.isdisjoint(self.words), frozenset(self.roles), self.clean,
        )  # fmt: skip

    def _word(self, at: int, token: Token, plain: list[str]) -> int:
        word, taken = token.folded, 1
        following = plain[at + 1] if at + 1 < len(plain) else ""
        if word in _JOIN_HEADS and following:
            joined = _JOINED.get((word, following))
            beyond = plain[at + 2] if at + 2 < len(plain) else ""
            if joined is None and following == "de":
                joined, taken = _JOINED.get((word, beyond)), 2
            if joined is not None:
                self._take(joined, token)
                self.words[word] = None
                return taken + 1
            taken = 1
        value, length = spelled(plain, at, self.french)
        if length and not (word == "second" and self._is_duration(plain, at)):
            return self._spelled(value, length, at, plain)
        numeral = roman(token.surface) if self.cased or len(token.surface) > 2 else ""
        if numeral:
            self._count(numeral, "")
            self.initials.append(word[0])
            return 1
        if word in {"a", "an"} and unit_of(following, glued=False):
            self.ones += 1
        self._note(word, at, plain)
        self._take(word, token)
        return 1

    @staticmethod
    def _is_duration(plain: list[str], at: int) -> bool:
        return at > 0 and plain[at - 1] in {"per", "par", "each", "every"}

    def _spelled(self, value: str, length: int, at: int, plain: list[str]) -> int:
        self.initials.append(plain[at][0])
        after = plain[at + length] if at + length < len(plain) else ""
        unit = unit_of(after, glued=False) if after and not value.endswith("º") else ""
        self.words.update(dict.fromkeys(plain[at : at + length]))
        self.stems.update(dict.fromkeys(plain[at : at + length]))
        if value == "~1":
            if not unit:
                self.ones += 1
                return length
            value = "1"
        self._count(value, unit)
        return length

    def _number(self, at: int, token: Token) -> int:
        value, unit, taken = value_of(token.folded), token.unit, 1
        following = self.tokens[at + 1] if at + 1 < len(self.tokens) else None
        if following is not None and following.kind == "word":
            word = following.folded
            if following.glued and is_ordinal_ending(word) and value.isdigit():
                value, taken = f"{value}º", 2
            elif following.glued and word == "k" and value != "401":
                value, taken = _times(value, 1000), 2
            elif (scale := _SCALES.get(word)) and not following.glued:
                value, taken = _times(value, scale), 2
            elif word in {"per", "pour"} and self._folded(at + 2) == "cent":
                unit, taken = "%", 3
            elif not unit and (unit := unit_of(word, glued=following.glued)) and following.glued:
                taken = 2
        if taken == 2 and not unit and value.isdigit():
            unit = unit_of(self._folded(at + 2), glued=False)
        self._count(value, unit)
        self.initials.append(value[0])
        return taken

    def _folded(self, at: int) -> str:
        return self.tokens[at].folded if at < len(self.tokens) else ""

    def _count(self, value: str, unit: str) -> None:
        self.numbers[f"{value} {unit}".rstrip()] += 1
        self._place(f"#{value}")
        if self.role:
            self.roles.add((self.role, f"#{value}"))

    def _note(self, word: str, at: int, plain: list[str]) -> None:  # noqa: PLR0912 - one walk over one word
        """Negations, scopes, question words, links: what function words say."""
        following = plain[at + 1] if at + 1 < len(plain) else ""
        before = plain[at - 1] if at else ""
        if word in _NEGATIONS:
            whole = before in {"or", "ou"} and word in {"not", "pas", "no"} and at + 1 >= len(plain) - 1
            rhetorical = word == "not" and before == "why" and at > 1 and plain[at - 2] == "or"
            if not whole and not rhetorical and not (word == "no" and not following):
                self.negations.append(word)
        elif word == "non" and before != "ou":
            self.negations.append(word)
        elif word == "ne" and not any(w in _NEGATIONS for w in plain[at + 1 : at + 7]):
            rest = plain[at + 1 : at + 9]
            if "que" in rest or "qu" in rest:
                self.scopes.add("only")
            else:
                self.negations.append("ne")
        if word in _SCOPES:
            self.scopes.add(_SCOPES[word])
        if at == 0 and word in _MODAL:
            self.asked[_MODAL[word]] = None
        if word in _WH and (word != "qui" or at == 0):
            self._asked(word, plain[at + 1 : at + 5])
        toward = self.french and word in {"a", "au", "aux"}
        if word in _LINKS:
            self.gap = "and"
        elif toward:
            self.gap = "x"
        elif word in _BINDING:
            self.gap = self.gap or "of"
        elif word not in _SKIPPED:
            self.gap = "x" if word_of(word, self.french).content is False else self.gap
        if toward or word in _ROLES:
            self.role = "a" if toward else _ONE_ROLE.get(word, word)
        elif word in _STOPPERS:
            self.role = ""

    def _asked(self, word: str, following: list[str]) -> None:
        kind = _WH[word]
        if word == "how" and following and following[0] in _HOW_AFTER:
            kind = "how long" if following[0] == "long" else "how " + following[0]
            kind = "amount" if following[0] in {"many", "much"} else kind
        elif kind == "what":
            self.hints.update(_WH_AFTER[w] for w in following if w in _WH_AFTER)
        self.asked[kind] = None

    def _take(self, word: str, token: Token) -> None:
        """A word as content, pole, name."""
        known = word_of(word, self.french)
        self.words[word] = None
        self.stems[known.stem] = None
        self.initials.append(word[0])
        self._pole(word)
        if token.kind == "word" and self._is_name(token, known.content):
            self.names[word] = token.surface
        if known.content:
            if not known.light:
                self.content.setdefault(known.stem, word)
                self._place(known.stem)
            if self.role:
                self.roles.add((self.role, known.stem))
                self.role = ""

    def _place(self, stem: str) -> None:
        self.sequence.append(stem)
        self.gaps.append(self.gap)
        self.gap = ""

    def _pole(self, word: str) -> None:
        for group, pole in word_of(word, self.french).poles:
            self.poles.setdefault(group, {})[pole] = word

    def _is_name(self, token: Token, content: bool) -> bool:
        surface = token.surface
        if word_of(token.folded, self.french).light:
            return False
        if len(surface) == 1 and surface.isascii():
            return self.cased and surface.isupper() and surface != "I" and not token.starts
        if not surface.isascii() and surface[0].isalpha() and ord(surface[0]) > 0x24F:
            return True
        if surface.islower() or surface == "I" or (not content and not surface[1:].isupper()):
            return False
        if surface[-1] in "+#":
            return True
        if not self.cased:
            return not self.french and not is_common(token.folded)
        if not surface[1:].islower() and len(surface) > 1:
            return True
        return not token.starts or (not self.french and not is_common(token.folded))

    def _code(self, token: Token) -> None:
        self.codes.add(token.surface if token.kind == "code" else token.folded)
        self._place(token.folded)
        self.stems[token.folded] = None
        self.words[token.folded] = None


_SCALES = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "millions": 10**6, "billion": 10**9, "billions": 10**9,
    "trillion": 10**12, "lakh": 10**5, "lakhs": 10**5, "crore": 10**7, "crores": 10**7, "mille": 1000,
    "milliard": 10**9, "milliards": 10**9, "mn": 10**6, "bn": 10**9,
}  # fmt: skip
#: Words that end the reach of a preposition before it met content.
_STOPPERS = frozenset("i you he she we they it is are was be do does did can could will would should je tu il".split())


def _times(value: str, factor: int) -> str:
    """The value multiplied, exactly: "2.5" and 1000 is "2500"."""
    whole, _, part = value.partition(".")
    if not whole.isdigit() or (part and not part.isdigit()):
        return f"{value}x{factor}"
    total = int(whole + part) * factor
    scale = 10 ** len(part)
    return str(total // scale) if total % scale == 0 else f"{total / scale:g}"


def _carries_case(tokens: tuple[Token, ...]) -> bool:
    """Whether capitals mean something: not in Title Case, not in ALL CAPS."""
    words = [token.surface for token in tokens if token.kind == "word" and len(token.surface) > 3 and not token.starts]
    letters = "".join(token.surface for token in tokens if token.kind == "word")
    if len(letters) > 12 and sum(map(str.isupper, letters)) > 0.6 * len(letters):
        return False
    return len(words) < 3 or sum(not word[0].islower() for word in words) <= 0.7 * len(words)
