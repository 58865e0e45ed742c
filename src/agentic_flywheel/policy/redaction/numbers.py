"""Cards, bank accounts and addresses of machines, as English and French texts write them.

Invariant: every pattern is bounded or anchored, so time grows with the length of the text and no faster, whatever the
text is. A number is taken for what its form and check digits say; what stands before it can speak against that
("order", "version") where the form alone is weak.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from agentic_flywheel.personal_data import Found, Kind
from agentic_flywheel.policy.redaction.checks import IBAN_LENGTHS, is_card, is_iban

# Between the groups of a number: space, full stop, hyphen, slash, and the spaces that do not break (French typography).
GAP: Final = r"[ .\-/\u00a0\u202f\u2011]"
#: Before digits that say something else.
_OTHER_NUMBER: Final = re.compile(
    r"(?:\b(?:orders?|commandes?|invoices?|factures?|tickets?|ref(?:erence)?|r[ée]f(?:[ée]rence)?|isbn|issn|ean|gtin|imei|"
    r"siret|siren|tva|vat|sku|serial|s[ée]rie|articles?|dossiers?|cases?|clients?|customers?|accounts?|colis|tracking|"
    r"suivi|parcels?|builds?|timestamps?|epoch|horodatages?|barcodes?|code[- ]barres?|id|ids|uid|pid|"
    r"contrats?|contracts?|port|lots?|batch|version|rows?|lignes?|unix|record|employee|matricule|licen[cs]es?|doi|pmid|bug|issue|incident|"
    r"transaction|devis|quote|bon de commande)\b)[^\d\n]{0,16}\Z"
)
_NUMBERED: Final = re.compile(r"(?:#|n°)\s?\Z")
_VERSION: Final = re.compile(
    r"(?:\b(?:versions?|v|ver|release|build|firmware|driver|pilote|chrome|chromium|firefox|safari|edge|sections?|clause|"
    r"chapters?|chapitres?|articles?|paragraphe|rev|r[ée]vision|assembly|dll|oid|snmp|mise [àa] jour|update|patch)"
    r"\b|§)[^\d\n]{0,12}\Z"
)
_IP_CUE: Final = re.compile(
    r"\b(?:ip|ips|ipv4|host|address|adresse|server|serveur|ping|dns|from|depuis)\b\W{0,6}(?:\w+\W{1,3})?\Z"
)
_RUN: Final = re.compile(r"\d(?:[ \-\u00a0\u202f\u2011]?\d){12,}(?!\w)")
_DIGITS: Final = re.compile(r"\d+")
_CARD_GROUPS: Final = frozenset({(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3), (4, 4, 4, 1), (8, 8)})
_IBAN_START: Final = re.compile(r"(?<!\w)[A-Za-z]{2}\d\d(?=[ \-\u00a0\u202f]?[A-Za-z0-9])")
_IBAN_GAPS: Final = " -\u00a0\u202f"
_DOTTED: Final = re.compile(r"\d\.\d{1,3}\.\d")  # cheap, for texts without any
_COLONS: Final = re.compile(r":[0-9A-Fa-f]{0,4}:")
_V4: Final = re.compile(r"(?<![\w.])\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?!\w|\.\d)")
_V6: Final = re.compile(
    r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?:\.\d{1,3}){0,3}(?:%\w{1,16})?(?![\w:])"
)
_LOOK_BACK: Final = 40


def cards(text: str) -> Iterator[Found]:
    """Card numbers: an issuer's beginning and length, grouped as on cards or not at all, with the right check digit."""
    for run in _RUN.finditer(text):
        if text[run.start() - 1 : run.start()].isalnum() or text[run.start() - 1 : run.start()] in (".", ",", "_"):
            continue
        groups = [(match.start(), match.end()) for match in _DIGITS.finditer(text, *run.span())]
        for first in range(len(groups)):
            for last in range(first, min(first + 5, len(groups))):
                sizes = tuple(end - start for start, end in groups[first : last + 1])
                if (len(sizes) > 1 and sizes not in _CARD_GROUPS) or not 13 <= sum(sizes) <= 19:
                    continue
                start, end = groups[first][0], groups[last][1]
                if not is_card("".join(_DIGITS.findall(text, start, end))):
                    continue
                if len(sizes) == 1 and other_number(text, start, alone=True):
                    continue
                yield Found(Kind.CARD, start, end)


def ibans(text: str) -> Iterator[Found]:
    """Bank accounts (IBAN), in groups or not, in capitals or not."""
    for match in _IBAN_START.finditer(text):
        length = IBAN_LENGTHS.get(match.group()[:2].upper())
        if length is None:
            continue
        compact, place = "", match.start()
        while len(compact) < length and place < len(text):
            character = text[place]
            if character.isalnum():
                compact += character
            elif character not in _IBAN_GAPS or text[place - 1] in _IBAN_GAPS:
                break
            place += 1
        if is_iban(compact) and not text[place : place + 1].isalnum():
            yield Found(Kind.IBAN, match.start(), place)


def addresses(text: str) -> Iterator[Found]:
    """Addresses of machines (IPv4 and IPv6) that say something of whose they are: neither loopback nor masks, and no
    versions of programs."""
    if _DOTTED.search(text) is not None:
        for match in _V4.finditer(text):
            octets = match.group().split(".")
            if any(len(octet) > 1 and octet[0] == "0" for octet in octets) or any(int(octet) > 255 for octet in octets):
                continue
            if octets[0] in ("0", "127") or octets[:2] == ["255", "255"]:
                continue
            told = before(text, match.start())
            if _VERSION.search(told) or (max(map(len, octets)) == 1 and not _IP_CUE.search(told)):
                continue
            yield Found(Kind.IP, match.start(), match.end())
    if _COLONS.search(text) is not None:
        for match in _V6.finditer(text):
            written = match.group()
            if _is_v6(written.rstrip(":") if written.endswith(":") and not written.endswith("::") else written):
                end = match.end() - (written.endswith(":") and not written.endswith("::"))
                yield Found(Kind.IP, match.start(), end)


def _is_v6(written: str) -> bool:
    import ipaddress

    if not any(character.isdigit() for character in written):
        return False  # `cafe::babe` is two names
    try:
        address = ipaddress.IPv6Address(written)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


def other_number(text: str, start: int, *, alone: bool) -> bool:
    """Whether what stands before a number says that it is an order, an id; `alone`: its form says nothing."""
    told = before(text, start)
    return bool(_OTHER_NUMBER.search(told) or (alone and _NUMBERED.search(told)))


def before(text: str, start: int) -> str:
    """What stands right before a place, in small letters."""
    return text[max(0, start - _LOOK_BACK) : start].lower()
