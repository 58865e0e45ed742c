"""Requests that came before, word for word, answered once more without being understood anew.

Invariant: a request is answered here only if all of it (method, target, every header, body) is what a request had that
went the whole way, by nobody's credential, and was given an answer from memory. What gate, route and handler made of
it follows from these bytes alone, but for what `Again.holds` looks at, so it would be the same again. The answer is
found anew each time (`Flywheel.at_hand`), with its turn, its counts and its line in the log; where it is not at hand,
the request goes the whole way. Both ways say the same: heads and bodies are made by the same functions, a head once for
all that differ only in what `_Head` fills in.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from starlette.responses import Response

from agentic_flywheel.identifiers import new_id
from agentic_flywheel.interfaces.http.boundary import HEADERS
from agentic_flywheel.model import Answer, Directives, Outcome

if TYPE_CHECKING:
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.interfaces.http.call import Call
    from agentic_flywheel.interfaces.http.service import Service

#: What was sent: target, headers, body; of a POST.
Sent = tuple[bytes, tuple[tuple[bytes, bytes], ...], bytes]

#: Where the gate finds it, in the scope of a request that may come again.
SENT: Final = "afw.sent"
#: Requests that are known, and the longest body of one in bytes.
MOST: Final = 4096
LONGEST: Final = 4096
#: The most that headers of one may come to, in bytes.
_LONGEST_HEADERS: Final = 4096
#: Of each request alone, or answered with more than the handler says.
_OWN: Final = frozenset({b"x-request-id", b"traceparent", b"origin", b"expect", b"idempotency-key"})
#: What `Flywheel.ask` may be given besides a question, whom to ask and who asks.
_MORE: Final = ("session", "intent", "config", "domain", "history", "instructions", "turn_id")
#: Where a head is cut; nobody who wrote an id knows it.
_MARK: Final = f"<{secrets.token_hex(16)}>"
_log = logging.getLogger(__name__)


class Again(NamedTuple):
    """What a handler read from a request, and how it answers: with `headers` and `body` of an answer.

    `flow` and `user` are as for `Flywheel.ask`; the question has no session, directives, overrides or history. `holds`
    says whether whatever else the handler looked at is as it was.
    """

    flywheel: Flywheel
    question: str
    flow: str | None
    user: str | None
    headers: Callable[[Answer], dict[str, str]]
    body: Callable[[Answer], bytes]
    media_type: str
    holds: Callable[[], bool]

    def offer(self, call: Call, asked: Mapping[str, Any], answer: Answer) -> None:
        """Have the request known, if it `asked` nothing but a question and the answer came from memory."""
        verbatim = asked.get("verbatim")
        bare = not any(asked.get(name) for name in _MORE) and not (verbatim and verbatim.credential)
        bare = bare and asked.get("among") is None
        if bare and asked["directives"] == Directives() and answer.outcome is Outcome.HIT:
            call.again = self

    def response(self, answer: Answer) -> Response:
        """The response with an answer."""
        return Response(self.body(answer), 200, self.headers(answer), self.media_type)


class _Head:
    """The head of a response, cut where each says something of its own."""

    __slots__ = ("_age", "_gaps", "_pieces", "facts")

    def __init__(self, again: Again, answer: Answer) -> None:
        self.facts = facts_of(answer)
        marked = msgspec.structs.replace(answer, **{name: f"{_MARK}{name}{_MARK}" for name in _OF_ANSWER})
        pairs = Response(b"", 200, again.headers(marked), again.media_type).raw_headers
        pairs = with_security([*pairs, (b"x-request-id", b"")])
        head = "".join(
            f"{name}: {f'{_MARK}{name}{_MARK}' if name in _OF_RESPONSE else value.decode('latin-1')}\r\n"
            for name, value in ((name.decode("latin-1"), value) for name, value in pairs)
        )
        self._pieces = head.split(_MARK)
        self._gaps = [(place, self._pieces[place]) for place in range(1, len(self._pieces), 2)]

    def filled(self, answer: Answer, size: int, request_id: str) -> bytes:
        """The head of one response, with a body of so many bytes."""
        pieces = self._pieces.copy()
        for place, gap in self._gaps:
            if gap == "age":
                pieces[place] = str(int(answer.age_seconds))
            elif gap == "content-length":
                pieces[place] = str(size)
            elif gap == "x-request-id":
                pieces[place] = request_id
            else:
                pieces[place] = getattr(answer, gap)
        return "".join(pieces).encode("latin-1")


_OF_ANSWER: Final = ("trace_id", "session_id", "turn_id")
_OF_RESPONSE: Final = frozenset({"age", "content-length", "x-request-id"})


def facts_of(answer: Answer) -> tuple[Any, ...]:
    """What the headers of an answer say besides what `_Head` fills in."""
    return (
        answer.flow,
        answer.outcome,
        answer.reason,
        answer.source,
        answer.faq,
        answer.key,
        answer.origin_trace_id,
        answer.similarity,
        answer.warnings,
    )


def with_security(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers of a response, and those that every response has unless it says otherwise."""
    there = {name for name, _ in headers}
    return headers + [pair for pair in HEADERS if pair[0] not in there]


class _Known:
    """A request that came before; its head, once it was answered here."""

    __slots__ = ("again", "head", "route")

    def __init__(self, again: Again, route: str) -> None:
        self.again = again
        self.route = route
        self.head: _Head | None = None


class Repeats:
    """The requests that one process knows."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._known: OrderedDict[Sent, _Known] = OrderedDict()
        #: Answered here so far.
        self.answered = 0

    def learn(self, sent: Sent, call: Call, again: Again) -> None:
        """Know a request that was just answered the whole way from memory; not one with more to it than its bytes."""
        headers = sent[1]
        if call.known is not self._service.anybody or call.headers or not _OWN.isdisjoint(name for name, _ in headers):
            return
        if len(sent[2]) > LONGEST or sum(len(name) + len(value) for name, value in headers) > _LONGEST_HEADERS:
            return
        self._known[sent] = _Known(again, call.route)
        if len(self._known) > MOST:
            self._known.popitem(last=False)

    def known(self, sent: Sent) -> _Known | None:
        """What was made of the request before, if that holds."""
        known = self._known.get(sent)
        if known is None:
            return None
        try:
            if known.again.holds():
                self._known.move_to_end(sent)
                return known
        except Exception as error:  # noqa: BLE001 -- whoever asks is told of it on the whole way
            _log.debug("a request goes the whole way: %s", error)
        del self._known[sent]
        return None

    def near(self, known: _Known) -> Answer | None:
        """The answer, where Redis need not be asked."""
        again = known.again
        return again.flywheel.at_hand.near(again.question, again.flow, again.user)

    async def confirmed(self, known: _Known) -> Answer | None:
        """The answer as Redis confirms it."""
        again = known.again
        return await again.flywheel.at_hand.answer(again.question, again.flow, again.user)

    def response(self, known: _Known, answer: Answer, began: float) -> bytes:
        """The response without the status line and what the server says of itself; counted and logged."""
        head = known.head
        if head is None or head.facts != facts_of(answer):
            head = known.head = _Head(known.again, answer)
        body = known.again.body(answer)
        request_id = new_id()[:16]
        told = head.filled(answer, len(body), request_id)
        self.answered += 1
        self._service.answered(known.route, self._service.anybody, request_id, "POST", 200, time.perf_counter() - began)
        return b"".join((told, b"\r\n", body))
