"""What is taken out of texts before anything of them is kept, and which questions are private by themselves.

Invariant: this is the one place that decides which kinds are redacted for a question: those of the setting
`privacy.redact`, and of the privacy policies of its flow, its user and the tenant, together. What is taken out is kept
nowhere, and no digest of it either: where anything that a key would be made of was redacted, there is no key
(`Kept.unkeyed`).
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from agentic_flywheel.errors import SettingsError
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.known_policies import KnownPolicies
from agentic_flywheel.model import Entry, Source, Turn
from agentic_flywheel.personal_data import ALL_KINDS, Found, Kind, kinds_of, spoken
from agentic_flywheel.policy.privacy import resolve
from agentic_flywheel.policy.redaction.finding import Names, Redacted, Redactor
from agentic_flywheel.settings import Settings

#: So many characters of what comes along with a question (earlier messages, overrides) are looked through, a text of
#: fewer counting as so many; what is more than that passes for personal data, since nobody can wait for the look.
_LOOKED_THROUGH: Final = 100_000
_LEAST: Final = 50
#: Texts that were looked at last: a question is planned up to three times.
_REMEMBERED: Final = 32
_NOTHING: Final = frozenset[Kind]()
_log = logging.getLogger(__name__)


class Kept(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What may be kept of one question: `redactor` takes out of its texts what may not (None: all of it may).

    `question` is the question as it is kept, `found` what was taken out of it. `unkeyed`: what its key would be made of
    was redacted, so that nothing is stored or looked for under it. `sensitive` are the kinds for which it is private,
    `unseen` says that it is since more came along than is looked through.
    """

    question: str
    redactor: Redactor | None = None
    found: tuple[Found, ...] = ()
    unkeyed: bool = False
    sensitive: frozenset[Kind] = _NOTHING
    unseen: bool = False

    @property
    def private(self) -> bool:
        """Whether the question is its asker's alone for what is in it, or may be."""
        return bool(self.sensitive) or self.unseen

    def text(self, text: str) -> str:
        """A text as it may be kept."""
        return text if self.redactor is None or not text else self.redactor.redact(text).text

    def holds_back(self, text: str, sources: Iterable[Source] = (), wire: bytes = b"") -> bool:
        """Whether an answer has something in it that may not be kept."""
        if self.redactor is None:
            return False
        texts = [text, wire.decode("utf-8", "replace"), *(part for one in sources for part in _of_source(one))]
        return any(self.redactor.find(one) for one in texts if one)

    def holds_back_entry(self, entry: Entry) -> bool:
        """The same of an answer that is stored."""
        return self.holds_back(entry.answer, entry.sources, entry.wire)

    def sources(self, sources: tuple[Source, ...]) -> tuple[Source, ...]:
        """The places that an answer rests on, as they may be kept."""
        if self.redactor is None or not sources:
            return sources
        return tuple(
            Source(self.text(one.title), self.text(one.uri), self.text(one.excerpt), one.score) for one in sources
        )

    def turn(self, turn: Turn) -> Turn:
        """A turn as it may be kept."""
        if self.redactor is None:
            return turn
        return msgspec.structs.replace(
            turn,
            question=self.text(turn.question),
            answer=self.text(turn.answer),
            sources=self.sources(turn.sources),
            intent=self.text(turn.intent),
            matched_question=self.text(turn.matched_question),
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What its asker should know: why it is private, what is not kept."""
        told = []
        if self.sensitive:
            told.append(f"Private, since there is {spoken(self.sensitive)} in the question.")
        elif self.unseen:
            told.append("Private, since more came along with the question than is looked through for personal data.")
        if self.found:
            what = spoken({one.kind for one in self.found})
            told.append(f"Kept without {what} of the question; no answer is stored.")
        elif self.unkeyed:
            told.append("No answer is stored: what the question was asked with holds personal data.")
        return tuple(told)


class Redacting:
    """Decides for one tenant what is taken out. Raises `SettingsError`."""

    def __init__(self, settings: Settings, policies: KnownPolicies) -> None:
        self._policies = policies
        self.kinds = _kinds(settings)
        self.keep = tuple(word.strip() for word in settings.text("privacy.keep").split(",") if word.strip())
        self.names = _names(settings)
        self.sensitive = settings.text("privacy.sensitive") == "private"
        self._redactors: dict[frozenset[Kind], Redactor] = {}
        self._all = self.redactor(ALL_KINDS)
        assert self._all is not None
        self._found = lru_cache(_REMEMBERED)(self._all.find)

    def kinds_for(self, spec: FlowSpec | None, user: str = "") -> frozenset[Kind]:
        """What is redacted for questions to a flow (None: none in particular) by a user ("": nobody in particular)."""
        named = self._policies.of(spec, user).redact if spec else resolve(self._policies.rules_of(None, user)).redact
        if not named:
            return self.kinds
        try:
            return self.kinds | kinds_of(named)
        except ValueError:  # a word of another release: what is meant is not known, so nothing is left
            return ALL_KINDS

    def redactor(self, kinds: frozenset[Kind]) -> Redactor | None:
        """What takes these kinds out; None for none."""
        if not kinds:
            return None
        known = self._redactors.get(kinds)
        if known is None:
            known = self._redactors[kinds] = Redactor(kinds, keep=self.keep, names=self.names)
        return known

    def of(
        self,
        spec: FlowSpec,
        question: str,
        *,
        user: str = "",
        more: Iterable[str] = (),
        veto: bool = True,
    ) -> Kept:
        """What may be kept of a user's question to a flow. `more` are the other texts that its key is made of; without
        a `veto` it is not made private by what is in it."""
        redactor = self.redactor(self.kinds_for(spec, user))
        more, whole = _looked_through(more)
        sensitive = self.sensitive_in(question, *more) if veto else _NOTHING
        unseen = veto and self.sensitive and not whole
        if redactor is None:
            return Kept(question=question, sensitive=sensitive, unseen=unseen)
        redacted = redactor.redact(question)
        unkeyed = bool(redacted.found) or not whole or any(redactor.find(text) for text in more)
        return Kept(
            question=redacted.text,
            redactor=redactor,
            found=redacted.found,
            unkeyed=unkeyed,
            sensitive=sensitive,
            unseen=unseen,
        )

    def sensitive_in(self, *texts: str) -> frozenset[Kind]:
        """The kinds of personal data for which a question is private; none where `privacy.sensitive` is off."""
        if not self.sensitive:
            return _NOTHING
        return frozenset(found.kind for text in texts for found in self._found(text))

    def text(self, text: str, spec: FlowSpec | None = None, user: str = "") -> str:
        """A text that people wrote (a note, a title), as it may be kept."""
        redactor = self.redactor(self.kinds_for(spec, user))
        return text if redactor is None or not text else redactor.redact(text).text

    def whole(self, text: str) -> Redacted:
        """A text with everything that can be found in it taken out, whatever the settings say."""
        assert self._all is not None
        return self._all.redact(text)


def _looked_through(texts: Iterable[str]) -> tuple[list[str], bool]:
    """Those texts that are looked through, and whether they are all."""
    found: list[str] = []
    left = _LOOKED_THROUGH
    for text in texts:
        left -= max(len(text), _LEAST)
        if left < 0:
            return found, False
        found.append(text)
    return found, True


def texts_of(value: Any) -> list[str]:
    """All texts in a configuration, names included: what a digest of it could tell."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        # A name says what its value is: `password: X` is found where X alone is not.
        return [text for name, inner in value.items() for text in _named(str(name), inner)]
    if isinstance(value, list | tuple | set | frozenset):
        return [text for inner in value for text in texts_of(inner)]
    return [] if value is None or isinstance(value, bool | float) else [str(value)]


def _named(name: str, value: Any) -> list[str]:
    return [f"{name}: {value}"] if isinstance(value, str | int) else texts_of(value)


def _of_source(source: Source) -> tuple[str, ...]:
    return (source.title, source.uri, source.excerpt)


def _kinds(settings: Settings) -> frozenset[Kind]:
    try:
        return kinds_of(settings.text("privacy.redact"))
    except ValueError as error:
        raise SettingsError(f"setting 'privacy.redact': {error}", setting="privacy.redact") from error


def _guarded(names: Names, named: str) -> Names:
    """A detector that finds everything where it fails: what it would have found is not known, so nothing is kept."""

    def found(text: str) -> Iterable[tuple[int, int]]:
        try:
            return [(int(start), int(end)) for start, end in names(text)]
        except Exception as error:  # noqa: BLE001 -- what it says may hold the text
            _log.warning("%s failed (%s): nothing of the text is kept", named, type(error).__name__)
            return [(0, len(text))]

    return found


def _names(settings: Settings) -> Names | None:
    """The function that `privacy.names` names, as python:MODULE:NAME."""
    named = settings.text("privacy.names")
    if not named:
        return None
    kind, _, path = named.partition(":")
    module, _, attribute = path.partition(":")
    problem = "" if kind == "python" and module and attribute else "it does not have that form"
    if not problem:
        try:
            found: Any = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is why names cannot be found
            problem = f"{type(error).__name__}: {error}"
        else:
            if callable(found):
                return _guarded(found, named)
            problem = f"it is a {type(found).__name__}, and cannot be called"
    raise SettingsError(
        f"setting 'privacy.names': {named!r} cannot be used: {problem}",
        setting="privacy.names",
        suggestions=("Write it as python:MODULE:NAME, importable where this process runs.",),
    )
