"""Numbers in questions: digits, number words, ordinals, Roman numerals, with their units, in one way of writing.

Invariant: two readings are equal only if the numbers are, unit for unit ("10 km" is not "10 miles", "3.10" not "3.1");
what is not surely the same value stays as it is written, since a difference only costs a hit.
"""

from __future__ import annotations

import re

#: A number as it stands in a text. Thousands are grouped by "," or a (thin, no-break) space in threes; a date, a
#: version or an address stays whole.
DIGITS = (
    r"\d{4}-\d{1,2}-\d{1,2}"
    r"|\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])"
    r"|(?<![\d.,] )(?<![\d.,])[1-9]\d{0,2}(?:[ \u00a0\u202f]\d{3})+(?:,\d+)?(?!\d)"
    r"|\d+(?:[.:]\d+)*(?:,\d+)?"
)
_GROUPED = re.compile(r"^\d{1,3}(?:[, \u00a0\u202f]\d{3})+(?:[.,]\d+)?$")

_ENGLISH = {
        "zero": 0, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten":
    10, "eleven": 11, "twelve": 12, "thirteen": 13,
        "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20,
    "thirty": 30, "forty": 40,
    "fourty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_FRENCH = {
        "deux": 2, "trois": 3, "quatre": 4, "cinq": 5, "sept": 7, "huit": 8, "neuf": 9, "dix": 10, "onze": 11,
    "douze": 12, "treize": 13, "quatorze": 14,
        "quinze": 15, "seize": 16, "vingt": 20, "vingts": 20, "trente": 30, "quarante": 40, "cinquante": 50,
    "soixante": 60, "septante": 70,
    "octante": 80, "huitante": 80, "nonante": 90,
}  # fmt: skip
#: French number words that are other words in English ("neuf" is also French for new, and is read as nine in both).
_FRENCH_ONLY = {"sept", "cent", "cents", "mille", "neuf", "tiers", "demi", "second", "seconde"}
_ONES = frozenset({"one", "un", "une"})
_MULTIPLIERS = {
    "hundred": 100, "hundreds": 100, "thousand": 1000, "thousands": 1000, "million": 10**6, "millions": 10**6,
    "billion": 10**9, "billions": 10**9, "trillion": 10**12, "lakh": 10**5, "lakhs": 10**5, "crore": 10**7,
    "crores": 10**7, "dozen": 12, "dozens": 12, "cent": 100, "cents": 100, "mille": 1000, "milliard": 10**9,
    "milliards": 10**9, "douzaine": 12, "vingtaine": 20, "dizaine": 10, "centaine": 100, "millier": 1000,
    "milliers": 1000,
}  # fmt: skip
_ORDINALS = {
        "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10, "eleventh": 11,
        "twelfth": 12, "thirteenth": 13, "fourteenth": 14, "fifteenth": 15, "sixteenth": 16, "seventeenth": 17,
    "eighteenth": 18,
    "nineteenth": 19, "twentieth": 20, "thirtieth": 30, "fortieth": 40, "fiftieth": 50, "hundredth": 100,
        "premier": 1, "premiere": 1, "premiers": 1, "premieres": 1, "deuxieme": 2, "seconde": 2, "troisieme": 3,
    "quatrieme": 4, "cinquieme": 5,
        "sixieme": 6, "septieme": 7, "huitieme": 8, "neuvieme": 9, "dixieme": 10, "onzieme": 11, "douzieme": 12,
    "quinzieme": 15, "vingtieme": 20,
    "centieme": 100,
}  # fmt: skip
_SHARES = {
    "half": "1/2", "halves": "1/2", "halve": "1/2", "moitie": "1/2", "demi": "1/2", "demie": "1/2", "double": "x2",
    "doubled": "x2", "doubles": "x2", "doubling": "x2", "twice": "x2", "doubler": "x2", "triple": "x3", "thrice": "x3",
    "tripled": "x3", "tripler": "x3", "quadruple": "x4", "quarter": "1/4", "quarters": "1/4", "tiers": "1/3",
    "thirds": "1/3",
}  # fmt: skip
_ORDINAL_ENDINGS = frozenset({"st", "nd", "rd", "th", "er", "ere", "eme", "e", "ieme", "nde"})
_UNITS = {
    alias: words.split("=")[0]
    for words in (
        "km=kilometer=kilometre=kms m=meter=metre cm=centimeter=centimetre=cms mm=millimeter=millimetre mi=mile"
        " ft=foot=feet in=inch=inches=pouce=pouces yd=yard kg=kilo=kilogram=kilogramme=kgs g=gram=gramme=gr"
        " mg=milligram=milligramme mcg=microgram=microgramme lb=pound=lbs oz=ounce=once l=liter=litre ml=milliliter"
        "=millilitre cl=centiliter=centilitre gal=gallon tonne=ton s=sec=secs=second=seconde min=mins=minute"
        " h=hr=hrs=hour=heure day=jour week=semaine month=mois year=yr=yrs=an=annee=ans ms=millisecond=milliseconde"
        " b=byte=octet=bytes kb=kilobyte=ko mb=megabyte=mo gb=gigabyte=go=gigs=gig tb=terabyte=to kib mib gib bit"
        " mbps gbps kbps hz=hertz khz mhz ghz w=watt kw kwh mw v=volt mah amp=ampere am=a.m pm=p.m px=pixel"
        " %=percent=pct=pourcent $=usd=dollar=bucks €=eur=euro £=gbp=sterling ¥=yen=jpy ₹=inr=rupee=rs=rupees"
        " °=degree=degre °c=celsius=c °f=fahrenheit=f kelvin=k mph kmh=kph fps rpm dpi ppm cal=calorie kcal"
        " time=fois"
    ).split()
    for alias in words.split("=")
}
#: Single letters after a number are units only where they are written onto it ("5m", not "5 m people").
_GLUED_ONLY = frozenset("bcfkvw") | {"to", "in", "an", "as", "am", "mo", "go"}
_ROMAN = re.compile(r"^(?=[IVX]{2,}$)X{0,3}(?:IX|IV|V?I{0,3})$")
_ROMAN_VALUES = {"I": 1, "V": 5, "X": 10}


