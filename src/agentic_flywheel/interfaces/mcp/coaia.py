"""`coaia_tash` and `coaia_fetch`: plain values in the same Redis, interchangeable with coaiapy's own tools.

Invariant: keys are raw and values plain text, byte for byte what coaiapy writes and reads; the names and shapes of
results are those of its MCP server. A difference that is meant: failures are `is_error` results that carry our
structure beside `success: false`.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Annotated

from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field

from agentic_flywheel.errors import FlywheelError, InputError, NotFound
from agentic_flywheel.interfaces.mcp.results import FetchResult, Result, TashResult
from agentic_flywheel.interfaces.mcp.surface import FlywheelServer, failed

Key = Annotated[str, Field(min_length=1, max_length=1024, description="The key, used as it is (no prefix).")]


def add_coaia_tools(server: FlywheelServer) -> None:
    """Register the tools on `server`."""
    flywheel = server.flywheel

    @server.tool(
        title="Stash a value",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def coaia_tash(
        key: Key,
        value: Annotated[str, Field(min_length=1, description="The text to keep.")],
        ttl_minutes: Annotated[
            int | None, Field(ge=1, le=52_560_000, description="Forget it after so many minutes; left out: never.")
        ] = None,
    ) -> Annotated[CallToolResult, TashResult]:
        """Store a text under a key in Redis, replacing what is there, for coaia_fetch or coaiapy to read.

        Use it to hand a note or a result to another tool or a later session. Do not use it for questions and
        answers: flowise_query remembers those by itself.
        """
        ttl = None if ttl_minutes is None else timedelta(minutes=ttl_minutes)
        try:
            await flywheel.plain_set(key, value.encode(), ttl)
        except FlywheelError as error:
            return failed(error, success=False)
        return _plain(TashResult(success=True, message=f"Stored '{key}' in Redis"))

    @server.tool(
        title="Fetch a value",
        annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
    )
    async def coaia_fetch(key: Key) -> Annotated[CallToolResult, FetchResult]:
        """Read the text that coaia_tash or coaiapy stored under a key.

        Use it when you were given a key. Do not use it to search, nor for answers to questions (flowise_query).
        """
        try:
            raw = await flywheel.plain_get(key)
            if raw is None:
                raise NotFound(
                    f"Key '{key}' not found in Redis",
                    suggestions=(
                        "Check the spelling: keys are used as they are, letter case included.",
                        "It may have expired: store it again with coaia_tash.",
                        "Check that both sides use the same Redis and database: `afw doctor` names the server.",
                    ),
                    key=key,
                )
            value = _text(key, raw)
        except FlywheelError as error:
            return failed(error, success=False)
        return _plain(FetchResult(success=True, value=value))


def _text(key: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"the value of {key!r} is not text in UTF-8",
            suggestions=(
                "Read it with a Redis client: coaia_fetch reads text only.",
                "Check the key: another program may have written a binary value under it.",
                "Store it again as text with coaia_tash.",
            ),
            key=key,
            size_bytes=len(raw),
        ) from error


def _plain(result: Result) -> CallToolResult:
    """The structure as JSON text too: callers of coaiapy's server read it there."""
    content = result.model_dump(mode="json")
    text = json.dumps(content, ensure_ascii=False)
    return CallToolResult(content=[TextContent(text=text)], structured_content=content)
