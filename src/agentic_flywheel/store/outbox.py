"""Turns that Redis did not take, kept on local disk until it does.

Invariant: a turn whose `keep` returned is on disk, and stays there until Redis has it in its session (or refused it
for good: then it is set aside with the reason). It may be sent more than once, after a crash in the middle of a
delivery, and is appended once: its id decides. Turns of one session are delivered in the order in which they were
kept, and nothing of this machine overtakes them: while `in_order` says no, new turns of the session are kept too.
All processes of this user that use the same Redis share one outbox, whatever their tenant; one at a time delivers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from agentic_flywheel.errors import KeyMissing, StoreDamaged, StoreError, StoreFull
from agentic_flywheel.model import Turn
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.address import Address
from agentic_flywheel.store.codec import packed
from agentic_flywheel.store.delivery import KEPT, Delivered, Delivery, Kept, Rejected, disk_error, outbox_place, turn_in
from agentic_flywheel.store.journal import START, Journal, Position
from agentic_flywheel.store.link import Link
from agentic_flywheel.store.tally import Tally

#: What people are told of a turn that is here.
WAITS = "This turn waits in the local outbox until Redis is back."
#: Longest that an asker waits for a delivery that is under way, in seconds.
_MOMENT = 0.05
#: Longest wait for another process's delivery where order demands it, in seconds.
_PATIENCE = 5.0
#: Longest that closing waits for a delivery that goes well, in seconds.
_FAREWELL = 2.0

_log = logging.getLogger(__name__)


class OutboxStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the outbox, and what became of the turns that went through it.

    `waiting` counts turns of all tenants, `sessions` their sessions; `kept`, `delivered`, `rejected_ever`, `lost`
    (could not even be kept here), `cut` (writes that a crash cut short; none was acknowledged) and `withheld` (a
    privacy policy that was set meanwhile lets nobody keep them) count since the directory exists. `unreadable` names
    files of another format, `elsewhere` outboxes for other addresses that hold turns: address to bytes.
    """

    path: Path
    enabled: bool
    waiting: int = 0
    sessions: int = 0
    size_bytes: int = 0
    cap_bytes: int = 0
    oldest_at: float | None = None
    rejected: int = 0
    kept: int = 0
    delivered: int = 0
    rejected_ever: int = 0
    lost: int = 0
    cut: int = 0
    withheld: int = 0
    unreadable: tuple[str, ...] = ()
    elsewhere: dict[str, int] = {}


