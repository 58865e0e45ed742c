"""Finding the primary through sentinels.

Invariant: what is returned said of itself, on the very connection that is returned, that it is the primary. All
sentinels are asked at once, so that one that hangs or lags behind costs nothing; the first answer that holds is taken.
"""

from __future__ import annotations

import asyncio

from agentic_flywheel.store.address import Address
from agentic_flywheel.store.wire import Command, Lost, Push, Refusal, Wire, open_wire

FAILURES = (OSError, Refusal)


async def open_primary(address: Address, *, patience: float, on_push: Push | None = None) -> Wire:
    """Connect to the primary of `address.service`. Raises `OSError` or `Refusal`: what the last one tried came to."""
    last: BaseException = Lost(f"no sentinel knows {address.service!r}")
    tried: set[tuple[str, int]] = set()
    asking = [asyncio.create_task(_primary(address, host, port, patience)) for host, port in address.hosts]
    try:
        for answer in asyncio.as_completed(asking):
            try:
                host, port = await answer
                if (host, port) not in tried:
                    tried.add((host, port))
                    return await _open_if_primary(address.at(host, port), patience, on_push)
            except FAILURES as error:
                # What a server said tells more than a sentinel that is away.
                last = error if tried or isinstance(last, Lost) else last
    finally:
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
    raise last


async def _primary(address: Address, host: str, port: int, patience: float) -> tuple[str, int]:
    """Where one sentinel says that the primary is."""
    found = await _ask_once(
        address.sentinel(host, port), ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service), patience
    )
    if not found:
        raise Lost(f"the sentinel at {host}:{port} knows no service {address.service!r}")
    return found[0].decode(), int(found[1])


async def _open_if_primary(server: Address, patience: float, on_push: Push | None) -> Wire:
    wire = await open_wire(server, patience=patience, on_push=on_push)
    try:
        (role,) = await wire.exchange([("ROLE",)])
    except BaseException:
        wire.close()
        raise
    if not isinstance(role, Refusal) and role[0] == b"master":
        return wire
    wire.close()
    raise role if isinstance(role, Refusal) else Lost(f"{server.masked}, of which sentinels speak, is not the primary")


async def _ask_once(server: Address, command: Command, patience: float) -> list[bytes] | None:
    """One command on a connection of its own."""
    wire = await open_wire(server, patience=patience)
    try:
        (reply,) = await wire.exchange([command])
    finally:
        wire.close()
    if isinstance(reply, Refusal):
        raise reply
    found: list[bytes] | None = reply
    return found
