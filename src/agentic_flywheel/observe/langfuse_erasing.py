"""Has traces deleted at Langfuse, by its public API.

Invariant: nothing is deleted there that did not say that it is ours: what is found by a session or a user must be a
question's own span, of this tenant, of exactly that session or user; whatever else an answer holds is left alone. Every
call ends within `seconds`, however slowly the other side speaks.

    GET    /api/public/v2/observations  finds traces (Langfuse 4; its predecessors have /api/public/traces)
    DELETE /api/public/traces           takes ids; what belongs to a trace goes with it, its scores included, within
                                        some 15 minutes and without a confirmation
    DELETE /api/public/scores/{id}      for what was said of a whole session, which belongs to no trace
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx2

from agentic_flywheel.observe.courier import PASSING
from agentic_flywheel.observe.names import Attribute, Span
from agentic_flywheel.observe.places import Place
from agentic_flywheel.observe.sending import Refused, Unreachable

#: Ids in one request to delete traces.
AT_ONCE = 100
#: Rows in one page, and most pages of one search: what is beyond them is found by the next look.
_ROWS = 1000
_OLD_ROWS = 100
_PAGES = 500
#: The words by which Langfuse finds traces of a session or a user.
_FILTERS = {Attribute.SESSION: "sessionId", Attribute.USER: "userId"}


class LangfuseEraser:
    """Langfuse as whoever has traces deleted sees it; use it as `async with`."""

    def __init__(self, place: Place, tenant: str, *, seconds: float) -> None:
        self._place = place
        self._tenant = tenant
        self._seconds = seconds
        self._client = httpx2.AsyncClient(timeout=seconds, headers=place.headers, follow_redirects=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def find(self, attribute: str, value: str) -> list[str]:
        """The ids of the traces of a session or a user (`Attribute.SESSION` or `.USER`, as spans say it). Raises
        `Unreachable` and `Refused`."""
        name = _FILTERS[attribute]
        found: dict[str, None] = {}
        cursor = ""
        for _ in range(_PAGES):
            asked = {name: value, "name": Span.ASK, "fields": "core,basic,metadata", "limit": str(_ROWS)}
            if cursor:
                asked["cursor"] = cursor
            status, page = await self._send("GET", f"{self._place.api}/v2/observations", params=asked, absent=True)
            if status == 404:
                return await self._find_as_before(name, value)
            found |= dict.fromkeys(
                str(row["traceId"])
                for row in _rows(page)
                if row.get("traceId") and row.get("name") == Span.ASK and self._ours(row, name, value)
            )
            meta = page.get("meta")
            cursor = str(meta.get("cursor") or "") if isinstance(meta, dict) else ""
            if not cursor:
                break
        return list(found)

    async def _find_as_before(self, name: str, value: str) -> list[str]:
        """By the list of traces, as Langfuse had it before."""
        found: dict[str, None] = {}
        for number in range(1, _PAGES):
            asked = {name: value, "page": str(number), "limit": str(_OLD_ROWS)}
            _, page = await self._send("GET", f"{self._place.api}/traces", params=asked)
            rows = list(_rows(page))
            found |= dict.fromkeys(str(row["id"]) for row in rows if row.get("id") and self._ours(row, name, value))
            if len(rows) < _OLD_ROWS:
                break
        return list(found)

    async def delete(self, traces: Sequence[str]) -> None:
        """Have traces deleted, `AT_ONCE` at most; some that are not there do no harm. Raises `Unreachable` and
        `Refused`."""
        await self._send("DELETE", f"{self._place.api}/traces", body={"traceIds": list(traces)})

    async def delete_score(self, score: str) -> None:
        """Have what was said of a session deleted, where it is there. Raises `Unreachable` and `Refused`."""
        await self._send("DELETE", f"{self._place.api}/scores/{quote(score, safe='')}", absent=True)

    def _ours(self, row: Mapping[str, Any], name: str, value: str) -> bool:
        metadata = row.get("metadata")
        return row.get(name) == value and isinstance(metadata, dict) and metadata.get("tenant") == self._tenant

    async def _send(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        absent: bool = False,
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of an answer that is no error; 404 is none either where something may be `absent`."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if content else {}
        shown = self._place.shown
        try:
            async with asyncio.timeout(self._seconds):
                response = await self._client.request(method, url, params=params, content=content, headers=headers)
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise Unreachable(f"{shown} did not answer in time") from error
        except httpx2.TransportError as error:
            raise Unreachable(f"{shown} cannot be reached: {error}") from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise Refused(f"{shown} is no address that could be asked: {error}") from error
        if response.status_code == 404 and absent:
            return 404, {}
        if not response.is_success:
            said = f"{shown} answered {response.status_code} {response.reason_phrase} to {method} {response.url.path}"
            raise (Unreachable if response.status_code in PASSING else Refused)(said)
        if method == "DELETE":
            return response.status_code, {}
        try:
            read = response.json()
        except ValueError as error:
            raise Refused(f"{shown} did not answer with JSON to {method} {response.url.path}") from error
        if not isinstance(read, dict):
            raise Refused(f"{shown} answered something else to {method} {response.url.path}")
        return response.status_code, read


def _rows(page: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    rows = page.get("data")
    yield from (row for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()
