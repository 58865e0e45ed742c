"""A question cut into words, numbers, code and symbols, in linear time.

Invariant: typographic variants of one character are one; only the first `READ_CHARACTERS` are cut.
"""

from __future__ import annotations

import re
import unicodedata

import msgspec

from agentic_flywheel.policy.similarity.language import fold
from agentic_flywheel.policy.similarity.numbers import DIGITS

#: Sentence embedders read 256 word pieces, some thousand characters; what comes after has not been compared by anybody.
READ_CHARACTERS = 2000

_TYPOGRAPHY = str.maketrans(
    {
        "’": "'", "‘": "'", "ʼ": "'", "´": "'", "“": '"', "”": '"', "«": '"', "»": '"', "–": "-", "—": "-", "−": "-",
        "‐": "-", "‑": "-", "×": "*", "÷": "/", "≤": "<=", "≥": ">=", "≠": "!=", "→": "->", "⇒": "=>", "º": "°",
        "²": "^2", "³": "^3", "½": " 1/2", "¼": " 1/4", "¾": " 3/4", "\u200b": "", "\ufeff": "", "\u00ad": "",
    }
)  # fmt: skip
_TOKEN = re.compile(
    r"(?P<code>`[^`\n]+`)"
    r"|(?P<whole>https?://[^\s?]+(?:\?[^\s?]+)?|www\.[^\s?]+"  # addresses
    r"|(?<![\w.+-])[\w.+-]++@[\w-]+(?:\.[\w-]+)+"  # mail
    r"|(?<![\w/<.)])~?(?:/[\w.-]*\w)+|(?<!\w)[A-Za-z]:\\\S+"  # paths
    r"|(?<![\w-])--[A-Za-z][\w-]*|(?<=\s)-[A-Za-z]{1,2}(?![\w-])"  # flags
    r"|(?<!\w)[^\W\d]\w*_\w+(?:\.\w+)*"  # snake_case
    r"|(?<![\w.])[^\W\d_][\w-]*+(?:\.[^\W\d_]\w+)+(?![\w.]))"  # files and dotted names
    r"|(?P<initials>(?<!\w)[^\W\d_](?:\.[^\W\d_])+(?!\w)\.?)"
    rf"|(?P<sign>(?:(?<=\s)|(?<=^)|(?<=[(=<>,]))[-+](?=\.?\d))?(?P<number>{DIGITS})"
    r"|(?P<word>[^\W\d_]+(?:'[^\W\d_]+)*(?:\+\+|\#(?!\w))?)"
    r"|(?P<symbol>[^\w\s])"
)
#: Symbols that say something. Brackets, quotes, commas, colons, hyphens between words and closing marks do not.
_MEANING = frozenset("+#$%<>=*/&|~^@€£°¥₹\\")
_CURRENCIES = frozenset("$€£¥₹")
_BARE_NOT = frozenset(
    "dont doesnt didnt cant wont isnt arent wasnt werent couldnt shouldnt wouldnt havent hasnt hadnt aint".split()
)
_ELIDED = frozenset({"l", "d", "qu", "j", "n", "s", "c", "m", "t", "jusqu", "lorsqu", "puisqu", "quoiqu"})
_STARTS = frozenset('.?!:;"([')


class Token(msgspec.Struct, frozen=True, gc=False):
    """One piece: `kind` is word, number, code, whole (an address, a path, an identifier) or symbol.

    `glued`: nothing stands between it and the piece before. `starts`: a sentence begins here, its capital is no sign.
    """

    kind: str
    surface: str
    folded: str
    glued: bool = False
    starts: bool = False
    unit: str = ""


