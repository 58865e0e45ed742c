"""What questions came to: per flow, counted by the minute, the hour and the day.

    count:{F}:YYYYMMDDHH:minutes   7 days    `MM:outcome` and `MM:failed` of each minute of an hour
    count:{F}:YYYYMMDDHH          90 days    everything that is counted
    count:{F}:YYYYMMDD            90 days    the same, by the day
    askers:YYYYMMDD:N             90 days    what each user asked; a user stands there as a digest

Invariant: labels are outcomes, reasons and words of the registry, never a user or a question, so a key has a bounded
number of fields: few enough for the compact form that servers keep up to 512 of them in (docs/stats.md). Every counter
expires. Minutes, hours and days are those of UTC.
"""

from __future__ import annotations

import logging
from base64 import urlsafe_b64encode
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from agentic_flywheel.store.failures import NONSENSE, nonsense
from agentic_flywheel.store.keys import SHARDS, Keys
from agentic_flywheel.store.link import Command, Link, Script

KEPT = timedelta(days=90)
MINUTES_KEPT = timedelta(days=7)
#: Users of one day are spread over so many keys, each of which tells so many apart; whoever comes later that day is
#: counted among the others.
ASKER_SHARDS = 8
ASKERS_APART = 64
#: The name under which those are counted.
OTHERS = "~"
#: Minutes that wait to be sent; of older ones only hours are kept, so that a long outage does not pile them up.
MOST_MINUTES = 240
_PAGE = 1000

_log = logging.getLogger(__name__)

Fields = dict[str, int]

# Adds to counters of one flow. ARGV: for each key, seconds to keep it, how many fields, then those with what to add.
# Returns how many of the keys took nothing; an error where none took anything.
ADD = Script("""
local at, failed, refusal = 1, 0, nil
for _, key in ipairs(KEYS) do
    local after = at + 2 + 2 * tonumber(ARGV[at + 1])
    local reply
    for i = at + 2, after - 1, 2 do
        reply = redis.pcall('HINCRBY', key, ARGV[i], ARGV[i + 1])
        if type(reply) == 'table' then break end
    end
    if type(reply) == 'table' then
        failed, refusal = failed + 1, refusal or reply
    else
        redis.call('EXPIRE', key, ARGV[at])
    end
    at = after
end
if failed == #KEYS then return refusal end
return failed
""")

# Adds to the counts of users, of whom a key tells no more than ARGV[1] apart; `n` counts them. ARGV: the bound, seconds
# to keep, then for each user: the digest, how many fields, those with what to add.
ASKED = Script("""
local key, most, at = KEYS[1], tonumber(ARGV[1]), 3
while at <= #ARGV do
    local user, after = ARGV[at], at + 2 + 2 * tonumber(ARGV[at + 1])
    if redis.call('HEXISTS', key, user .. ':asked') == 0 then
        if (tonumber(redis.call('HGET', key, 'n')) or 0) < most then
            redis.call('HINCRBY', key, 'n', 1)
            redis.call('HSET', key, user .. ':asked', 0)
        else
            user = '~'
        end
    end
    for i = at + 2, after - 1, 2 do redis.call('HINCRBY', key, user .. ':' .. ARGV[i], ARGV[i + 1]) end
    at = after
end
redis.call('EXPIRE', key, ARGV[2])
return 0
""")

SCRIPTS = (ADD, ASKED)


class Tier(IntEnum):
    """A width of bucket, in seconds. Buckets are numbered from the epoch on."""

    MINUTE = 60
    HOUR = 3600
    DAY = 86400


