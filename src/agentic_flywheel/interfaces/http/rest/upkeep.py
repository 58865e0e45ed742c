"""Looking after it: what is fine and what is not, settings, the outbox, values beside, backups."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from agentic_flywheel import coaia
from agentic_flywheel.backup import BackupReceipt
from agentic_flywheel.callers import Scope
from agentic_flywheel.configuration import Configuration, configuration_of
from agentic_flywheel.errors import InputError, RequestTooLarge
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.interfaces.http.rest.arguments import (
    Body,
    DryRun,
    Meta,
    Moment,
    Query,
)
from agentic_flywheel.interfaces.http.rest.operations import Operations
from agentic_flywheel.model import Check, Turn
from agentic_flywheel.search.history.query import moment_of

upkeep = Operations("upkeep", "Looking after it: health, settings, the outbox, backups.")

_BYTES = "application/octet-stream"
_ZSTANDARD = b"\x28\xb5\x2f\xfd"
_PIECE = 1 << 18


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; `ok` unless something is broken (warnings are not)."""

    ok: bool
    checks: tuple[Check, ...]


@upkeep.get("/doctor", needs=Scope.ADMIN)
async def doctor(call: Call) -> Examination:
    """What is fine, what is not, and what to do: registry, Redis, flows, embedder, indexes."""
    checks = tuple(await call.flywheel.doctor())
    return Examination(ok=all(check.state != "fail" for check in checks), checks=checks)


@upkeep.get("/config", needs=Scope.ADMIN)
async def show_config(call: Call) -> Configuration:
    """Every setting in force and where it came from, secrets masked.

    For administrators of the tenant that the service was started for.
    """
    call.require_operator()
    return await asyncio.to_thread(configuration_of, call.service.settings)


class OutboxState(msgspec.Struct, frozen=True, kw_only=True):
    """What waits on the service's machine until Redis takes it, and what became of all that ever did."""

    path: str
    enabled: bool
    waiting: int
    sessions: int
    size_bytes: int
    cap_bytes: int
    oldest_at: float | None
    rejected: int
    kept: int
    delivered: int
    rejected_ever: int
    lost: int
    cut: int
    withheld: int
    unreadable: tuple[str, ...]
    elsewhere: dict[str, int]


@upkeep.get("/outbox", needs=Scope.ADMIN)
async def show_outbox(call: Call) -> OutboxState:
    """How much waits in the outbox of the process that answers, since when, and what became of all that ever did.

    For administrators of the tenant that the service was started for: the outbox is that of all tenants.
    """
    call.require_operator()
    return await _outbox(call)


class RefusedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that Redis refused for good."""

    session_id: str
    turn_id: str
    reason: str
    at: float


class WaitingTurns(msgspec.Struct, frozen=True, kw_only=True):
    """The tenant's turns that wait, oldest first, and those that were set aside."""

    waiting: tuple[Turn, ...]
    rejected: tuple[RefusedTurn, ...]


@upkeep.get("/outbox/turns", needs=Scope.ADMIN)
async def list_outbox(call: Call) -> WaitingTurns:
    """The turns of this tenant that wait in the outbox, and those that Redis refused for good."""
    outbox = call.flywheel.outbox
    waiting = [turn for turns in (await outbox.sessions()).values() for turn in turns]
    rejected = [
        RefusedTurn(session_id=one.kept.session, turn_id=one.kept.turn, reason=one.reason, at=one.at)
        for one in await outbox.rejected()
    ]
    return WaitingTurns(waiting=tuple(waiting), rejected=tuple(rejected))


class Delivery(Body, frozen=True, kw_only=True):
    """Whether what Redis refused for good is tried again."""

    rejected: bool = False


class DeliveryState(msgspec.Struct, frozen=True, kw_only=True):
    """How many turns were delivered now, and what is left."""

    delivered: int
    left: OutboxState


@upkeep.post("/outbox/deliver", needs=Scope.ADMIN)
async def deliver_outbox(call: Call, body: Delivery) -> DeliveryState:
    """Deliver everything that waits, now.

    For administrators of the tenant that the service was started for: it is delivered for all tenants.
    """
    call.require_operator()
    await call.flywheel.audit.record("outbox.deliver", "outbox", by=call.caller.actor, rejected=body.rejected)
    if body.rejected:
        await call.flywheel.outbox.deliver_rejected()
    delivered = (await call.flywheel.outbox.deliver()).delivered
    return DeliveryState(delivered=delivered, left=await _outbox(call))


async def _outbox(call: Call) -> OutboxState:
    status = await call.flywheel.outbox.status()
    return OutboxState(**(msgspec.structs.asdict(status) | {"path": str(status.path)}))


ValueKey = Annotated[str, Meta(min_length=1, max_length=1000, pattern="^(?!afw:)", description="A key beside our own.")]


@upkeep.get("/values/{value_key}", needs=Scope.ADMIN, produces={_BYTES: "The value, byte for byte."})
async def fetch_value(call: Call, value_key: ValueKey) -> Response:
    """Read a value by its key, as `coaia fetch` does.

    For administrators of the tenant that the service was started for: these keys belong to no tenant.
    """
    call.require_operator()
    return Response(await coaia.fetch(call.flywheel, value_key), media_type=_BYTES)