def tokens_of(text: str) -> tuple[tuple[Token, ...], str]:
    """The pieces of a text, and the text that was cut (typography unified)."""
    text = text[:READ_CHARACTERS]
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_TYPOGRAPHY)).translate(_TYPOGRAPHY)
    found: list[Token] = []
    starts, end, currency = True, -1, ""
    for match in _TOKEN.finditer(text):
        kind, surface, glued = match.lastgroup or "", match[0], match.start() == end
        end = match.end()
        if kind == "word":
            _add_word(found, surface, glued, starts)
        elif kind == "number":
            sign, digits = match["sign"] or "", match["number"]
            value = ("-" if sign == "-" else "") + digits
            if sign == "-":
                found.append(Token("symbol", "-", "neg"))
            found.append(Token("number", value, digits, glued, unit=currency))
            currency = ""
        elif kind == "symbol":
            currency = _add_symbol(found, surface, text, match.start(), end)
            if surface in _STARTS and not (surface == ":" and text[end : end + 1] == ":"):
                starts = True
                continue
            if surface in "'*-_":
                continue
        elif kind == "initials":
            plain = surface.replace(".", "")
            found.append(Token("word", plain, fold(plain), glued, starts))
        elif kind == "code":
            found.append(Token("code", " ".join(surface[1:-1].split()), fold(surface[1:-1]), glued, starts))
        else:
            found.append(Token("whole", surface.rstrip(".,;:!"), fold(surface.rstrip(".,;:!")), glued, starts))
        starts = False
    return tuple(found), text


def _add_symbol(found: list[Token], symbol: str, text: str, start: int, end: int) -> str:  # noqa: PLR0912 - by symbol
    """Append it if it says something; a currency's sign is returned where a number follows that has it as unit."""
    before, after = text[start - 1 : start], text[end : end + 1]
    if symbol in _CURRENCIES:
        if text[end:].lstrip()[:1].isdigit() or text[end : end + 2].lstrip()[:1].isdigit():
            return symbol
        if found and found[-1].kind == "number" and not found[-1].unit:
            found[-1] = msgspec.structs.replace(found[-1], unit=symbol)
            return ""
    elif symbol in "%°" and found and found[-1].kind == "number" and not found[-1].unit:
        unit = symbol + (after.lower() if symbol == "°" and after.lower() in {"c", "f"} else "")
        found[-1] = msgspec.structs.replace(found[-1], unit=unit)
        return ""
    if symbol == "/" and (before.isalpha() or after.isalpha() or before.isspace()):
        return ""  # and/or, TCP/IP
    if symbol == "&" and before.isspace() and after.isspace():
        found.append(Token("word", "and", "and"))  # salt & pepper
        return ""
    left, right = text[:start].rstrip()[-1:], text[end:].lstrip()[:1]
    if symbol == "-":
        if not (left.isdigit() and right.isdigit()):
            return ""
    elif not (before.isalnum() or after.isalnum() or (left and right)):
        return ""  # a lone mark at either end
    elif symbol == "\\" and not (before.isalnum() and after.isalnum()):
        return ""
    elif symbol == "!":
        if not (after == "=" or before.isdigit()):
            return ""
    elif symbol not in _MEANING and unicodedata.category(symbol) != "Sm":
        return ""
    if found and found[-1].kind == "symbol" and before == found[-1].surface[-1]:
        found[-1] = Token("symbol", found[-1].surface + symbol, found[-1].surface + symbol)
    else:
        found.append(Token("symbol", symbol, symbol))
    return ""


def _add_word(found: list[Token], surface: str, glued: bool, starts: bool) -> None:
    """Contractions and elisions are taken apart: "don't" is "do not", "l'outil" "l outil", "session's" "session"."""
    folded = fold(surface)
    if "'" not in folded:
        if folded in _BARE_NOT:
            found.append(Token("word", surface[:-2], folded[:-2], glued, starts))
            found.append(Token("word", "not", "not"))
        elif folded == "cannot":
            found.append(Token("word", "can", "can", glued, starts))
            found.append(Token("word", "not", "not"))
        else:
            found.append(Token("word", surface, folded, glued, starts))
        return
    if folded == "aujourd'hui":
        found.append(Token("word", surface, folded, glued, starts))
        return
    if folded.endswith("n't"):
        base = {"ca": "can", "wo": "will", "sha": "shall"}.get(folded[:-3], folded[:-3])
        found.append(Token("word", base, base, glued, starts))
        found.append(Token("word", "not", "not"))
        return
    parts, folds = surface.split("'"), folded.split("'")
    if len(parts) != len(folds):
        parts = folds
    for index, (part, fold_) in enumerate(zip(parts, folds, strict=True)):
        last = index == len(parts) - 1
        if last and index and fold_ in {"s", "re", "ve", "ll", "d", "m", "t"}:
            continue
        if not last and fold_ in _ELIDED:
            found.append(Token("word", fold_, "ne" if fold_ == "n" else fold_, glued, starts))
        elif fold_:
            found.append(Token("word", part, fold_, glued and not index, starts and not index))
