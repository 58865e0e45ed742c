"""How the kinds that are asked over HTTP reach their service.

Invariant: nothing but `FlowError` leaves this module, however the other side behaves, and no wait outlasts its
deadline. The deadline bounds each single wait rather than a block around the whole stream: events are yielded
between two waits, and a timeout that fired there would cancel the asker instead of the reading. Credentials never
stand in a message: they are cut out of whatever the service says.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from agentic_flywheel.errors import (
    FlowError,
    FlowGarbled,
    FlowLimited,
    FlowMissing,
    FlowRefused,
    FlowTimeout,
    FlowUnavailable,
)
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.replies import QUOTED_CHARACTERS, EventReader, Page, kind_by_words, seconds_of

if TYPE_CHECKING:
    import httpx2

#: Longest wait for a connection: a host that has not answered by then is not there.
CONNECT_TIMEOUT = timedelta(seconds=5)
#: Node closes idle connections after 5 s (its default); a POST must not race with that, since it is never repeated.
KEEP_ALIVE = timedelta(seconds=4)
#: No answer is longer; what is, would only fill the memory.
MAX_REPLY_BYTES = 32 * 1024 * 1024
#: A service that asks for a longer pause than this is not asked again on the spot.
LONGEST_PAUSE = timedelta(seconds=2)


def short_pause() -> timedelta:
    """The pause before the one retry: long enough for a restart behind a balancer, jittered against herds."""
    return timedelta(seconds=random.uniform(0.1, 0.4))


class Deadline(msgspec.Struct, frozen=True):
    """A point of the event loop's clock, and the time allowed that led to it (for messages)."""

    at: float
    allowed: timedelta

    @classmethod
    def within(cls, allowed: timedelta) -> Deadline:
        return cls(asyncio.get_running_loop().time() + allowed.total_seconds(), allowed)

    def sooner(self, allowed: timedelta) -> Deadline:
        """The nearer of this deadline and one `allowed` from now."""
        other = Deadline.within(allowed)
        return other if other.at < self.at else self


