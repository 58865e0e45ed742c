"""The product's own search over a set: turns in a real Redis, an index that is caught up from it, `history.search`.

Invariant: nothing of the search is set for a set or a scope; what is measured is what people get. A search that says a
warning (no embedder, an index that lags behind) ends the benchmark.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from typing import TYPE_CHECKING

from agentic_flywheel import Flywheel, Outcome
from agentic_flywheel.findings import SearchMode
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.model import Reason, Turn
from agentic_flywheel.store.store import Store
from history.measures import Row, score
from private_server import private_settings

if TYPE_CHECKING:
    from agentic_flywheel.search.protocols import Embedder
    from agentic_flywheel.settings import Settings
    from history.sets import HistorySet

#: Index -> the server that it needs, as `private_server` names it.
INDEXES = {"local": "valkey", "engine": "stack"}
#: Where a question is looked up: in its own conversation, or in all of the team.
SCOPES = ("conversation", "team")
FLOW = "chat"
_TOGETHER = 100
_FIRST = 10
_PATIENCE = 600.0


async def run_product(
    history: HistorySet, url: str, index: str, embedder: Embedder, scopes: tuple[str, ...] = SCOPES
) -> dict[str, list[Row]]:
    """Every mode in every scope, on a tenant of its own."""
    with tempfile.TemporaryDirectory(prefix="afw-bench-") as folder:
        named = {"search.index": index, "tenant": f"{history.name}-{index}", "data_dir": folder}
        settings = private_settings(url, folder, **named)
        registry = Registry(settings)
        registry.register(FLOW, str)
        await _remember(history, settings)
        found: dict[str, list[Row]] = {scope: [] for scope in scopes}
        async with Flywheel.open(settings=settings, registry=registry, embedder=embedder, background=False) as flywheel:
            state = await flywheel.history.rebuild()
            if (state.kind, state.turns, state.vectors) != (index, history.turns, history.turns):
                raise SystemExit(f"the index holds something else than the set: {state}")
            await whole(flywheel)
            for scope in scopes:
                found[scope] = [await _row(flywheel, history, scope, mode) for mode in SearchMode]
    return found


async def whole(flywheel: Flywheel) -> None:
    """Wait until the index says of itself that it is whole: the query engine builds its own behind us."""
    until = time.monotonic() + _PATIENCE
    while (page := await flywheel.history.search("whole")).warnings:
        if time.monotonic() > until:
            raise SystemExit(f"the index is not whole after {_PATIENCE:.0f} s: {page.warnings}")
        await asyncio.sleep(0.1)


async def _remember(history: HistorySet, settings: Settings) -> None:
    """Append all turns to their sessions, as asking does."""
    store = Store(settings)
    at = time.time() - history.turns
    try:
        for name, turns in history.sessions.items():
            made = [
                Turn(
                    id=str(place), session_id=name, at=at + place, question=turn.question, answer=turn.answer,
                    flow=FLOW, fingerprint="0" * 32, outcome=Outcome.MISS, reason=Reason.NOT_STORED, trace_id="0" * 32,
                )
                for place, turn in enumerate(turns)
            ]  # fmt: skip
            for start in range(0, len(made), _TOGETHER):
                commands = store.sessions.append_commands(*made[start : start + _TOGETHER])
                await store.link.run(*commands, slow=True)
    finally:
        await store.aclose()


async def _row(flywheel: Flywheel, history: HistorySet, scope: str, mode: SearchMode) -> Row:
    scores = []
    for probe in history.probes:
        session = probe.session if scope == "conversation" else None
        page = await flywheel.history.search(probe.text, mode=mode, session=session, limit=_FIRST)
        if page.warnings or page.mode is not mode:
            raise SystemExit(f"{probe.text!r}: {page.mode}, {page.warnings}")
        found = [(one.session_id, int(one.turn_id)) for one in page.found]
        scores.append(score(found, frozenset((probe.session, place) for place in probe.evidence)))
    return Row(f"**{mode}**", scores)