class ValueLife(Query, frozen=True, kw_only=True):
    """How long it is kept."""

    minutes: Annotated[int, Meta(ge=0, le=52_560_000, description="Minutes; 0: for ever.")] = coaia.DEFAULT_MINUTES


class ValueKept(msgspec.Struct, frozen=True, kw_only=True):
    """What was stored."""

    key: str
    size_bytes: int
    ttl_seconds: int | None


@upkeep.put("/values/{value_key}", needs=Scope.ADMIN, takes=_BYTES)
async def stash_value(call: Call, value_key: ValueKey, query: ValueLife, request: Request) -> ValueKept:
    """Store a value under a key, as `coaia tash` does.

    For administrators of the tenant that the service was started for: these keys belong to no tenant.
    """
    call.require_operator()
    value = await request.body()
    await coaia.stash(call.flywheel, value_key, value, query.minutes)
    return ValueKept(key=value_key, size_bytes=len(value), ttl_seconds=query.minutes * 60 or None)


Section = Literal["sessions", "policies", "faq", "entries"]


class ExportWanted(Query, frozen=True, kw_only=True):
    """What goes into the backup; all of it unless something is named."""

    section: Annotated[
        tuple[Section, ...], Meta(max_length=4, description="Only these; may be given more than once.")
    ] = ()
    user_id: Annotated[str, Meta(max_length=256, description="Only sessions and answers of this user.")] = ""
    since: Moment | None = None


@upkeep.get("/backup", needs=Scope.ADMIN, produces={"application/zstd": "Lines of JSON, checked, compressed."})
async def export_backup(call: Call, query: ExportWanted) -> StreamingResponse:
    """All that a tenant knows in one file: sessions, policies, the FAQ, answers.

    The response begins once the file is whole; its headers count the records. It works while others ask.
    """
    since = None if query.since is None else moment_of(query.since, end=False, now=time.time())
    await call.flywheel.audit.record("backup.export", " ".join(query.section) or "everything", by=call.caller.actor)
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="afw-export-"))
    try:
        file = folder / "backup.jsonl.zst"
        receipt = await call.flywheel.backup.export(file, sections=query.section, user=query.user_id, since=since)
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        raise
    headers = {
        "Content-Length": str(file.stat().st_size),
        "Content-Disposition": 'attachment; filename="afw-backup.jsonl.zst"',
        "X-AFW-Records": ", ".join(f"{kind}={count}" for kind, count in receipt.records.items()),
    }
    return StreamingResponse(_sent(file), 200, headers, "application/zstd")


async def _sent(file: Path) -> AsyncIterator[bytes]:
    """The file in pieces; afterwards it is gone with its folder."""
    try:
        with file.open("rb") as opened:
            while piece := await asyncio.to_thread(opened.read, _PIECE):
                yield piece
    finally:
        shutil.rmtree(file.parent, ignore_errors=True)


class ImportWanted(Query, frozen=True, kw_only=True):
    """How a backup is put back."""

    dry_run: DryRun = False
    skip_damaged: Annotated[bool, Meta(description="Pass over damaged lines, and count them.")] = False


@upkeep.post("/backup", needs=Scope.ADMIN, takes=_BYTES)
async def import_backup(call: Call, query: ImportWanted, request: Request) -> BackupReceipt:
    """Put back what an export wrote, compressed or not; nothing that is here is removed or replaced by something older.

    It may be done again: what is there already stays. A file may have `serve.max_import_megabytes`.
    """
    call.body_limit = int(call.service.settings.number("serve.max_import_megabytes") * 1_000_000)
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="afw-import-"))
    file = folder / "backup.jsonl"
    try:
        file = await _received(request, file)
        if not query.dry_run:
            await call.flywheel.audit.record("backup.import", "sent", by=call.caller.actor)
        receipt = await call.flywheel.backup.restore(file, dry_run=query.dry_run, skip_damaged=query.skip_damaged)
    except InputError as error:
        raise _told(error, file) from error
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return msgspec.structs.replace(receipt, file="sent")


async def _received(request: Request, file: Path) -> Path:
    """The body as a file, named as its form wants it. Raises `RequestTooLarge`, and `InputError` where it is empty."""
    size, began = 0, b""
    with file.open("wb") as opened:
        async for piece in request.stream():
            began = began or piece[:4]
            size += len(piece)
            await asyncio.to_thread(opened.write, piece)
    if not size:
        raise InputError("the body is empty: send a backup", param="body")
    if began != _ZSTANDARD:
        return file
    return await asyncio.to_thread(file.rename, file.with_suffix(".jsonl.zst"))


def _told(error: InputError, file: Path) -> InputError:
    """The error as it is of what was sent: the file is nothing that the sender knows."""
    if isinstance(error, RequestTooLarge):
        return error
    message = error.message.replace(str(file.with_suffix(".jsonl.zst")), "what was sent")
    receipt = error.details.get("receipt")
    return InputError(
        message.replace(str(file), "what was sent"),
        suggestions=(
            "Send another copy: what is there already stays as it is.",
            "Pass over damage: skip_damaged=true.",
        ),
        line=error.details.get("line"),
        receipt={**receipt, "file": "sent"} if receipt else None,
    )
