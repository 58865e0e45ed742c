"""What tells a number or token that means something from one that only looks like it: check digits and disorder."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B).

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    total = sum(int(digit) for digit in digits[-1::-2]) + sum(_DOUBLED[int(digit)] for digit in digits[-2::-2])
    return total % 10 == 0


def is_card(digits: str) -> bool:
    """Whether digits are a card number: an issuer's beginning, that issuer's length, the check digit (ISO/IEC 7812).

    >>> is_card("4111111111111111"), is_card("378282246310005"), is_card("1234567812345670")
    (True, True, False)
    """
    size, two, four = len(digits), int(digits[:2]), int(digits[:4])
    known = (
        (digits[0] == "4" and size in (13, 16, 19))  # Visa
        or ((51 <= two <= 55 or 2221 <= four <= 2720) and size == 16)  # Mastercard
        or (two in (34, 37) and size == 15)  # American Express
        or (two in (30, 36, 38, 39) and size == 14)  # Diners Club
        or ((four == 6011 or two in (64, 65, 62, 81) or 3528 <= four <= 3589) and 16 <= size <= 19)
        or ((two == 50 or 56 <= two <= 58 or two in (63, 67)) and 16 <= size <= 19)  # Maestro, as long as others
    )
    return known and luhn(digits)


#: Lengths of IBANs by country (SWIFT IBAN registry, release 99).
IBAN_LENGTHS: Final = {
    country: int(length)
    for length, countries in (
        line.split(":")
        for line in (
            "15:NO 16:BE 18:DK,FK,FI,FO,GL,NL,SD 19:MK,SI 20:AT,BA,EE,KZ,LT,LU,MN,XK 21:CH,CR,HR,LI,LV "
            "22:BG,BH,DE,GB,GE,IE,ME,RS,VA 23:AE,GI,IL,IQ,OM,SO,TL 24:AD,CZ,ES,MD,PK,RO,SA,SE,SK,TN,VG 25:LY,PT,ST "
            "26:IS,TR 27:BI,DJ,FR,GR,IT,MC,MR,SM 28:AL,AZ,BY,CY,DO,GT,HU,LB,NI,PL,SV 29:BR,EG,PS,QA,UA 30:JO,KW,MU "
            "31:MT,SC 33:RU"
        ).split()
    )
    for country in countries.split(",")
}


def is_iban(compact: str) -> bool:
    """Whether letters and digits without spaces are an IBAN: its country's length, and 1 modulo 97 (ISO 13616).

    >>> is_iban("GB29NWBK60161331926819"), is_iban("GB28NWBK60161331926819")
    (True, False)
    """
    upper = compact.upper()
    if not upper.isascii() or len(upper) != IBAN_LENGTHS.get(upper[:2]):
        return False
    return int("".join(str(int(character, 36)) for character in upper[4:] + upper[:4])) % 97 == 1


#: A token of fewer characters is a word, a number or an id.
SHORTEST_TOKEN: Final = 20
# A token at random over letters and digits changes between small letters, capitals and digits at two of three places
# (62 characters: 1 - 2 (26/62)^2 - (10/62)^2 = 0.62; 36 characters: 0.40). Names that people make change at word ends.
_LEAST_CHANGES: Final = 0.27
_SEGMENT = re.compile(r"[A-Za-z0-9]+")
_HEX = re.compile(r"(?:0x)?[0-9a-f]+|(?:0x)?[0-9A-F]+")
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
# What is a digest, a UUID or a number within a longer name (of a file, mostly).
_PUBLIC = re.compile(
    r"(?<![A-Za-z0-9])(?:[0-9a-f]{5,}|[0-9A-F]{5,})(?![A-Za-z0-9])|(?<![A-Za-z0-9])[0-9a-f]{4}(?![A-Za-z0-9])"
)


def is_random(token: str) -> bool:
    """Whether letters and digits stand in such disorder that a machine made them to be secret.

    Digests in hexadecimal and ids with a form of their own (UUID, ULID) are no secrets; names of files, variables and
    versions have an order.

    >>> is_random("q7Tz2LmX9vRb4KcW8nYd3PfH"), is_random("9f86d081884c7d659a2feaa0c55ad015")
    (True, False)
    """
    if len(token) < SHORTEST_TOKEN or _HEX.fullmatch(token.replace("-", "")) or _ULID.fullmatch(token):
        return False
    segments = _SEGMENT.findall(_PUBLIC.sub("", token))
    length = sum(map(len, segments))
    if length < SHORTEST_TOKEN - 4 or max(map(len, segments)) < 10:
        return False
    token = "".join(segments)
    digits = sum(character.isdigit() for character in token)
    if digits < 2 or length - digits < 4:
        return False
    if len({*token}) < min(10, len(token) // 2):
        return False
    changes = sum(_class_of(one) != _class_of(other) for segment in segments for one, other in pairwise(segment))
    return changes >= _LEAST_CHANGES * length


def _class_of(character: str) -> int:
    return 0 if character.isdigit() else 1 if character.islower() else 2
