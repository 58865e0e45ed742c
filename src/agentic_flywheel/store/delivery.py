"""Bringing what waits in the outbox to Redis.

Invariant: one process at a time delivers (`deliver.lock`, released by the kernel with its holder), in the order of the
log, the turns of one session of a round trip by one script, so none overtakes another. A turn leaves the log only
after Redis has it, or after it was set aside, on disk, because Redis refuses it for good, or because a privacy policy
that was set by now lets nobody keep it: then it is gone. A crash anywhere in between means that it is sent again,
which does nothing.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

from agentic_flywheel.errors import KeyMissing, StoreDamaged, StoreError, StoreFull, StoreRefused, StoreUnavailable
from agentic_flywheel.model import Turn
from agentic_flywheel.store.codec import decode, place
from agentic_flywheel.store.failures import NONSENSE, nonsense
from agentic_flywheel.store.journal import Journal, Record, prepare_directory, take_lock
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Link
from agentic_flywheel.store.popularity import KEPT as KEPT_COUNTS
from agentic_flywheel.store.popularity import Popularity
from agentic_flywheel.store.privacy import PolicyStore, keeps_turns
from agentic_flywheel.store.seals import Seals
from agentic_flywheel.store.sessions import SessionStore
from agentic_flywheel.store.tally import Tally

_BATCH_TURNS = 100
_BATCH_BYTES = 1_000_000
#: Pauses between attempts while Redis cannot be reached, in seconds: doubled up to the longest.
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_POLL = 0.005
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Failures that pass, or that an operator mends: nothing about the turn is wrong.
_PASSING = (StoreUnavailable, StoreFull, StoreRefused)

_LOCKED = "turns wait in the outbox that were encrypted with a key that is not configured here"

_log = logging.getLogger(__name__)
#: Turns as they were kept, with their places in the log, by tenant, session and how often another user had asked in it
#: before: what Redis refuses of one user for good, it does not of another.
_Groups: TypeAlias = dict[tuple[str, str, int], list[tuple[int, "Kept", Turn]]]


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """A turn in the log: whose, which, since when (epoch seconds), and the turn as `codec` writes it."""

    tenant: str
    session: str
    turn: str
    at: float
    payload: bytes


class Rejected(msgspec.Struct, frozen=True, array_like=True):
    """What was set aside, why and when. Of what could not be read, `kept` holds the bytes, and no names."""

    kept: Kept
    reason: str
    at: float


KEPT = msgspec.msgpack.Decoder(Kept)


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """What one delivery came to: turns delivered, and turns set aside."""

    delivered: int = 0
    rejected: int = 0


class _Sent(NamedTuple):
    """What became of some records: what failed for now, the places of those that were delivered and of those that no
    policy lets anybody keep, and what is refused for good."""

    failure: StoreError | None
    delivered: Set[int]
    withheld: Set[int]
    refused: Mapping[int, Rejected]


class Delivery:
    """Delivers one outbox: on demand, and in the background until nothing is left.

    `failing` says that the last attempt in the background did not bring everything to Redis.
    """

    def __init__(self, link: Link, path: Path, journal: Journal, rejected: Journal, tally: Tally) -> None:
        self._link = link
        self._path = path
        self._journal = journal
        self._rejected = rejected
        self._tally = tally
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._soon = asyncio.Event()
        self._ended = asyncio.Event()  # an attempt of the background task
        self.failing = False

    def begin(self, *, at_once: bool = False) -> None:
        """See to it that the background delivery runs; `at_once` ends its pause."""
        if at_once:
            self._soon.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._go_on(), name="afw-outbox")

    async def attempt(self) -> None:
        """Wait for the end of an attempt of the background delivery that starts now or is under way."""
        self._ended.clear()
        self.begin(at_once=True)
        await self._ended.wait()

    async def deliver(self, patience: float) -> Delivered:
        """Deliver everything, after waiting `patience` seconds at most for another process. Raises `StoreError`."""
        delivered = rejected = 0
        while self._journal.stamp() is not None:
            async with self.claim(patience) as claimed:
                if not claimed:
                    break
                done = await self._deliver_once()
            if done is None:
                break
            delivered += done.delivered
            rejected += done.rejected
        return Delivered(delivered=delivered, rejected=rejected)

    @asynccontextmanager
    async def claim(self, patience: float) -> AsyncIterator[bool]:
        """Be the one who may deliver and remove; False if another process still is after `patience` seconds."""
        async with self._turn:
            # Not in a thread: one that went on after its asker was cancelled would hold the lock for ever.
            deadline = time.monotonic() + patience
            try:
                await asyncio.to_thread(prepare_directory, self._path)
                while (descriptor := take_lock(self._path / "deliver.lock", 0)) is None:
                    if time.monotonic() >= deadline:
                        break
                    await asyncio.sleep(_POLL)
            except OSError as error:
                raise disk_error(error, self._path, "the outbox cannot be delivered") from error
            try:
                yield descriptor is not None
            finally:
                if descriptor is not None:
                    os.close(descriptor)

    async def aclose(self, patience: float) -> None:
        """End the background delivery; one that goes well has `patience` seconds to finish."""
        if self._task is None:
            return
        self._soon.set()
        await asyncio.wait([self._task], timeout=0 if self.failing else patience)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _go_on(self) -> None:
        pause = _FIRST_PAUSE
        while self._journal.stamp() is not None:
            try:
                await self.deliver(0)
                self.failing = False
            except StoreError as error:
                self.failing = True
                _log.info("turns wait in the outbox: %s", error)
            finally:
                self._ended.set()
            if self._journal.stamp() is None:
                break
            try:
                async with asyncio.timeout(pause * random.uniform(0.8, 1.2)):
                    await self._soon.wait()
                pause = _FIRST_PAUSE
            except TimeoutError:
                pause = min(pause * 2, _LONGEST_PAUSE)
            self._soon.clear()

    async def _deliver_once(self) -> Delivered | None:
        """Deliver what is in the log now; None if nothing was. Raises `StoreError` after taking out what went well."""
        # The log may be long: it is read when there is a server to send it to.
        await self._link.run(("PING",), slow=True)
        try:
            contents = await asyncio.to_thread(self._journal.read)
            sent: set[int] = set()
            withheld: set[int] = set()
            refused: dict[int, Rejected] = {}
            failure: StoreError | None = None
            for batch in _batches(contents.records):
                done = await self._send(batch)
                sent |= done.delivered
                withheld |= done.withheld
                refused |= done.refused
                if (failure := done.failure) is not None:
                    break
            aside = [*(_unreadable(span, "damaged on disk") for span in contents.damaged), *refused.values()]
            if aside:
                await asyncio.to_thread(self._rejected.append, [msgspec.msgpack.encode(one) for one in aside])
                _log.error("%d turn(s) set aside: %s", len(aside), aside[0].reason)
            if withheld:
                _log.warning("%d turn(s) that waited are not kept: a privacy policy forbids it", len(withheld))
            if sent or withheld or aside or not contents.records:
                cut = self._journal.cut
                await asyncio.to_thread(self._journal.drop, contents.position.seed, sent | withheld | set(refused))
                counts = {"delivered": len(sent), "withheld": len(withheld), "rejected": len(aside)}
                counts["cut"] = self._journal.cut - cut
                await asyncio.to_thread(lambda: self._tally.add(**counts))
        except OSError as error:
            raise disk_error(error, self._path, "the outbox cannot be delivered") from error
        if failure is not None:
            raise failure
        return Delivered(delivered=len(sent), rejected=len(aside)) if contents.records or aside else None

    def _opened(self, batch: Sequence[Record]) -> tuple[_Groups, dict[int, Rejected], StoreError | None]:
        """Records as turns, by tenant, session and asker; those that nobody can read; and what keeps others from being
        read for now."""
        refused: dict[int, Rejected] = {}
        locked = False
        groups: _Groups = {}
        askers: dict[tuple[str, str], list[str]] = {}
        for record in batch:
            try:
                kept = KEPT.decode(record.payload)
                if self._link.seals.locked(kept.payload):
                    locked = True
                    continue
                turn = turn_in(kept, self._link.seals)
            except (msgspec.DecodeError, StoreDamaged) as error:
                refused[record.offset] = _unreadable(record.payload, f"cannot be read: {error}")
            else:
                asked = askers.setdefault((kept.tenant, kept.session), [turn.user])
                if turn.user != asked[-1]:
                    if len(asked) == 1 and "" in (turn.user, asked[0]):
                        asked[0] = asked[0] or turn.user
                    else:
                        asked.append(turn.user)
                groups.setdefault((kept.tenant, kept.session, len(asked)), []).append((record.offset, kept, turn))
        return groups, refused, KeyMissing(_LOCKED) if locked else None

    async def _allowed(self, groups: _Groups) -> tuple[_Groups, set[int]]:
        """The turns that the policies of now let be kept, and the places of the others. Raises `StoreError`."""
        tenants = {tenant for tenant, _, _ in groups}
        policies = {tenant: await PolicyStore(self._link, Keys(tenant)).table(slow=True) for tenant in tenants}
        withheld: set[int] = set()
        allowed: _Groups = {}
        for name, group in groups.items():
            rules = policies[name[0]].rules
            kept = [one for one in group if keeps_turns(rules, one[2].flow, one[2].user)] if rules else group
            withheld |= {offset for offset, _, _ in group} - {offset for offset, _, _ in kept}
            if kept:
                allowed[name] = kept
        return allowed, withheld

    async def _send(self, batch: Sequence[Record]) -> _Sent:
        """Send records, all turns in one round trip."""
        groups, refused, failure = self._opened(batch)
        try:
            groups, withheld = await self._allowed(groups)
        except StoreError as error:
            return _Sent(error, set(), set(), refused)
        commands, ends = [], []
        for (tenant, _, _), group in groups.items():
            commands += SessionStore(self._link, Keys(tenant)).append_commands(*(turn for _, _, turn in group))
            ends.append(len(commands))
        if not commands:
            return _Sent(failure, set(), withheld, refused)
        try:
            replies = await self._link.run_each(*commands, slow=True)
        except StoreError as error:
            return _Sent(error, set(), withheld, refused)
        sent: set[int] = set()
        counted: dict[int, tuple[str, Turn]] = {}
        for start, end, ((tenant, _, _), group) in zip([0, *ends], ends, groups.items(), strict=False):
            errors = [self._link.error(r, "a delivery") for r in replies[start:end] if isinstance(r, Exception)]
            passing = next((error for error in errors if isinstance(error, _PASSING)), None)
            if passing is not None:
                failure = failure or passing
            elif errors:
                now = time.time()
                refused |= {offset: Rejected(kept, errors[0].message, now) for offset, kept, _ in group}
            else:
                sent |= {offset for offset, _, _ in group}
                counted |= {offset: (tenant, turn) for offset, _, turn in group if turn.counts_as}
        not_counted = await self._count(list(counted.values())) if counted else None
        return _Sent(failure or not_counted, sent - counted.keys() if not_counted else sent, withheld, refused)

    async def _count(self, turns: Sequence[tuple[str, Turn]]) -> StoreError | None:
        """Count what was asked while Redis was away, each turn once, however often it comes here; what failed of it for
        now. Turns that no count remembers any more are too late."""
        since = time.time() - KEPT_COUNTS.total_seconds()
        recent = [(tenant, turn) for tenant, turn in turns if turn.at >= since]
        places = [
            SessionStore(self._link, Keys(tenant)).present_command(turn.session_id, [turn.id])
            for tenant, turn in recent
        ]
        try:
            # After a crash it comes again, and somebody may have removed the turn since: it counts for nothing then.
            there = await self._link.run(*places, slow=True) if places else []
            commands = [
                command
                for (tenant, turn), (at,) in zip(recent, there, strict=True)
                if at
                for command in Popularity(self._link, Keys(tenant)).delivered_commands([turn])
            ]
            replies = await self._link.run_each(*commands, slow=True) if commands else []
        except StoreError as error:
            return error
        except NONSENSE as error:
            return nonsense(error, "whether turns are there")
        errors = [self._link.error(r, "counting") for r in replies if isinstance(r, Exception)]
        if errors:
            _log.warning("what was asked during an outage is not counted (yet): %s", errors[0])
        return next((one for one in errors if isinstance(one, _PASSING)), None)


def outbox_place(tenant: str, session: str, turn: str) -> str:
    """What a turn that waits here is bound to: it cannot pass for another one, nor for one in Redis."""
    return place(Keys(tenant).turns(session), f"outbox {turn}")


def turn_in(kept: Kept, seals: Seals) -> Turn:
    """The turn. Raises `StoreDamaged`."""
    return decode(seals.open(kept.payload, outbox_place(kept.tenant, kept.session, kept.turn)), Turn)


def _unreadable(content: bytes, reason: str) -> Rejected:
    return Rejected(Kept("", "", "", 0.0, content), reason, time.time())


def disk_error(error: Exception, path: Path, what: str) -> StoreError:
    """A failure of the local disk as this project names it."""
    if isinstance(error, StoreError):
        return error
    said = (error.strerror if isinstance(error, OSError) else None) or str(error)
    kind = StoreFull if isinstance(error, OSError) and error.errno in _NO_ROOM else StoreError
    return kind(
        f"{what} ({path}): {said}",
        suggestions=(f"Make room and check the rights of {path}.", "Set AFW_DATA_DIR to a directory that can be used."),
        path=str(path),
    )


def _batches(records: Sequence[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    size = 0
    for record in records:
        if batch and (len(batch) == _BATCH_TURNS or size + len(record.payload) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record.payload)
    if batch:
        yield batch
