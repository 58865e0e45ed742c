"""Warm-ups that are under way or were: what was ordered, how much of the budget is spent, what came of each question.

Invariant: a call is taken from the budget before it is made, in one script, so that no number of processes and no
crash can make more calls than were allowed; and what is known of a question is never replaced by something that says
less. Everything expires: a warm-up is forgotten 30 days after it was last heard of.

    afw:v1:T:warm            zset     ids of warm-ups by when they were ordered
    afw:v1:T:warm:{J}        hash     the order, its budget and what is spent of it, its state
    afw:v1:T:warm:{J}:items  hash     what came of each question, by its digest
"""

from __future__ import annotations

from typing import Any

import msgspec

from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.store.codec import decode, encode, packed, place, stored
from agentic_flywheel.store.failures import NONSENSE, nonsense
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Link, Script
from agentic_flywheel.warmups import WarmBound, WarmBudget, WarmItem, WarmOrder, WarmOutcome

KEPT_MS = 30 * 86_400_000
#: Who runs a warm-up says so this often; who has not for `SILENT_SECONDS` is taken for dead.
BEAT_SECONDS = 10.0
SILENT_SECONDS = 60.0
#: Money is counted in millionths, since Redis adds whole numbers exactly.
_MILLIONTHS = 1_000_000
_UNBOUND = -1

# Takes one call, and its price, from the budget. Returns 0, or what stands in the way: 1 calls, 2 money, 3 somebody
# wants it stopped.
TAKE = Script("""
if redis.call('HEXISTS', KEYS[1], 'stop') == 1 then return 3 end
local function number(field) return tonumber(redis.call('HGET', KEYS[1], field) or '0') end
local most, money, price = number('most_calls'), number('most_money'), tonumber(ARGV[1])
if most >= 0 and number('calls') >= most then return 1 end
if money >= 0 and number('money') + price > money then return 2 end
redis.call('HINCRBY', KEYS[1], 'calls', 1)
redis.call('HINCRBY', KEYS[1], 'money', price)
return 0
""")

# Writes down what came of a question, unless it is known already that its answer was stored by this warm-up.
NOTE = Script("""
local old = redis.call('HGET', KEYS[2], ARGV[1])
if not old or string.sub(old, 1, 7) ~= 'stored|' or string.sub(ARGV[2], 1, 7) == 'stored|' then
    redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
""")


class WarmJob(msgspec.Struct, frozen=True, kw_only=True):
    """A warm-up as Redis knows it."""

    order: WarmOrder
    state: str = "running"
    bound: WarmBound | None = None
    budget: WarmBudget = WarmBudget()
    calls: int = 0
    money: float = 0.0
    seconds: float = 0.0
    total: int = 0
    heard_at: float = 0.0
    ended_at: float = 0.0
    stopping: bool = False


