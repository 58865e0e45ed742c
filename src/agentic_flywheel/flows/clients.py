"""From a flow's description to a client that can be asked, and the clients that a process keeps open.

Invariant: a client is closed once and never while a question is on its way through it.
"""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

from agentic_flywheel.errors import RegistryError
from agentic_flywheel.flows.protocol import FlowClient, FlowSpec
from agentic_flywheel.flows.registry_file import KINDS
from agentic_flywheel.settings import Settings


def make_client(
    spec: FlowSpec, *, environ: Mapping[str, str], timeout: timedelta, check_timeout: timedelta
) -> FlowClient:
    """A client for the flow; whoever makes it closes it. The flow's own `timeout` comes before the one given.

    >>> spec = FlowSpec(key="d", id="d", kind="documents", options={"folder": "/nonexistent"})
    >>> make_client(spec, environ={}, timeout=timedelta(seconds=9), check_timeout=timedelta(seconds=1)).address
    '/nonexistent'
    """
    if spec.timeout is not None:
        timeout = spec.timeout
    match spec.kind:
        case "flowise":
            from agentic_flywheel.flows.flowise import FlowiseClient

            return FlowiseClient(spec, environ=environ, timeout=timeout, check_timeout=check_timeout)
        case "openai":
            from agentic_flywheel.flows.openai import OpenAIClient

            return OpenAIClient(spec, environ=environ, timeout=timeout, check_timeout=check_timeout)
        case "langflow":
            from agentic_flywheel.flows.langflow import LangflowClient

            return LangflowClient(spec, environ=environ, timeout=timeout, check_timeout=check_timeout)
        case "documents":
            from agentic_flywheel.flows.documents import DocumentsClient

            return DocumentsClient(spec, environ=environ, timeout=timeout, check_timeout=check_timeout)
        case "python":
            from agentic_flywheel.flows.callable import PythonClient

            return PythonClient(spec, environ=environ, timeout=timeout, check_timeout=check_timeout)
    near = difflib.get_close_matches(spec.kind, KINDS, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise RegistryError(
        f"{spec.origin or spec.key}: flow {spec.key!r} is of unknown kind {spec.kind!r}, expected one of "
        f"{', '.join(KINDS)}{hint}",
        flow=spec.key,
        found=spec.kind,
        nearest=near[0] if near else None,
    )


class _Kept:
    """A client in the pool, and how many are using it."""

    def __init__(self, spec: FlowSpec, client: FlowClient) -> None:
        self.spec = spec
        self.client = client
        self.users = 0
        self.retired = False


class ClientPool:
    """One client per flow, made when first used and made anew when the flow's description changes.

    The one before it is closed when the last question on its way through it is answered. Belongs to one event loop.
    """

    def __init__(self, settings: Settings) -> None:
        self._environ = settings.environ
        self._timeout = timedelta(seconds=settings.number("flow.timeout_seconds"))
        self._check_timeout = timedelta(seconds=settings.number("flow.check_timeout_seconds"))
        self._kept: dict[str, _Kept] = {}
        self._closed = False

    @asynccontextmanager
    async def use(self, spec: FlowSpec) -> AsyncIterator[FlowClient]:
        """The flow's client, kept open as long as the block runs. Raises `RegistryError` for an unknown kind."""
        kept, old = self._take(spec)
        try:
            if old is not None:
                await self._retire(old)
            yield kept.client
        finally:
            kept.users -= 1
            if kept.retired and not kept.users:
                await kept.client.aclose()

    def at_hand(self, spec: FlowSpec) -> FlowClient | None:
        """The flow's client if it is open, for a look that takes no time."""
        kept = self._kept.get(spec.key)
        return kept.client if kept is not None and kept.spec is spec else None

    async def forget(self, spec: FlowSpec) -> None:
        """Close the flow's client once nobody uses it: the flow is none that there is."""
        kept = self._kept.get(spec.key)
        if kept is not None and kept.spec == spec:
            del self._kept[spec.key]
            await self._retire(kept)

    def address(self, spec: FlowSpec) -> str:
        """Where a person looks at the flow, "" where there is no such place. Opens nothing."""
        return self._made(spec).address

    async def aclose(self) -> None:
        """Close every client that is not in use; the others close when they are done. Safe to call twice."""
        self._closed = True
        while self._kept:
            _, kept = self._kept.popitem()
            await self._retire(kept)

    def _take(self, spec: FlowSpec) -> tuple[_Kept, _Kept | None]:
        """The client for this description, marked as in use, and the one it replaces; without a pause."""
        if self._closed:
            raise RuntimeError("the pool of flow clients is closed")
        old = self._kept.get(spec.key)
        if old is not None and (old.spec is spec or old.spec == spec):
            old.users += 1
            return old, None
        kept = _Kept(spec, self._made(spec))
        kept.users = 1
        self._kept[spec.key] = kept
        return kept, old

    def _made(self, spec: FlowSpec) -> FlowClient:
        return make_client(spec, environ=self._environ, timeout=self._timeout, check_timeout=self._check_timeout)

    @staticmethod
    async def _retire(kept: _Kept) -> None:
        kept.retired = True
        if not kept.users:
            await kept.client.aclose()
