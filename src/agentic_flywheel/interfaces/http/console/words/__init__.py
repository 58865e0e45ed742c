"""What the console says, in every language that it speaks.

Invariant: a message is there in all languages, with the same places to fill in; a catalogue that lacks one is not
loaded. What the flywheel itself says (warnings, reasons, receipts) is English, as everywhere; `told` says it on pages.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

LANGUAGES: Final = ("en", "fr")
_PLACE = re.compile(r"{(\w+)}")
#: How numbers are written: between thousands, and before decimals.
_NUMBERS: Final = {"en": (",", "."), "fr": ("\N{NARROW NO-BREAK SPACE}", ",")}


class Words:
    """The messages of one language.

    >>> Words("fr")("frame.language")
    'Langue'
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._messages = catalogue()[language]

    def __call__(self, name: str, /, **values: object) -> str:
        """A message with its places filled in; `n` chooses between one and other. Raises `KeyError`."""
        message = self._messages[name]
        if not isinstance(message, str):
            n = values.get("n")
            assert isinstance(n, int | float), f"{name} wants a count"
            message = message[0 if self._is_one(n) else 1]
            values["n"] = self.number(n)
        return message.format_map(values) if values else message

    def has(self, name: str) -> bool:
        """Whether there is such a message."""
        return name in self._messages

    def _is_one(self, n: float) -> bool:
        return n == 1 if self.language == "en" else abs(n) < 2

    def number(self, value: float, digits: int = 0) -> str:
        """A number as people write it.

        >>> Words("en").number(1234.5, 1), Words("fr").number(0.5, 1)
        ('1,234.5', '0,5')
        """
        thousands, decimal = _NUMBERS[self.language]
        return f"{value:,.{digits}f}".translate({ord(","): thousands, ord("."): decimal})


Messages = Mapping[str, str | tuple[str, str]]


@cache
def catalogue() -> Mapping[str, Messages]:
    """All messages by language and name. Raises `ValueError` for a message that is not whole."""
    found: dict[str, dict[str, str | tuple[str, str]]] = {language: {} for language in LANGUAGES}
    for file in sorted(files(__package__).iterdir(), key=lambda one: one.name):
        if not file.name.endswith(".toml"):
            continue
        for section, messages in tomllib.loads(file.read_text("utf-8")).items():
            for key, said in messages.items():
                name = f"{section}.{key}"
                if name in found["en"]:
                    raise ValueError(f"{file.name}: {name} is there twice")
                for language, message in zip(LANGUAGES, _checked(said, f"{file.name}: {name}"), strict=True):
                    found[language][name] = message
    return found


def _checked(said: Any, where: str) -> list[str | tuple[str, str]]:
    """A message in every language."""
    if not isinstance(said, list) or len(said) != len(LANGUAGES):
        raise ValueError(f"{where} is not said in {', '.join(LANGUAGES)}")
    forms = [tuple(one) if isinstance(one, list) else one for one in said]
    plural = isinstance(forms[0], tuple)
    for one in forms:
        parts = one if isinstance(one, tuple) else (one,)
        if isinstance(one, tuple) is not plural or (plural and len(parts) != 2):
            raise ValueError(f"{where} is counted in one language and not in another")
        if not all(isinstance(part, str) and part for part in parts):
            raise ValueError(f"{where} is empty")
    if len({frozenset(_PLACE.findall(_whole(one))) for one in forms}) != 1:
        raise ValueError(f"{where} has other places to fill in in each language")
    return forms


def _whole(message: str | tuple[str, ...]) -> str:
    return message if isinstance(message, str) else message[1]
