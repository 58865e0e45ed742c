"""Requests that came before, word for word, answered once more without being understood anew.

Invariant: a request is answered here only if all of it (method, target, every header, body) is what a request had that
went the whole way and was given an answer from memory. What gate, route and handler made of it follows from these bytes
and from who calls, but for what `Again.holds` looks at, so it would be the same again. Who calls is found anew each
time, as the gate finds it: a credential is checked, and its rate spent, before anything else; where that comes to
another caller or to none, the request goes the whole way, and spends nothing more. The answer is found anew as well
(`Flywheel.at_hand`), with its turn, its counts and its line in the log; where it is not at hand, the request goes the
whole way. Both ways say the same: heads and bodies are made by the same functions, a head once for all that differ only
in what `_Head` fills in.

Requests are known by a digest with a key of this process: their credentials and words are not kept for it. One that is
nobody's in particular and is answered from the near cache is known a second time, by all the bytes that came over the
connection: what a parser makes of the same bytes at the same place is the same.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from starlette.responses import Response

from agentic_flywheel.identifiers import new_id
from agentic_flywheel.interfaces.http.boundary import HEADERS
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.model import Answer, Directives, Outcome

if TYPE_CHECKING:
    from agentic_flywheel.callers import Caller
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.interfaces.http.service import Service

Headers = Iterable[tuple[bytes, bytes]]

#: Where the gate finds what was sent, in the scope of a request that may come again.
SENT: Final = "afw.sent"
#: And the call of one whose credential was checked already.
ADMITTED: Final = "afw.admitted"
#: Requests that are known, and the most that one may come to in bytes, headers and all.
MOST: Final = 4096
LONGEST: Final = 8192
#: What no header's name or value, and no target, holds.
_END: Final = b"\r\n"
#: Of each request alone, or answered with more than the handler says.
_OWN: Final = frozenset({b"x-request-id", b"traceparent", b"origin", b"expect", b"idempotency-key"})
#: What admission says of a caller's rate, anew each time.
_OF_RATE: Final = frozenset({b"ratelimit", b"ratelimit-policy"})
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
        if not bare or asked["directives"] != Directives() or answer.outcome is not Outcome.HIT:
            return
        if call.flows is None:
            call.again = self
        elif self.flow is not None:  # one of the caller's: `Flywheel.ask` has named it so
            call.again = self._replace(flow=answer.flow)

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

    __slots__ = ("again", "caller", "head", "route")

    def __init__(self, again: Again, caller: Caller, route: str) -> None:
        self.again = again
        self.caller = caller
        self.route = route
        self.head: _Head | None = None


def _held(known: OrderedDict[bytes, _Known], by: bytes) -> _Known | None:
    """What is known by a digest, if it holds."""
    found = known.get(by)
    if found is None:
        return None
    try:
        if found.again.holds():
            known.move_to_end(by)
            return found
    except Exception as error:  # noqa: BLE001 -- whoever asks is told of it on the whole way
        _log.debug("a request goes the whole way: %s", error)
    del known[by]
    return None


class Repeats:
    """The requests that one process knows."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._whole: OrderedDict[bytes, _Known] = OrderedDict()
        self._secret = secrets.token_bytes(32)
        #: Answered here so far.
        self.answered = 0

    def sent(self, target: bytes, headers: Headers, body: bytes | bytearray) -> bytes | None:
        """What a POST is known by; None for one that is too long."""
        parts: list[bytes | bytearray] = [target]
        for name, value in headers:
            parts += (name, value)
        parts += (b"", body)
        told = _END.join(parts)
        return self._digest(told, b"parts") if len(told) <= LONGEST else None

    def _digest(self, told: bytes, form: bytes) -> bytes:
        return blake2b(told, key=self._secret, digest_size=32, person=form).digest()

    def learn(self, sent: bytes, headers: Headers, call: Call, again: Again) -> None:
        """Know a request that was just answered the whole way from memory; not one with more to it than its bytes and
        its caller."""
        if call.known is None or not _OWN.isdisjoint(name for name, _ in headers):
            return
        if not _OF_RATE.issuperset(name for name, _ in call.headers):
            return
        self._known[sent] = _Known(again, call.known, call.route)
        if len(self._known) > MOST:
            self._known.popitem(last=False)

    def known(self, sent: bytes) -> _Known | None:
        """What was made of the request before, if that holds."""
        return _held(self._known, sent)

    def note(self, piece: bytes, known: _Known) -> None:
        """Know a request as it came over the connection: one that `near` has just answered, all in one piece."""
        if len(piece) > LONGEST:
            return
        self._whole[self._digest(piece, b"piece")] = known
        if len(self._whole) > MOST:
            self._whole.popitem(last=False)

    def at_once(self, piece: bytes) -> bytes | None:
        """The response to a request that comes in one piece as one did before (see `near`)."""
        if not self._whole or len(piece) > LONGEST:
            return None
        known = _held(self._whole, self._digest(piece, b"piece"))
        return None if known is None else self.near(known, time.perf_counter())

    def forget(self, flywheel: Flywheel) -> None:
        """Know nothing any more that this one would answer."""
        for sent in [sent for sent, known in self._known.items() if known.again.flywheel is flywheel]:
            del self._known[sent]

    def waits(self, known: _Known) -> bool:
        """Whether Redis has to be asked, for the answer or for who calls."""
        return known.caller is not self._service.anybody or known.again.flywheel.at_hand.confirmed

    def near(self, known: _Known, began: float) -> bytes | None:
        """The response (see `_response`) where Redis need not be asked; None: the request goes the whole way."""
        again = known.again
        answer = again.flywheel.at_hand.near(again.question, again.flow, again.user)
        return None if answer is None else self._response(known, answer, began)

    async def confirmed(self, known: _Known, scope: Any, began: float) -> bytes | None:
        """The same as Redis confirms it. May raise what the whole way would; where a credential was checked and the
        request goes the whole way, the gate finds the call in its scope."""
        if known.caller is self._service.anybody:
            return await self._found(known, began, None)
        call = Call(self._service, request_id=new_id()[:16])
        call.known = await self._service.admit(call, dict(scope["headers"]))
        scope[ADMITTED] = call
        if call.known != known.caller or call.flywheel is not known.again.flywheel:
            return None
        told = await self._found(known, began, call)
        if told is not None:
            call.release()
        return told

    async def _found(self, known: _Known, began: float, call: Call | None) -> bytes | None:
        again = known.again
        answer = await again.flywheel.at_hand.answer(again.question, again.flow, again.user)
        return None if answer is None else self._response(known, answer, began, call)

    def _response(self, known: _Known, answer: Answer, began: float, call: Call | None = None) -> bytes:
        """The response without the status line and what the server says of itself; counted and logged."""
        head = known.head
        if head is None or head.facts != facts_of(answer):
            head = known.head = _Head(known.again, answer)
        body = known.again.body(answer)
        request_id = new_id()[:16] if call is None else call.request_id
        parts = [head.filled(answer, len(body), request_id)]
        if call is not None:
            for name, value in call.headers:
                parts += (name, b": ", value, _END)
        self.answered += 1
        self._service.answered(known.route, known.caller, request_id, "POST", 200, time.perf_counter() - began)
        return b"".join((*parts, _END, body))