class Wire:
    """The connections of one flow client to one service, opened on first use; closed by the client's `aclose`.

    `secret` is the API key, kept only to be cut out of texts; `headers` carry it. `pause` gives the wait before the
    one retry, which happens where the request cannot have had an effect (nobody accepted the connection) or a
    gateway says that its service is away just now (502, 503). A timeout is never retried, and 504 is one: the flow
    may still be at work on the first request.
    """

    def __init__(
        self,
        spec: FlowSpec,
        *,
        base_url: str,
        headers: Mapping[str, str],
        secret: str,
        timeout: timedelta,
        check_timeout: timedelta,
        pause: Callable[[], timedelta] = short_pause,
    ) -> None:
        self._spec = spec
        self._given_url = base_url
        self._headers = dict(headers)
        self._secret = secret
        self._timeout = timeout
        self._check_timeout = check_timeout
        self._pause = pause
        self._pool: httpx2.AsyncClient | None = None
        self._closed = False
        self.base_url = _without_login(base_url).rstrip("/")

    def deadline(self) -> Deadline:
        """When an answer asked for now must be complete."""
        return Deadline.within(self._timeout)

    def check_deadline(self) -> Deadline:
        """When a look at the flow's configuration must be over."""
        return Deadline.within(self._check_timeout)

    @property
    def check_timeout(self) -> timedelta:
        return self._check_timeout

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        deadline: Deadline,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Reply]:
        """Send a request and give the reply, whatever its status, before its body was read."""
        pool = self._open_pool()
        # ASCII with escapes: a question may hold what UTF-8 cannot (arguments of a shell in another encoding).
        content = None if body is None else json.dumps(body, default=str).encode()
        headers = {**(headers or {}), **({"content-type": "application/json"} if body is not None else {})}
        response: httpx2.Response | None = None
        try:
            for last_attempt in (False, True):
                try:
                    async with self.waiting(deadline):
                        request = pool.build_request(
                            method, self.base_url + path, content=content, headers=headers, params=params
                        )
                        response = await pool.send(request, stream=True)
                except FlowUnavailable as error:
                    if last_attempt or not _was_without_effect(error, method):
                        raise
                else:
                    if last_attempt or response.status_code not in {502, 503} or _pause_asked(response) > LONGEST_PAUSE:
                        break
                    await response.aclose()
                async with self.waiting(deadline):
                    await asyncio.sleep(self._pause().total_seconds())
            assert response is not None
            yield Reply(self, response, deadline)
        finally:
            if response is not None:
                await response.aclose()

    async def fetch(
        self,
        method: str,
        path: str,
        deadline: Deadline,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Page:
        """Send a request without a body and read the whole reply."""
        async with self.open(method, path, deadline, headers=headers) as reply:
            return await reply.page()

    @asynccontextmanager
    async def waiting(self, deadline: Deadline) -> AsyncIterator[None]:
        """Bound one wait by the deadline and map what may go wrong in it."""
        import httpx2

        try:
            async with asyncio.timeout_at(deadline.at):
                yield
        except (TimeoutError, httpx2.TimeoutException) as error:
            if isinstance(error, httpx2.ConnectTimeout):
                allowed = min(CONNECT_TIMEOUT, deadline.allowed)
                raise self.failure(
                    FlowTimeout, f"no connection to {self.base_url} within {allowed.total_seconds():g} s"
                ) from error
            seconds = deadline.allowed.total_seconds()
            raise self.failure(
                FlowTimeout, f"no complete answer from {self.base_url} within {seconds:g} s", timeout_seconds=seconds
            ) from error
        except httpx2.ConnectError as error:
            raise self.failure(FlowUnavailable, f"cannot connect to {self.base_url}: {_words(error)}") from error
        except (httpx2.UnsupportedProtocol, httpx2.InvalidURL, httpx2.LocalProtocolError) as error:
            raise self._no_address(_words(error)) from error
        except httpx2.DecodingError as error:
            raise self.failure(FlowGarbled, f"{self.base_url} sent what cannot be decoded: {_words(error)}") from error
        except httpx2.TransportError as error:
            raise self.failure(
                FlowUnavailable, f"the connection to {self.base_url} was lost: {_words(error)}"
            ) from error

    def failure(
        self,
        kind: type[FlowError],
        what: str,
        *,
        suggestions: tuple[str, ...] = (),
        retry_after_seconds: float | None = None,
        **details: Any,
    ) -> FlowError:
        """A `FlowError` about this flow; credentials are cut out of `what`."""
        return kind(
            f"flow {self._spec.key!r}: {self.hide(what)}",
            suggestions=suggestions,
            retry_after_seconds=retry_after_seconds,
            flow=self._spec.key,
            address=self.base_url,
            **details,
        )

    def hide(self, text: str) -> str:
        """`text` without the API key, and no longer than a message should be."""
        if self._secret:
            text = text.replace(self._secret, "[key]")
        text = " ".join(text.split())
        return text if len(text) <= 2 * QUOTED_CHARACTERS else text[: 2 * QUOTED_CHARACTERS] + "…"

    def refusal(self, page: Page) -> FlowError:
        """The error that a reply with another status than 2xx stands for."""
        status, said = page.status, page.words()
        what = f"{self.base_url} answered {status}" + (f": {said}" if said else "")
        if status in {401, 403}:
            return self.failure(FlowRefused, what, status=status)
        if status in {404, 405, 410}:
            return self.failure(FlowMissing, what, status=status)
        if status == 429:
            return self.failure(FlowLimited, what, status=status, retry_after_seconds=page.retry_after_seconds)
        if status in {408, 504}:
            return self.failure(FlowTimeout, what, status=status, retry_after_seconds=page.retry_after_seconds)
        if status >= 500:
            kind = kind_by_words(said) if status == 500 else FlowUnavailable
            return self.failure(kind, what, status=status, retry_after_seconds=page.retry_after_seconds)
        if status < 400:
            location = page.headers.get("location", "")
            to = f" to {_without_login(location)}" if location else ""
            what = f"{self.base_url} redirects{to} instead of answering"
            return self.failure(FlowGarbled, what, status=status)
        return self.failure(
            FlowError,
            what,
            status=status,
            retry_after_seconds=0.0,
            suggestions=("The service did not accept the request: compare the flow's config with what it knows.",),
        )

    def not_an_answer(self, page: Page) -> FlowError:
        """The error for a reply that should have been JSON or a stream and is something else."""
        media = page.media_type or "no content type"
        said = page.words()
        return self.failure(
            FlowGarbled,
            f"{self.base_url} answered with {media} instead of an answer" + (f": {said}" if said else ""),
            status=page.status,
        )

    async def aclose(self) -> None:
        """Close the connections. Safe to call twice."""
        self._closed = True
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()

    def _no_address(self, why: str) -> FlowError:
        return self.failure(
            FlowMissing,
            f"{self.base_url!r} cannot be asked: {why}",
            suggestions=("Set base_url of the flow to the address of its service, as in http://localhost:3000.",),
        )

    def _open_pool(self) -> httpx2.AsyncClient:
        if self._closed:
            raise self.failure(FlowUnavailable, "this client was closed; open the flow again")
        if self._pool is None:
            import httpx2

            try:
                login = httpx2.URL(self._given_url)
            except httpx2.InvalidURL as error:
                raise self._no_address(_words(error)) from error
            if login.scheme not in {"http", "https"} or not login.host or not 0 <= (login.port or 0) <= 65535:
                raise self._no_address("expected an address as in http://localhost:3000")
            try:
                headers = httpx2.Headers(self._headers)
            except UnicodeEncodeError as error:
                raise self.failure(FlowRefused, "the API key holds characters that no key has") from error
            self._pool = httpx2.AsyncClient(
                headers=headers,
                # Without TLS there is nothing to verify (redirects are not followed), and loading certificates takes
                # 25 to 50 ms. TLS to a proxy is verified by a context of its own.
                verify=login.scheme == "https",
                auth=(login.username, login.password) if login.username and not self._secret else None,
                # Every read is bounded by the deadline; a limit on the pool would make questions wait for each other.
                timeout=httpx2.Timeout(None, connect=min(CONNECT_TIMEOUT, self._timeout).total_seconds()),
                limits=httpx2.Limits(
                    max_connections=None, max_keepalive_connections=20, keepalive_expiry=KEEP_ALIVE.total_seconds()
                ),
            )
        return self._pool


class Reply:
    """A reply whose head has arrived; its body is read once, as a page or as events."""

    def __init__(self, wire: Wire, response: httpx2.Response, deadline: Deadline) -> None:
        self._wire = wire
        self._response = response
        self._deadline = deadline
        self.status = response.status_code
        self.media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def page(self) -> Page:
        """The whole body."""
        body = b"".join([chunk async for chunk in self._chunks()])
        return Page(self.status, self.media_type, dict(self._response.headers), body)

    async def events(self, *, bare_json: bool = False) -> AsyncGenerator[str]:
        """The data of each server-sent event; see `EventReader`."""
        reader = EventReader(bare_json=bare_json)
        async with aclosing(self._chunks()) as chunks:
            async for chunk in chunks:
                for event in reader.feed(chunk):
                    yield event
        for event in reader.end():
            yield event

    async def _chunks(self) -> AsyncGenerator[bytes]:
        chunks = self._response.aiter_bytes()
        size = 0
        while True:
            async with self._wire.waiting(self._deadline):
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            size += len(chunk)
            if size > MAX_REPLY_BYTES:
                raise self._wire.failure(
                    FlowGarbled, f"{self._wire.base_url} sent more than {MAX_REPLY_BYTES // 2**20} MB and was cut off"
                )
            yield chunk


def _was_without_effect(error: FlowError, method: str) -> bool:
    """Whether the request that failed may be sent again: nobody accepted it, or it only asked for reading."""
    import httpx2

    if isinstance(error.__cause__, httpx2.ConnectError):
        return True
    return method == "GET" and isinstance(error.__cause__, httpx2.NetworkError | httpx2.RemoteProtocolError)


def _pause_asked(response: httpx2.Response) -> timedelta:
    return timedelta(seconds=seconds_of(response.headers.get("retry-after", "")) or 0.0)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _without_login(url: str) -> str:
    return re.sub(r"(?<=://)[^/@\s]*@", "", url)