class WarmJobs:
    """The warm-ups of one tenant."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def order(self, order: WarmOrder, budget: WarmBudget) -> bool:
        """Write an order down; False where there is one of this id already, which stays as it is."""
        job, _ = self._keys.warm_job(order.id)
        taken, *_ = await self._link.run(
            ("HSETNX", job, "order", encode(order)),
            ("PEXPIRE", job, KEPT_MS),
            ("ZREMRANGEBYSCORE", self._keys.warm, "-inf", order.at - KEPT_MS / 1000),
            ("ZADD", self._keys.warm, order.at, order.id),
            ("PEXPIRE", self._keys.warm, KEPT_MS),
            slow=True,
        )
        if taken:
            await self._link.run(("HSET", job, *_bounds(budget, WarmJob(order=order))), slow=True)
        return bool(taken)

    async def grant(self, known: WarmJob, budget: WarmBudget) -> None:
        """Allow a warm-up to go on, with so much more than it has spent; what `budget` leaves open stays as it was."""
        job, _ = self._keys.warm_job(known.order.id)
        commands: list[tuple[Any, ...]] = [("HDEL", job, "stop")]
        if bounds := _bounds(budget, known, only_given=True):
            commands.append(("HSET", job, *bounds))
        await self._link.run(*commands, slow=True)

    async def stop(self, id_: str) -> None:
        """Ask whoever runs it to stop it."""
        job, _ = self._keys.warm_job(id_)
        await self._link.run(("HSET", job, "stop", "1"), slow=True)

    async def read(self, id_: str) -> WarmJob | None:
        """A warm-up; None where nothing is known of it (any more)."""
        job, _ = self._keys.warm_job(id_)
        (reply,) = await self._link.run(("HGETALL", job), slow=True)
        fields = _pairs(reply)
        if b"order" not in fields:
            return None
        try:
            return _job(fields)
        except NONSENSE as error:
            raise nonsense(error, "a warm-up") from error

    async def latest(self, count: int) -> list[str]:
        """Ids of the last warm-ups, newest first."""
        (members,) = await self._link.run(("ZREVRANGE", self._keys.warm, 0, count - 1), slow=True)
        return [member.decode() for member in members]

    async def items(self, id_: str) -> dict[str, WarmItem]:
        """What came of each question so far, by its digest."""
        _, items = self._keys.warm_job(id_)
        (reply,) = await self._link.run(("HGETALL", items), slow=True)
        found = {}
        for name, value in _pairs(reply).items():
            raw = self._link.seals.open(value.partition(b"|")[2], place(items, name.decode("utf-8", "replace")))
            item = decode(raw, WarmItem)
            found[item.name] = item
        return found

    async def take(self, id_: str, *, price: float) -> WarmBound | None:
        """Take one call from the budget; None, or the bound that stands in the way."""
        job, _ = self._keys.warm_job(id_)
        (refused,) = await self._link.run(TAKE.call((job,), round(price * _MILLIONTHS)), slow=True)
        return (None, WarmBound.CALLS, WarmBound.MONEY, WarmBound.STOPPED)[int(refused)]

    async def give_back(self, id_: str, *, price: float) -> None:
        """Give back a call that was taken and not made."""
        job, _ = self._keys.warm_job(id_)
        back = ("HINCRBY", job, "money", -round(price * _MILLIONTHS))
        await self._link.run(("HINCRBY", job, "calls", -1), back, slow=True)

    async def pay(self, id_: str, money: float) -> None:
        """Add what calls cost beyond the price that they were taken for, or take back what they did not."""
        job, _ = self._keys.warm_job(id_)
        await self._link.run(("HINCRBY", job, "money", round(money * _MILLIONTHS)), slow=True)

    async def note(self, id_: str, item: WarmItem) -> None:
        """Write down what came of a question."""
        keys, lead = self._keys.warm_job(id_), f"{item.outcome.value}|".encode()
        value = stored(lead + packed(item), place(keys[1], item.name), lead=len(lead))
        await self._link.run(NOTE.call(keys, item.name, value, KEPT_MS), slow=True)

    async def beat(self, id_: str, *, seconds: float, total: int, now: float) -> bool:
        """Say that it goes on, and how much time it took since this was said last; False where it is to be stopped."""
        job, _ = self._keys.warm_job(id_)
        *_, stop = await self._link.run(
            ("HSET", job, "state", "running", "heard_at", repr(now), "total", total),
            ("HINCRBY", job, "milliseconds", round(seconds * 1000)),
            ("HDEL", job, "bound", "ended_at"),
            ("HEXISTS", job, "stop"),
            slow=True,
        )
        return not stop

    async def end(self, id_: str, *, seconds: float, total: int, bound: WarmBound | None, now: float) -> None:
        """Say that it ended: by itself, or by a bound."""
        job, _ = self._keys.warm_job(id_)
        state = "left" if bound else "done"
        fields = ("state", state, "ended_at", repr(now), "heard_at", repr(now), "total", total, "bound", bound or "")
        took = ("HINCRBY", job, "milliseconds", round(seconds * 1000))
        await self._link.run(("HSET", job, *fields), took, ("HDEL", job, "stop"), slow=True)


def _bounds(budget: WarmBudget, known: WarmJob, *, only_given: bool = False) -> list[Any]:
    """The fields that allow so much more than is spent."""
    bounds = {
        "most_calls": None if budget.calls is None else known.calls + budget.calls,
        "most_ms": None if budget.seconds is None else round((known.seconds + budget.seconds) * 1000),
        "most_money": None if budget.money is None else round((known.money + budget.money) * _MILLIONTHS),
    }
    return [
        part
        for name, most in bounds.items()
        if most is not None or not only_given
        for part in (name, _UNBOUND if most is None else most)
    ]


def _job(fields: dict[bytes, bytes]) -> WarmJob:
    def number(name: bytes) -> int:
        return int(fields.get(name, b"0"))

    def most(name: bytes, unit: int) -> float | None:
        value = int(fields.get(name, b"-1"))
        return None if value < 0 else value / unit

    calls = most(b"most_calls", 1)
    bound = fields.get(b"bound", b"").decode()
    return WarmJob(
        order=decode(fields[b"order"], WarmOrder),
        state=fields.get(b"state", b"running").decode(),
        bound=WarmBound(bound) if bound else None,
        budget=WarmBudget(
            calls=None if calls is None else int(calls),
            seconds=most(b"most_ms", 1000),
            money=most(b"most_money", _MILLIONTHS),
        ),
        calls=number(b"calls"),
        money=number(b"money") / _MILLIONTHS,
        seconds=number(b"milliseconds") / 1000,
        total=number(b"total"),
        heard_at=float(fields.get(b"heard_at", b"0")),
        ended_at=float(fields.get(b"ended_at", b"0")),
        stopping=b"stop" in fields,
    )


def _pairs(reply: Any) -> dict[bytes, bytes]:
    if isinstance(reply, dict):
        return reply
    if not isinstance(reply, list) or len(reply) % 2:
        raise StoreDamaged("what is known of a warm-up is not what was written")
    return dict(zip(reply[::2], reply[1::2], strict=True))


def is_done(item: WarmItem) -> bool:
    """Whether a warm-up that goes on has nothing more to do for this question: what failed is tried again."""
    return item.outcome in {WarmOutcome.STORED, WarmOutcome.WARM, WarmOutcome.REFUSED}
