"""From a flow's description to a client that can be asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

from agentic_flywheel.flows.protocol import FlowClient, FlowSpec
from agentic_flywheel.settings import Settings


def make_client(
    spec: FlowSpec, *, environ: Mapping[str, str], timeout: timedelta, check_timeout: timedelta
) -> FlowClient:
    """A client for the flow; whoever makes it closes it."""
    raise NotImplementedError


class ClientPool:
    """One client per flow, made when first used and made anew when the flow's description changes."""

    def __init__(self, settings: Settings) -> None:
        raise NotImplementedError

    @asynccontextmanager
    async def use(self, spec: FlowSpec) -> AsyncIterator[FlowClient]:
        """The flow's client, kept open as long as the block runs."""
        raise NotImplementedError
        yield

    async def aclose(self) -> None:
        """Close every client. Safe to call twice."""
        raise NotImplementedError