def day_of(moment: float) -> str:
    """The UTC day of an epoch time, as it stands in keys."""
    return _stamp(int(moment // Tier.DAY), Tier.DAY)


@lru_cache(maxsize=512)
def _stamp(number: int, tier: Tier) -> str:
    return datetime.fromtimestamp(number * tier, UTC).strftime("%Y%m%d" if tier is Tier.DAY else "%Y%m%d%H")


def asker_digest(user: str) -> str:
    """A user as counters name them: 72 bits of BLAKE2b, in 12 characters.

    >>> asker_digest("ann")
    'w6zxI1HhWVAa'
    """
    raw = blake2b(user.encode("utf-8", "surrogatepass"), digest_size=9, person=b"afw-asker").digest()
    return urlsafe_b64encode(raw).decode()


class Unsent:
    """Counts that Redis has not been given yet. Equal ones are added up as they come."""

    __slots__ = ("askers", "hours", "minutes")

    def __init__(self) -> None:
        self.minutes: dict[tuple[str, int], Fields] = {}
        self.hours: dict[tuple[str, int], Fields] = {}
        self.askers: dict[tuple[str, int], Fields] = {}

    def __bool__(self) -> bool:
        return bool(self.minutes or self.hours or self.askers)

    def add(self, flow: str, moment: float, fields: Mapping[str, int]) -> None:
        """Add what happened with a flow at a moment (epoch seconds)."""
        _add(self.minutes, (flow, int(moment // Tier.MINUTE)), fields)

    def add_asker(self, digest: str, moment: float, fields: Mapping[str, int]) -> None:
        """Add what a user asked; see `asker_digest`."""
        _add(self.askers, (digest, int(moment // Tier.DAY)), fields)

    def take_back(self, earlier: Unsent) -> None:
        """Add counts that could not be sent. Where minutes pile up, the oldest are kept as hours alone."""
        for mine, theirs in (
            (self.minutes, earlier.minutes),
            (self.hours, earlier.hours),
            (self.askers, earlier.askers),
        ):
            for place, fields in theirs.items():
                _add(mine, place, fields)
        if len(self.minutes) > MOST_MINUTES:
            oldest = sorted(self.minutes, key=lambda place: place[1])[: len(self.minutes) - MOST_MINUTES]
            for flow, minute in oldest:
                _add(self.hours, (flow, minute // 60), self.minutes.pop((flow, minute)))


def _add(counts: dict[tuple[str, int], Fields], place: tuple[str, int], fields: Mapping[str, int]) -> None:
    row = counts.get(place)
    if row is None:
        row = counts[place] = {}
    for name, amount in fields.items():
        row[name] = row.get(name, 0) + amount


class Counters:
    """The counters of one tenant."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    def commands(self, unsent: Unsent) -> list[Command]:
        """What to send to add counts up, in minutes, hours and days: one script for each flow, and for each shard of
        users."""
        told: defaultdict[str, _Told] = defaultdict(_Told)
        hours: dict[tuple[str, int], Fields] = {place: dict(fields) for place, fields in unsent.hours.items()}
        minutes: dict[tuple[str, int], Fields] = {}
        for (flow, minute), fields in unsent.minutes.items():
            _add(hours, (flow, minute // 60), fields)
            shown = {f"{minute % 60:02}:{name}": amount for name, amount in _of_minutes(fields)}
            _add(minutes, (flow, minute // 60), shown)
        days: dict[tuple[str, int], Fields] = {}
        for (flow, hour), fields in hours.items():
            _add(days, (flow, hour // 24), fields)
        for (flow, hour), fields in minutes.items():
            told[flow].add(self._keys.minutes(flow, _stamp(hour, Tier.HOUR)), fields.items(), MINUTES_KEPT)
        for tier, rows in ((Tier.HOUR, hours), (Tier.DAY, days)):
            for (flow, number), fields in rows.items():
                told[flow].add(self._keys.count(flow, _stamp(number, tier)), _of_tier(fields, tier), KEPT)
        calls = [ADD.call(each.keys, *each.arguments) for each in told.values() if each.keys]
        return [*calls, *self._asker_commands(unsent)]

    def _asker_commands(self, unsent: Unsent) -> list[Command]:
        told: defaultdict[str, list[str | int]] = defaultdict(list)
        for (digest, number), fields in unsent.askers.items():
            own = told[self._keys.askers(_stamp(number, Tier.DAY), _asker_shard(digest))]
            own += [digest, len(fields), *(part for pair in fields.items() for part in pair)]
        seconds = int(KEPT.total_seconds())
        return [ASKED.call((key,), ASKERS_APART, seconds, *own) for key, own in told.items()]

    def taken(self, replies: Sequence[Any]) -> None:
        """Look at the replies to `commands`. Raises `StoreError` where nothing was counted, so that it may be sent
        again.

        Where some of it was and the rest was refused (a key of ours holds something else), the rest is left out and
        logged: nothing is counted twice.
        """
        refused = [reply for reply in replies if isinstance(reply, Exception)]
        if refused and len(refused) == len(replies):
            raise self._link.error(refused[0], "counting") from refused[0]
        if refused or any(replies):
            _log.warning("some counters hold something else, and nothing was added to them")

    async def send(self, unsent: Unsent) -> None:
        """Add counts up, by themselves. Raises `StoreError` where nothing was counted."""
        self.taken(await self._link.run_each(*self.commands(unsent)))

    async def read(self, flow: str, *, days: int, now: float) -> Fields:
        """The sums of a flow's fields over the last `days` days, today included."""
        today = int(now // Tier.DAY)
        return added(await self.buckets([(flow, Tier.DAY, today - back) for back in range(days)]))

    async def buckets(self, wanted: Sequence[tuple[str, Tier, int]]) -> list[Fields]:
        """What was counted in hours and days, each a flow, a width and a number; those without anything are empty.

        Raises `StoreError`.
        """
        keys = [self._keys.count(flow, _stamp(number, tier)) for flow, tier, number in wanted]
        read = await self._read(list(dict.fromkeys(keys)))
        return [read[key] for key in keys]

    async def minutes(self, flows: Sequence[str], numbers: range) -> list[list[Fields]]:
        """For each flow, what was counted in minutes that follow each other: outcomes, and `failed`.

        Raises `StoreError`.
        """
        hours = range(numbers.start // 60, (numbers.stop - 1) // 60 + 1)
        names = {flow: [self._keys.minutes(flow, _stamp(hour, Tier.HOUR)) for hour in hours] for flow in flows}
        read = await self._read([key for keys in names.values() for key in keys])
        skipped = numbers.start - hours.start * 60
        return [
            [minute for key in keys for minute in _by_minute(read[key])][skipped : skipped + len(numbers)]
            for keys in names.values()
        ]

    async def _read(self, keys: Sequence[str]) -> dict[str, Fields]:
        read: dict[str, Fields] = {}
        for start in range(0, len(keys), _PAGE):
            page = keys[start : start + _PAGE]
            replies = await self._link.run(*(("HGETALL", key) for key in page), slow=True)
            try:
                read |= {key: _fields(reply) for key, reply in zip(page, replies, strict=True)}
            except NONSENSE as error:
                raise nonsense(error, "counters") from error
        return read

    async def sessions_since(self, moment: float) -> int:
        """How many sessions had their last question at `moment` (epoch seconds) or later."""
        counts = [("ZCOUNT", self._keys.sessions(shard), repr(moment), "+inf") for shard in range(SHARDS)]
        return sum(await self._link.run(*counts, slow=True))

    async def askers(self, days: Sequence[int]) -> dict[str, Fields]:
        """What users asked on days (numbered from the epoch on), by digest; those beyond the bound as `OTHERS`."""
        keys = [self._keys.askers(_stamp(number, Tier.DAY), shard) for number in days for shard in range(ASKER_SHARDS)]
        found: defaultdict[str, Fields] = defaultdict(dict)
        for name, amount in added(list((await self._read(keys)).values())).items():
            digest, colon, field = name.partition(":")
            if colon:
                found[digest][field] = amount
        return dict(found)

    async def forget_asker(self, digest: str, days: Sequence[int], *, dry_run: bool) -> int:
        """Remove what was counted of a user on days; on how many of them something was."""
        keys = [self._keys.askers(_stamp(number, Tier.DAY), _asker_shard(digest)) for number in days]
        read = await self._read(keys)
        own = {key: [name for name in fields if name.startswith(f"{digest}:")] for key, fields in read.items()}
        removing = [("HDEL", key, *names) for key, names in own.items() if names]
        if removing and not dry_run:
            await self._link.run(*removing, slow=True)
        return len(removing)


class _Told:
    """What one flow's script is told: keys, and what to add to each."""

    __slots__ = ("arguments", "keys")

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.arguments: list[str | int] = []

    def add(self, key: str, fields: Iterable[tuple[str, int]], kept: timedelta) -> None:
        pairs = [part for name, amount in fields if amount for part in (name, amount)]
        if pairs:
            self.keys.append(key)
            self.arguments += [int(kept.total_seconds()), len(pairs) // 2, *pairs]


def added(rows: Sequence[Mapping[str, int]]) -> Fields:
    """The sums of equal fields.

    >>> added([{"a": 1}, {"a": 2, "b": 1}])
    {'a': 3, 'b': 1}
    """
    sums: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        for name, amount in row.items():
            sums[name] += amount
    return dict(sums)


def _by_minute(fields: Mapping[str, int]) -> list[Fields]:
    """The counts of an hour's minutes, each by the names that they have in wider buckets."""
    minutes: list[Fields] = [{} for _ in range(60)]
    for name, amount in fields.items():
        minute, _, own = name.partition(":")
        if minute.isdecimal() and int(minute) < 60:
            minutes[int(minute)][own if own == "failed" else f"outcome:{own}"] = amount
    return minutes


def _of_minutes(fields: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    for name, amount in fields.items():
        if name.startswith("outcome:"):
            yield name[8:], amount
        elif name == "failed":
            yield name, amount


def _of_tier(fields: Mapping[str, int], tier: Tier) -> Iterator[tuple[str, int]]:
    """The fields that a tier counts: what is told once an hour and once a day has the tier in its name."""
    mine, others = ("@hour", "@day") if tier is Tier.HOUR else ("@day", "@hour")
    for name, amount in fields.items():
        if not name.endswith(others):
            yield name.removesuffix(mine), amount


def _asker_shard(digest: str) -> int:
    return ord(digest[0]) % ASKER_SHARDS


def _fields(reply: Any) -> Fields:
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {name.decode(): int(amount) for name, amount in pairs}
