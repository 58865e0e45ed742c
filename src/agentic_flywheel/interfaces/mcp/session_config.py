"""Configuration that holds for one session: kept in Redis beside the conversation, so it survives this process.

Invariant: what was configured for a session is applied to that session's questions by every MCP server of the tenant,
or the asker is warned. The connection plays no part: identity is the session id. The value expires with the
retention of sessions, and is renewed whenever it is changed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec

from agentic_flywheel.errors import StoreError
from agentic_flywheel.flows.routing import route
from agentic_flywheel.flywheel import Flywheel
from agentic_flywheel.interfaces.mcp.arguments import laid_over
from agentic_flywheel.store.keys import safe

logger = logging.getLogger(__name__)

#: Used where sessions are kept for ever: a configuration nobody renewed for so long is forgotten.
_LONGEST = timedelta(days=365)


class SessionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What one session configured: by flow key, and the flow configured last, which the session then stays with.

    >>> SessionConfig(flow="docs", flows={"docs": {"temperature": 0.1}}).flows["docs"]
    {'temperature': 0.1}
    """

    flow: str = ""
    flows: dict[str, dict[str, Any]] = {}


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What a session's configuration means for one question: the flow to ask, what is laid over its config."""

    flow: str | None
    config: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()


class SessionConfigs:
    """The configurations of all sessions; remembered in this process too, for when Redis is away."""

    def __init__(self, flywheel: Flywheel) -> None:
        self._flywheel = flywheel
        self._own: dict[str, SessionConfig] = {}

    async def read(self, session: str) -> tuple[SessionConfig, tuple[str, ...]]:
        """The session's configuration, and warnings where Redis could not be asked for it."""
        try:
            raw = await self._flywheel.plain_get(self._key(session))
        except StoreError as error:
            logger.warning("session configuration not read: %s (error id %s)", error.message, error.error_id)
            warning = (
                f"The configuration of session {session!r} could not be read ({error.message}); "
                "what this server process knows of it was used."
            )
            return self._own.get(session, SessionConfig()), (warning,)
        if raw is None:
            return self._own.get(session, SessionConfig()), ()
        try:
            return msgspec.json.decode(raw, type=SessionConfig), ()
        except msgspec.DecodeError:
            warning = (
                f"The stored configuration of session {session!r} is damaged and was not used; configure it again."
            )
            logger.warning("a stored session configuration is damaged: %s", self._key(session))
            return SessionConfig(), (warning,)

    async def change(self, session: str, flow: str, changes: Mapping[str, Any]) -> tuple[dict[str, Any], bool, str]:
        """Lay `changes` over what the session configured for `flow`.

        Returns the configuration that holds then, whether it differs from before, and where it is kept.
        """
        known, _ = await self.read(session)
        before = known.flows.get(flow, {})
        after = laid_over(before, changes)
        flows = {key: config for key, config in {**known.flows, flow: after}.items() if config}
        changed = SessionConfig(flow=flow if after else "", flows=flows)
        days = float(self._flywheel.settings["session.retention_days"])
        try:
            await self._flywheel.plain_set(
                self._key(session), msgspec.json.encode(changed), timedelta(days=days) if days else _LONGEST
            )
        except StoreError as error:
            logger.warning("session configuration not stored: %s (error id %s)", error.message, error.error_id)
            self._own[session] = changed
            return after, after != before, "process"
        self._own.pop(session, None)
        return after, after != before, "redis"

    async def apply(self, question: str, session: str | None, flow: str | None, intent: str | None) -> Applied:
        """What holds for a question: the flow named, else the one the session configured (an intent comes first)."""
        if session is None:
            return Applied(flow=flow)
        known, warnings = await self.read(session)
        if not known.flows:
            return Applied(flow=flow, warnings=warnings)
        picked = route(
            question, self._flywheel.registry.current(), flow=flow, intent=intent, session_flow=known.flow or None
        )
        return Applied(flow=picked.flow, config=known.flows.get(picked.flow), warnings=warnings)

    def _key(self, session: str) -> str:
        return f"afw:mcp:{safe(self._flywheel.settings.text('tenant'))}:session-config:{safe(session)}"
