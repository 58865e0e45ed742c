"""Flowise chatflows and agentflows, asked over its prediction API.

Invariant: see `flows.protocol`; proved on recordings of a real Flowise in tests/integration/test_flowise.py.

Known limit: when the stream of the model *behind* Flowise breaks, Flowise (3.1) ends its own stream as if all were
well, and the truncated text cannot be told from a whole one. Only agentflows show how their model stopped; where
they do, such an answer is marked incomplete and never stored.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any, NamedTuple

from agentic_flywheel.errors import FlowError, FlowGarbled, FlowMissing, FlowTimeout
from agentic_flywheel.flows.flowise_reading import Reading, failure_of
from agentic_flywheel.flows.flowise_revision import chatflow_digest
from agentic_flywheel.flows.protocol import FlowEvent, FlowHealth, FlowQuestion, FlowSpec, Revision, Verbatim
from agentic_flywheel.flows.remote import RemoteClient
from agentic_flywheel.flows.replies import Page
from agentic_flywheel.flows.wire import Deadline
from agentic_flywheel.model import Exchange

#: Whether a flow streams, and Flowise's version, change rarely; what is known of them is trusted for so long.
_KNOWLEDGE_SECONDS = 60.0
#: What is known of who may ask a flow decides about answers from memory, so it is looked at more often.
_RESTRICTIONS_SECONDS = 15.0
_CANVASES = {"AGENTFLOW": "/v2/agentcanvas", "MULTIAGENT": "/agentcanvas"}


class Restrictions(NamedTuple):
    """Whom Flowise lets ask a flow: `bound` says that it takes a key (None: nobody may know), `origins` are the pages
    that may ask (none named: all), `own` is the credential that this client shows by itself, `streams` whether the flow
    can be heard while it answers."""

    bound: bool | None = None
    origins: tuple[str, ...] = ()
    own: str = ""
    streams: bool = False


class FlowiseClient(RemoteClient):
    """One chatflow of a Flowise server, ready to be asked.

    The API key is usually `FLOWISE_API_KEY`; predictions of flows without a bound key are open to everybody. With a key
    that may read chatflows the revision covers allowed overrides and credentials too; without, it covers what Flowise
    shows publicly of any flow. `options: {streaming: false}` asks for the whole answer at once.

    >>> from datetime import timedelta
    >>> spec = FlowSpec(key="docs", id="d19a68c8", kind="flowise", base_url="http://localhost:3000/")
    >>> client = FlowiseClient(spec, environ={}, timeout=timedelta(seconds=60), check_timeout=timedelta(seconds=2))
    >>> client.address
    'http://localhost:3000/canvas/d19a68c8'
    """

    accepts_history = True
    accepts_instructions = False
    revision_is_remote = True
    usual_key_variable = "FLOWISE_API_KEY"
    _streams: tuple[bool, float] | None = None
    _version: tuple[str, float] | None = None
    _restrictions: tuple[Restrictions, float] | None = None
    _type = ""

    @staticmethod
    def _service(spec: FlowSpec) -> str:
        return spec.base_url.rstrip("/").removesuffix("/api/v1")

    @property
    def address(self) -> str:
        """The flow's canvas in Flowise."""
        return f"{self._wire.base_url}{_CANVASES.get(self._type, '/canvas')}/{self._id}"

    async def stream(self, question: FlowQuestion) -> AsyncGenerator[FlowEvent]:
        """Ask the flow; see `FlowClient.stream`."""
        deadline = self._wire.deadline()
        verbatim = question.verbatim
        # Asked for a flow that it does not know, Flowise hangs on a stream: so that is found out in any case.
        streaming = await self._is_streamable(deadline) and (verbatim is None or verbatim.streaming)
        reading = Reading(self._wire.failure, verbatim=verbatim is not None)
        path, body = f"/api/v1/prediction/{self._id}", self._body(question, streaming)
        headers = None if verbatim is None else self._headers_of(verbatim)
        try:
            async with self._wire.open("POST", path, deadline, body=body, headers=headers) as reply:
                if reply.status == 200 and reply.media_type == "text/event-stream":
                    async with aclosing(reply.events()) as frames:
                        async for frame in frames:
                            for event in reading.take(frame):
                                yield event
                            if reading.ended:
                                break
                    for event in reading.rest():
                        yield event
                else:
                    for event in self._read_whole(await reply.page(), reading):
                        yield event
            yield reading.done()
        except (FlowMissing, FlowTimeout):
            self._streams = None  # deleted, perhaps: asked to stream, Flowise hangs on a flow that it does not know
            raise

    def _read_whole(self, page: Page, reading: Reading) -> Iterator[FlowEvent]:
        """The events of a reply that is no stream. Raises `FlowError`, with Flowise's own words as its `reply`."""
        if page.status != 200:
            error = self._refusal(page)
            error.reply = page
            raise error
        answer = page.json()
        if answer is None:
            raise self._wire.not_an_answer(page)
        yield from reading.take_whole(answer, page)

    async def revision(self, known: Revision) -> Revision:
        """Flowise's configuration of the flow; see `FlowClient.revision`.

        The `etag` holds where the configuration was read, Flowise's version and the HTTP ETag: a reply "not modified"
        counts only for the same place and version.
        """
        deadline = self._wire.check_deadline()
        try:
            version = await self._flowise_version(deadline)
            if self._has_key:
                page, revision = await self._read("key", f"/api/v1/chatflows/{self._id}", version, known, deadline)
                if revision is not None:
                    return revision
                if page.status not in {401, 403}:
                    raise self._refusal(page)
            path = f"/api/v1/public-chatbotConfig/{self._id}"
            page, revision = await self._read("public", path, version, known, deadline)
            if revision is None:
                raise self._refusal(page)
        except FlowMissing:
            self._streams = None
            raise
        return revision

    async def check(self) -> FlowHealth:
        """Look whether Flowise is there, knows the flow and accepts the key; see `FlowClient.check`."""
        began = time.perf_counter()
        deadline = self._wire.check_deadline()
        notes: list[str] = []
        version, ok = "", False
        try:
            ping = await self._wire.fetch("GET", "/api/v1/ping", deadline)
            if ping.status != 200 or ping.body.strip() != b"pong":
                notes.append(f"{self._wire.base_url} answers, but not as Flowise does; check base_url.")
            else:
                version = await self._flowise_version(deadline)
                notes.append(f"Flowise {version or 'of unknown version'} answers at {self._wire.base_url}.")
                self._streams = None
                streams = await self._is_streamable(deadline)
                notes.append(f"It knows the flow {self.spec.id}, which {'streams' if streams else 'does not stream'}.")
                ok = await self._check_key(deadline, notes)
        except FlowError as error:
            ok = False
            notes.append(error.message)
        return FlowHealth(ok=ok, notes=tuple(notes), version=version, elapsed_ms=(time.perf_counter() - began) * 1000.0)

    def _headers_of(self, verbatim: Verbatim) -> dict[str, str]:
        """Headers of one call: those that Flowise looks at, and the credential that the asker showed."""
        headers = dict(verbatim.headers)
        if verbatim.authorization is not None:
            headers["authorization"] = verbatim.authorization
        return headers

    async def restrictions(self) -> Restrictions:
        """Who may ask the flow, as Flowise's own settings say, 15 s old at most; older ones while it is away.

        Raises `FlowError` where nothing is known and Flowise cannot be asked, `FlowMissing` for an unknown flow.
        """
        known = self.known_restrictions()
        if known is not None:
            return known
        try:
            self._restrictions = (await self._read_restrictions(), time.monotonic())
        except FlowMissing:
            self._restrictions = None
            raise
        except FlowError:
            if self._restrictions is None:
                raise
        return self._restrictions[0]

    def known_restrictions(self) -> Restrictions | None:
        """Those restrictions where they are known and not too old."""
        known = self._restrictions
        return known[0] if known is not None and time.monotonic() - known[1] < _RESTRICTIONS_SECONDS else None

    async def _read_restrictions(self) -> Restrictions:
        deadline = self._wire.check_deadline()
        streams = await self._is_streamable(deadline)
        shown = await self._wire.fetch("GET", f"/api/v1/public-chatbotConfig/{self._id}", deadline)
        chatbot = shown.json()
        if shown.status != 200 or not isinstance(chatbot, dict):
            raise self._refusal(shown)
        bound: bool | None = None
        if self._has_key:
            page = await self._wire.fetch("GET", f"/api/v1/chatflows/{self._id}", deadline)
            chatflow = page.json()
            if page.status == 200 and isinstance(chatflow, dict) and "apikeyid" in chatflow:
                bound = bool(chatflow["apikeyid"])
        origins = chatbot.get("allowedOrigins")
        allowed = tuple(str(one) for one in origins if one) if isinstance(origins, list) else ()
        return Restrictions(bound, allowed, self._credentials.get("authorization", ""), streams)

    def _body(self, question: FlowQuestion, streaming: bool) -> dict[str, Any]:
        conversation = question.conversation or uuid.uuid4().hex
        body: dict[str, Any] = {
            "question": question.text,
            "overrideConfig": {**self.spec.config, **question.config, "sessionId": conversation},
            # Flowise delivers a stream to the newest request of its chatId, so that one must be unique as well.
            "chatId": conversation,
            "history": [message for exchange in question.history for message in _messages(exchange)],
        }
        return body | {"streaming": True} if streaming else body

    async def _is_streamable(self, deadline: Deadline) -> bool:
        """Whether to ask for a stream. Raises `FlowMissing` for an unknown flow: asked to stream, Flowise hangs on it.

        Where this cannot be told (an old Flowise, a proxy, a slow reply) the plain way is safe.
        """
        if self.spec.options.get("streaming") is False:
            return False
        now = time.monotonic()
        if self._streams is not None and now - self._streams[1] < _KNOWLEDGE_SECONDS:
            return self._streams[0]
        try:
            page = await self._wire.fetch(
                "GET", f"/api/v1/chatflows-streaming/{self._id}", deadline.sooner(self._wire.check_timeout)
            )
        except FlowTimeout:
            if asyncio.get_running_loop().time() >= deadline.at:
                raise
            return False
        if page.status in {400, 404, 412, 500} and _denies_the_flow(page.words()):
            raise self._refusal(page)
        answer = page.json()
        streams = page.status == 200 and isinstance(answer, dict) and answer.get("isStreaming") is True
        self._streams = (streams, now)
        return streams

    async def _flowise_version(self, deadline: Deadline) -> str:
        now = time.monotonic()
        if self._version is None or now - self._version[1] >= _KNOWLEDGE_SECONDS:
            page = await self._wire.fetch("GET", "/api/v1/version", deadline)
            # An error that may pass must not look like another version: every answer would be thought outdated.
            if page.status >= 500 or page.status == 429:
                raise self._refusal(page)
            answer = page.json()
            version = answer.get("version") if isinstance(answer, dict) else None
            self._version = (version if isinstance(version, str) else "", now)
        return self._version[0]

    async def _read(
        self, place: str, path: str, version: str, known: Revision, deadline: Deadline
    ) -> tuple[Page, Revision | None]:
        """The revision as one of the two places shows it, None where it refuses."""
        stamp = f"{place} {version} "
        etag = known.etag.removeprefix(stamp) if known.digest and known.etag.startswith(stamp) else ""
        page = await self._wire.fetch("GET", path, deadline, headers={"if-none-match": etag} if etag else None)
        if page.status == 304 and etag:
            return page, known
        if page.status != 200:
            return page, None
        chatflow = page.json()
        digest = chatflow_digest(chatflow, version) if isinstance(chatflow, dict) else None
        if digest is None:
            raise self._wire.not_an_answer(page)
        self._type = str(chatflow.get("type") or self._type)
        return page, Revision(digest, stamp + page.headers.get("etag", ""))

    async def _check_key(self, deadline: Deadline, notes: list[str]) -> bool:
        if not self._has_key:
            notes.append(f"{self._key_variable} is not set: the flow is asked without an API key.")
            return True
        page = await self._wire.fetch("GET", f"/api/v1/chatflows/{self._id}", deadline)
        if page.status == 200 and page.json() is not None:
            notes.append(f"The API key in {self._key_variable} is accepted and may read the flow.")
            return True
        if page.status in {401, 403}:
            notes.append(
                f"The API key in {self._key_variable} is not accepted, or lacks the permission chatflows:view "
                "(agentflows: agentflows:view); changes are seen only as far as Flowise shows the flow publicly."
            )
        else:
            notes.append(self._refusal(page).message)
        return False

    def _refusal(self, page: Page) -> FlowError:
        """The error for a reply of Flowise that is not 200; it reports most failures as 500."""
        said = page.words()
        if page.status == 412 or (page.status == 400 and "Invalid Chatflow ID" in said):
            return self._wire.failure(
                FlowMissing,
                f"{self.spec.id!r} is not the id of a chatflow: {said}",
                status=page.status,
                suggestions=("Copy the id from the address of the flow's canvas in Flowise; it is a UUID.",),
            )
        if page.status == 500 and page.json() is not None:
            error = failure_of(said, self._wire.failure)
            error.details["status"] = 500
            return error
        if page.status == 200:
            return self._wire.failure(FlowGarbled, f"{self._wire.base_url} answered with {page.media_type}", status=200)
        return self._wire.refusal(page)


def _messages(exchange: Exchange) -> tuple[dict[str, str], dict[str, str]]:
    return (
        {"role": "userMessage", "content": exchange.question},
        {"role": "apiMessage", "content": exchange.answer},
    )


def _denies_the_flow(said: str) -> bool:
    return "not found" in said or "Invalid Chatflow ID" in said or "not provided" in said