def unit_of(word: str, *, glued: bool) -> str:
    """The unit that a folded word after a number stands for, "" if it is none."""
    if not glued and word in _GLUED_ONLY:
        return ""
    found = _UNITS.get(word)
    if found is None and word.endswith("s") and len(word) > 3:
        found = _UNITS.get(word[:-1])
    return found or ""


def value_of(digits: str) -> str:
    """Digits in one way of writing: no grouping, a decimal point, no leading zeros.

    >>> [value_of(d) for d in ("1,000", "1 000,5", "3.10", "2023-05-01", "007")]
    ['1000', '1000.5', '3.10', '2023-05-01', '7']
    """
    if _GROUPED.match(digits):
        comma_groups = "," in digits and not any(space in digits for space in " \u00a0\u202f")
        digits = re.sub(r"[ \u00a0\u202f]", "", digits)
        digits = digits.replace(",", "") if comma_groups else digits.replace(",", ".")
    elif "," in digits:
        digits = digits.replace(",", ".")
    return (digits.lstrip("0") or "0") if digits.isdigit() else digits


def roman(word: str) -> str:
    """The value of a Roman numeral of two to six capitals I, V, X ("XIV" is "14"), "" for other words."""
    if len(word) > 6 or not _ROMAN.match(word):
        return ""
    total = 0
    for sign, following in zip(word, [*word[1:], ""], strict=True):
        value = _ROMAN_VALUES[sign]
        total += -value if following and _ROMAN_VALUES[following] > value else value
    return str(total)


def spelled(words: list[str], start: int, french: bool) -> tuple[str, int]:  # noqa: PLR0912 - the grammar of numbers
    """The number that begins at `start` as words, and how many words it takes; ("", 0) if none does.

    "~1" is a one that may be an article or a pronoun; ordinals end in "º".

    >>> spelled("twenty three cars".split(), 0, False), spelled("quatre vingt dix euros".split(), 0, True)
    (('23', 2), ('90', 3))
    >>> spelled("three hundred and five".split(), 0, False), spelled("second try".split(), 0, False)
    (('305', 4), ('2º', 1))
    """
    word = words[start]
    if word in _SHARES and (french or word not in _FRENCH_ONLY):
        return _SHARES[word], 1
    total, part, at, last, seen = 0, 0, start, 0, False
    while at < len(words):
        word = words[at]
        plain = _plain(word, french or seen)
        if plain is not None:
            # "quatre vingt" is eighty; elsewhere a smaller number may follow a greater round one.
            if plain == 20 and at > start and words[at - 1] == "quatre" and word.startswith("vingt"):
                part += 76
            elif not seen or last == 0 or (part and part % 100 == 0) or _joins(part, plain, last):
                part += plain
            else:
                break
            last = plain or -1
        elif word in _MULTIPLIERS and (french or word not in _FRENCH_ONLY) and (seen or not word.endswith("s")):
            factor = _MULTIPLIERS[word]
            if factor == 100:
                part = (part or 1) * 100
            else:
                total, part = total + (part or 1) * factor, 0
            last = 0
        elif word in _ORDINALS and seen and _joins(part, _ORDINALS[word], last):
            return f"{total + part + _ORDINALS[word]}º", at + 1 - start
        elif (
            word in {"and", "et"}
            and seen
            and at + 1 < len(words)
            and (
                (last == 0 and (_plain(words[at + 1], french) or 0) > 0)
                or (french and last >= 20 and words[at + 1] in {"un", "une", "onze"})
            )
        ):
            at += 1
            continue
        else:
            break
        seen = True
        at += 1
    if seen:
        value = total + part
        # "a hundred", "one": whether "one" counts is left to the comparison.
        return ("~1" if at - start == 1 and words[start] in _ONES else str(value)), at - start
    if words[start] in _ORDINALS and (french or words[start] != "seconde"):
        return f"{_ORDINALS[words[start]]}º", 1
    return "", 0


def _plain(word: str, french: bool) -> int | None:
    if word in _ONES:
        return 1
    found = _ENGLISH.get(word)
    if found is None and (french or word not in _FRENCH_ONLY):
        found = _FRENCH.get(word)
    return found


def _joins(part: int, plain: int, last: int) -> bool:
    """Whether `plain` goes on the number before it: "twenty" "three", "soixante" "dix", "vingt" "neuf"."""
    if last == 10 and part % 100 in {10, 70, 90}:
        return 7 <= plain <= 9  # dix-neuf, quatre-vingt-dix-sept
    return last >= 20 and plain < (20 if last in {60, 20} and part % 100 in {60, 80} else 10) and plain > 0


def is_ordinal_ending(word: str) -> bool:
    """Whether letters written onto digits make them an ordinal ("3rd", "2e", "1ère" folded)."""
    return word in _ORDINAL_ENDINGS
