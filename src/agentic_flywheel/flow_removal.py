"""Taking a flow out of the registry, and its stored answers out of use."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from agentic_flywheel.errors import StoreError, UnknownFlow
from agentic_flywheel.model import Receipt

if TYPE_CHECKING:
    from agentic_flywheel.flywheel import Flywheel


async def remove_flow(flywheel: Flywheel, key: str, *, dry_run: bool) -> tuple[Receipt, StoreError | None]:
    """Remove a flow and clear its answers; conversations stay. What kept the answers from being cleared is given back.

    Raises `UnknownFlow` and `RegistryError`.
    """
    snapshot = flywheel.registry.current()
    spec = snapshot.get(key, inactive=True)
    place = spec.origin or str(snapshot.path)
    if not dry_run:
        place = str((await asyncio.to_thread(flywheel.registry.remove, spec.key)).path)
    removed, unreachable, notes = {"flows": 1}, 0, [f"registry: {place}"]
    problem: StoreError | None = None
    try:
        cleared = await flywheel.cache.clear(flow=spec.key, dry_run=dry_run)
    except UnknownFlow:
        notes.append("It was never asked, so nothing of it is stored.")
    except StoreError as error:
        problem = error
        notes.append(f"Its stored answers could not be cleared: {error.message}.")
    else:
        removed, unreachable = {**removed, **cleared.removed}, cleared.unreachable
    receipt = Receipt(
        action="remove flow",
        target=spec.key,
        dry_run=dry_run,
        removed=removed,
        unreachable=unreachable,
        notes=tuple(notes),
        at=time.time(),
    )
    return receipt, problem
