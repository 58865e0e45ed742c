"""What would be kept of a text: looked at, and kept nowhere.

Invariant: nothing is asked, stored or counted, and Redis is read for its privacy policies alone; what is said is what
`Planner` would decide for the first question of a session.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from agentic_flywheel.errors import StoreError
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.flows.routing import route
from agentic_flywheel.known_policies import KnownPolicies
from agentic_flywheel.model import Directives
from agentic_flywheel.personal_data import Kind, spoken
from agentic_flywheel.policy.admission import admit_id, admit_text
from agentic_flywheel.policy.privacy import no_cache, no_history
from agentic_flywheel.policy.redaction.finding import Redactor
from agentic_flywheel.policy.sharing import Scope, personal, scope_of
from agentic_flywheel.redacting import Redacting

_IDS: Final = frozenset({"id", "key", "flow", "fingerprint", "context"})


class FoundSpan(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was found: its kind, where it stands in the text, and whether it is taken out."""

    kind: str
    start: int
    end: int
    redacted: bool


class PrivacyTest(msgspec.Struct, frozen=True, kw_only=True):
    """What would be kept of a text as a question to `flow`.

    `stored` is the text as it would be kept, `redacts` the kinds that are taken out there, `found` all that was found,
    `counts` how often by kind. `private` says whether its turn would be its asker's alone, `scope` who would be given
    its answer again ("" for nobody), and `why` gives the reasons as sentences.
    """

    flow: str
    stored: str
    redacts: tuple[str, ...]
    found: tuple[FoundSpan, ...]
    counts: dict[str, int]
    private: bool
    scope: str
    why: tuple[str, ...]


class PrivacyTests:
    """Tells for one tenant; `flywheel.privacy`."""

    def __init__(self, registry: Registry, redacting: Redacting, policies: KnownPolicies, user: str) -> None:
        self._policies = policies
        self._registry = registry
        self._redacting = redacting
        self._user = user

    async def test(self, text: str, *, flow: str | None = None, user: str | None = None) -> PrivacyTest:
        """What would be kept of a text that this user asks this flow (None: the one that it would go to), under all
        policies.

        Raises `InputError`, `UnknownFlow`.
        """
        text = admit_text(text, "text")
        user = self._user if user is None else user and admit_id(user, "user")
        snapshot = self._registry.current()
        spec = snapshot.get(route(text, snapshot, flow=flow).flow)
        unread = ""
        try:
            await self._policies.load(slow=True)
        except StoreError as error:
            self._policies.fall_back()
            unread = f"Policies that were set at run time could not be read: {error.message}."
        kept, privacy = self._redacting.of(spec, text, user=user), self._policies.of(spec, user)
        taken = set(kept.found)
        # What is taken out is told as such; besides that, all that is found.
        spans = [FoundSpan(kind=one.kind.value, start=one.start, end=one.end, redacted=True) for one in kept.found] + [
            FoundSpan(kind=one.kind.value, start=one.start, end=one.end, redacted=False)
            for one in self._redacting.whole(text).found
            if one not in taken and all(one.end <= other.start or other.end <= one.start for other in kept.found)
        ]
        spans.sort(key=lambda one: one.start)
        scope = scope_of(spec.sharing, Directives(), question=text, user=user, sensitive=bool(kept.sensitive))
        counts: dict[str, int] = {}
        for one in spans:
            counts[one.kind] = counts.get(one.kind, 0) + 1
        kinds = self._redacting.kinds_for(spec, user)
        forbidden = not privacy.cache or (not privacy.history and scope in {Scope.USER, Scope.SESSION})
        policies = tuple(why for why in (no_history(privacy), no_cache(privacy), unread) if why)
        return PrivacyTest(
            flow=spec.key,
            stored=kept.question,
            redacts=tuple(kind.value for kind in Kind if kind in kinds),
            found=tuple(spans),
            counts=counts,
            private=bool(kept.sensitive),
            scope="" if kept.unkeyed or forbidden or scope is None else scope.value,
            why=(*kept.warnings, *policies, *self._more(text, scope, spans, kinds, private=bool(kept.sensitive))),
        )

    def kept_body(self, body: bytes, user: str) -> bytes:
        """What a request came to (JSON), as it may be kept; as it is where nothing is redacted."""
        flows = self._registry.current().flows
        if not any(self._redacting.kinds_for(spec, user) for spec in (None, *flows.values())):
            return body
        try:
            said = msgspec.json.decode(body)
        except msgspec.DecodeError:
            return body
        flow = said.get("flow") if isinstance(said, dict) else None
        redactor = self._redacting.redactor(
            self._redacting.kinds_for(flows.get(flow) if isinstance(flow, str) else None, user)
        )
        return body if redactor is None else msgspec.json.encode(_without(said, redactor))

    def _more(
        self, text: str, scope: Scope | None, spans: list[FoundSpan], kinds: frozenset[Kind], *, private: bool
    ) -> list[str]:
        told = []
        if scope is None:
            told.append("The flow shares its answers with nobody.")
        elif personal(text) and not private:
            told.append("It speaks of the asker's own things, so its answer is kept for its asker alone.")
        left = {Kind(one.kind) for one in spans if not one.redacted}
        if left:
            told.append(f"Kept as it is: {spoken(left)} (see privacy.redact).")
        if left and not private:
            told.append("Not private for what is in it: privacy.sensitive is off.")
        if Kind.NAME in kinds and self._redacting.names is None:
            told.append("No names are found: privacy.names is not set.")
        return told


def _without(said: Any, redactor: Redactor) -> Any:
    """A JSON value with its texts redacted; ids and keys stay what they are."""
    if isinstance(said, str):
        return redactor.redact(said).text
    if isinstance(said, list):
        return [_without(one, redactor) for one in said]
    if isinstance(said, dict):
        return {
            name: one if name in _IDS or name.endswith("_id") else _without(one, redactor) for name, one in said.items()
        }
    return said