class Outbox:
    """The outbox of one Redis, as one tenant sees it; `Store` owns it. Nothing is created before the first turn."""

    def __init__(self, settings: Settings, link: Link) -> None:
        self.enabled = bool(settings["outbox.enabled"])
        self._settings = settings
        self._tenant = settings.text("tenant")
        self._address = link.address
        self._cap_bytes = int(settings.number("outbox.max_megabytes") * 1_000_000)
        self._link = link
        self._waiting_to_be_written: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._reading = asyncio.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._position = START
        self._index: defaultdict[tuple[str, str], dict[str, Kept]] = defaultdict(dict)
        self._plain: dict[bytes, Turn] = {}  # by payload: a session that waits is read with every question

    @cached_property
    def path(self) -> Path:
        """The directory, one for each Redis."""
        from agentic_flywheel.store.folders import data_folder

        return data_folder(self._settings) / "outbox" / _name_of(self._address)

    @cached_property
    def _journal(self) -> Journal:
        return Journal(self.path / "turns.log", cap_bytes=self._cap_bytes)

    @cached_property
    def _rejected(self) -> Journal:
        return Journal(self.path / "rejected.log", cap_bytes=self._cap_bytes)

    @cached_property
    def _tally(self) -> Tally:
        return Tally(self.path / "tally.json")

    @cached_property
    def _delivery(self) -> Delivery:
        return Delivery(self._link, self.path, self._journal, self._rejected, self._tally)

    def waits(self) -> bool:
        """Whether anything waits here, for any tenant; one system call."""
        return self.enabled and self._journal.stamp() is not None

    def recovered(self) -> None:
        """Redis is back: if anything waits, deliver it now, in the background."""
        if self.waits():
            self._delivery.begin(at_once=True)

    def notice(self) -> None:
        """A question is under way: if anything waits, see to it that somebody tries to deliver it."""
        if self.waits():
            self._delivery.begin(at_once=not self._delivery.failing)

    async def keep(self, turn: Turn, because: StoreError | None, *, last_chance: bool = True) -> None:
        """Put a turn on disk; it is safe when this returns. `because` says why Redis did not take it.

        `last_chance` says that the turn is lost, and counted so, if this fails. Raises `StoreError`, from `because`,
        where it cannot be kept here either.
        """
        if not self.enabled:
            raise because or StoreError("the outbox is switched off")
        try:
            payload = self._link.seals.seal(packed(turn), outbox_place(self._tenant, turn.session_id, turn.id))
        except KeyMissing:  # nothing plain is kept beside what is encrypted
            if last_chance:
                await self.count_lost(1)
            raise
        kept = Kept(self._tenant, turn.session_id, turn.id, time.time(), payload)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting_to_be_written.append((msgspec.msgpack.encode(kept), written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write())
        try:
            await written
        except (OSError, StoreError) as error:
            if last_chance:
                await self.count_lost(1)
            own = disk_error(error, self.path, "the outbox cannot keep the turn")
            message = f"{because.message}; {own.message}" if because else own.message
            raise StoreFull(message, suggestions=own.suggestions, path=str(self.path)) from error
        self._delivery.begin()

    async def count_lost(self, turns: int) -> None:
        """Note that turns could be kept nowhere."""
        if self.enabled:
            await asyncio.to_thread(lambda: self._tally.add(lost=turns))

    async def in_order(self, session: str) -> bool:
        """Whether a turn of this session may go to Redis directly: no earlier one waits here.

        Waits for a delivery that is under way, but not for long.
        """
        if not self.waits() or not await self.turns(session):
            return True
        if self._delivery.failing:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(_MOMENT):
                await self._delivery.attempt()
        return not await self.turns(session)

    async def turns(self, session: str) -> tuple[Turn, ...]:
        """The turns of this session that wait here, oldest first; some may be in Redis already."""
        if not self.waits():
            return ()
        await self._catch_up()
        return self._decoded(self._index.get((self._tenant, session), {}))

    async def sessions(self) -> dict[str, tuple[Turn, ...]]:
        """All turns of the tenant that wait here, by session, oldest first."""
        if not self.waits():
            return {}
        await self._catch_up()
        own = {session: kept for (tenant, session), kept in self._index.items() if tenant == self._tenant}
        return {session: turns for session, kept in own.items() if (turns := self._decoded(kept))}

    async def rejected(self) -> list[Rejected]:
        """Turns of the tenant that Redis refused for good, oldest first."""
        try:
            _, found = await asyncio.to_thread(self._rejected_with_seed)
        except OSError as error:
            raise disk_error(error, self.path, "the outbox cannot be read") from error
        own = (one for _, one in found if one.kept.tenant in (self._tenant, ""))
        return list({(one.kept.session, one.kept.turn, one.kept.payload): one for one in own}.values())

    async def settle(self) -> None:
        """Deliver what can be delivered; what cannot stays here."""
        if not self.waits():
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                await self.deliver()
        except (StoreError, TimeoutError) as error:
            _log.info("turns wait in the outbox: %s", error)

    async def deliver(self, patience: float = _PATIENCE) -> Delivered:
        """Deliver everything; another process that is at it is waited for. Raises `StoreError`."""
        return await self._delivery.deliver(patience) if self.waits() else Delivered()

    async def deliver_rejected(self) -> int:
        """Put the tenant's turns that were set aside back behind all others, to be tried again; how many."""
        async with self._alone():
            try:
                seed, found = await asyncio.to_thread(self._rejected_with_seed)
                own = {offset: one.kept for offset, one in found if one.kept.tenant == self._tenant}
                if own:
                    again = [msgspec.msgpack.encode(kept) for kept in own.values()]
                    await asyncio.to_thread(self._journal.append, again)
                    await asyncio.to_thread(self._rejected.drop, seed, own)
            except OSError as error:
                raise disk_error(error, self.path, "turns that were set aside cannot be put back") from error
        return len(own)

    async def forget(self, session: str) -> int:
        """Remove every turn of a session from here; how many. Raises `StoreError`."""
        return await self._forget(lambda kept: kept.session == session)

    async def forget_turns(self, meant: Callable[[Turn], bool], *, dry_run: bool) -> int:
        """Remove the tenant's turns that are meant from here, those that were set aside among them; how many. Raises
        `StoreError`."""

        def is_meant(kept: Kept) -> bool:
            try:
                return meant(turn_in(kept, self._link.seals))
            except StoreDamaged:  # nobody can read it
                return False

        return await self._forget(is_meant, dry_run=dry_run)

    async def status(self) -> OutboxStatus:
        """What is here, for people."""
        try:
            return await asyncio.to_thread(self._status)
        except OSError as error:
            raise disk_error(error, self.path, "the outbox cannot be read") from error

    async def aclose(self) -> None:
        """Finish what is being written; a delivery that goes well has a moment to end. Safe to call twice."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        if self.enabled and "_delivery" in self.__dict__:
            await self._delivery.aclose(_FAREWELL)

    async def _write(self) -> None:
        """Write what is queued, all that came meanwhile in one go: askers share the wait for the disk."""
        while self._waiting_to_be_written:
            due = list(self._waiting_to_be_written)
            self._waiting_to_be_written.clear()
            try:
                await asyncio.to_thread(self._append, [payload for payload, _ in due])
            except (OSError, StoreError) as error:
                if len(due) > 1:  # the disk may have room for some of them
                    for payload, written in due:
                        await self._write_one(payload, written)
                else:
                    _fail(due[0][1], error)
            else:
                for _, written in due:
                    if not written.done():
                        written.set_result(None)

    async def _write_one(self, payload: bytes, written: asyncio.Future[None]) -> None:
        try:
            await asyncio.to_thread(self._append, [payload])
        except (OSError, StoreError) as error:
            _fail(written, error)
        else:
            if not written.done():
                written.set_result(None)

    def _append(self, payloads: Sequence[bytes]) -> None:
        before = self._journal.cut
        self._journal.append(payloads)
        self._tally.add(kept=len(payloads), cut=self._journal.cut - before)
        address = self.path / "address.txt"
        if not address.exists():
            with suppress(OSError):  # for people alone; the turns are safe without it
                address.write_text(self._address.masked + "\n")

    async def _catch_up(self) -> None:
        async with self._reading:
            stamp = self._journal.stamp()
            if stamp == self._stamp:
                return
            try:
                position, anew, found = await asyncio.to_thread(self._read_on)
            except OSError as error:
                raise disk_error(error, self.path, "the outbox cannot be read") from error
            if anew:
                self._index.clear()
                self._plain.clear()
            for kept in found:
                self._index[kept.tenant, kept.session].setdefault(kept.turn, kept)
            self._position, self._stamp = position, stamp

    def _read_on(self) -> tuple[Position, bool, list[Kept]]:
        contents = self._journal.read(self._position)
        found = [kept for record in contents.records if (kept := _kept_in(record.payload))]
        return contents.position, contents.anew, found

    def _decoded(self, kept: dict[str, Kept]) -> tuple[Turn, ...]:
        turns = []
        for one in kept.values():
            turn = self._plain.get(one.payload)
            if turn is None:
                try:
                    turn = self._plain[one.payload] = turn_in(one, self._link.seals)
                except StoreDamaged:  # set aside when it is delivered
                    continue
            turns.append(turn)
        return tuple(turns)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """While nobody delivers."""
        async with self._delivery.claim(_PATIENCE) as claimed:
            if not claimed:
                raise StoreError("another process is delivering from the outbox", path=str(self.path))
            yield

    async def _forget(self, meant: Callable[[Kept], bool], *, dry_run: bool = False) -> int:
        if not self.waits() and self._rejected.stamp() is None:
            return 0
        async with self._alone():
            try:
                return await asyncio.to_thread(self._drop, meant, dry_run=dry_run)
            except OSError as error:
                raise disk_error(error, self.path, "turns cannot be removed from the outbox") from error

    def _drop(self, meant: Callable[[Kept], bool], *, dry_run: bool) -> int:
        contents = self._journal.read()
        waiting = {
            record.offset
            for record in contents.records
            if (kept := _kept_in(record.payload)) and kept.tenant == self._tenant and meant(kept)
        }
        seed, found = self._rejected_with_seed()
        rejected = {offset for offset, one in found if one.kept.tenant == self._tenant and meant(one.kept)}
        if waiting and not dry_run:
            self._journal.drop(contents.position.seed, waiting)
        if rejected and not dry_run:
            self._rejected.drop(seed, rejected)
        return len(waiting) + len(rejected)

    def _rejected_with_seed(self) -> tuple[bytes, list[tuple[int, Rejected]]]:
        contents = self._rejected.read()
        found = [(r.offset, msgspec.msgpack.decode(r.payload, type=Rejected)) for r in contents.records]
        return contents.position.seed, found

    def _status(self) -> OutboxStatus:
        contents = self._journal.read()
        kept = [kept for record in contents.records if (kept := _kept_in(record.payload))]
        _, rejected = self._rejected_with_seed()
        counts = self._tally.read()
        return OutboxStatus(
            path=self.path,
            enabled=self.enabled,
            waiting=len({(one.tenant, one.session, one.turn) for one in kept}),
            sessions=len({(one.tenant, one.session) for one in kept}),
            size_bytes=sum(_size(journal.path) for journal in (self._journal, self._rejected)),
            cap_bytes=self._cap_bytes,
            oldest_at=min((one.at for one in kept), default=None),
            rejected=len({(r.kept.tenant, r.kept.session, r.kept.turn, r.kept.payload) for _, r in rejected}),
            kept=counts.kept,
            delivered=counts.delivered,
            rejected_ever=counts.rejected,
            lost=counts.lost,
            cut=counts.cut,
            withheld=counts.withheld,
            unreadable=tuple(sorted(str(file) for file in self.path.glob("unreadable-*"))),
            elsewhere=self._elsewhere(),
        )

    def _elsewhere(self) -> dict[str, int]:
        found = {}
        for log in self.path.parent.glob("*/turns.log"):
            if log.parent != self.path:
                with suppress(OSError):  # its process may just have delivered
                    size = log.stat().st_size
                    note = log.with_name("address.txt")
                    found[note.read_text().strip() if note.exists() else str(log.parent)] = size
        return found


def _name_of(address: Address) -> str:
    """A Redis as the name of a directory: what the address says of server, user and database, and nothing else."""
    parts = urlsplit(address.masked)
    options = sorted((name, value) for name, value in parse_qsl(parts.query) if name in ("db", "username"))
    plain = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}?{urlencode(options)}"
    return blake2b(plain.encode(), digest_size=8).hexdigest()


def _kept_in(payload: bytes) -> Kept | None:
    """The turn in a record; None for one that cannot be read, which is set aside when it is delivered."""
    try:
        return KEPT.decode(payload)
    except msgspec.DecodeError:
        return None


def _fail(written: asyncio.Future[None], error: Exception) -> None:
    if not written.done():
        written.set_exception(error)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
