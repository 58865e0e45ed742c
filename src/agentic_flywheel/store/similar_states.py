"""What all processes know of a flow's similar questions: labels, the cut in force, what people decided.

Invariant: no label is lost, and no cut outlives the evidence it was made from: labels and decisions of people raise a
version, and a cut that serves more is only taken for the version it was reckoned from. One that serves less is taken
from anybody at any time: at worst it is too careful until the next label. Every change of a cut is written down in the
same atomic step. Nothing here expires.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.likeness import CutChange, Profile, Proposal, Report, SimilarMode, SimilarState
from agentic_flywheel.store.codec import decode, encode
from agentic_flywheel.store.codec import place as place_of
from agentic_flywheel.store.failures import NONSENSE
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Command, Link, Script

_CHANGES_KEPT = 200
_REPORTS_KEPT = 10_000
_PAGE = 200
_SETTINGS = ("profile", "mode", "max_error")

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

# KEYS of the first three: what people decided, evidence, changes. A flow's version is that of both hashes together.
RECORD = Script("""
redis.call('HINCRBY', KEYS[2], 'version', 1)
for i = 1, #ARGV, 2 do redis.call('HINCRBY', KEYS[2], ARGV[i], ARGV[i + 1]) end
return {redis.call('HMGET', KEYS[1], 'version', 'profile', 'mode', 'max_error'), redis.call('HGETALL', KEYS[2])}
""")

# ARGV: version, the new cut ("" is closed), the change as JSON without the old cut, how many changes are kept, the
# cut's field.
# Returns whether the cut is in force now. One that is in force already is not written down again.
SET_CUT = Script("""
local old, new = redis.call('HGET', KEYS[2], ARGV[5]) or '', ARGV[2]
if old == new then return 1 end
local version = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
    + tonumber(redis.call('HGET', KEYS[2], 'version') or '0')
local tighter = old ~= '' and (new == '' or tonumber(new) > (tonumber(old) or 2))
if version ~= tonumber(ARGV[1]) and not tighter then return 0 end
redis.call('HSET', KEYS[2], ARGV[5], new)
redis.call('LPUSH', KEYS[3], '{"old":' .. (old == '' and 'null' or old) .. ',' .. string.sub(ARGV[3], 2))
redis.call('LTRIM', KEYS[3], 0, ARGV[4] - 1)
return 1
""")

# Forgets labels and cut; the version goes on, so that no cut from before comes back. ARGV: the change as JSON, or "".
RESET = Script("""
local version = redis.call('HINCRBY', KEYS[2], 'version', 1)
local known = redis.call('HGETALL', KEYS[2])
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'version', version)
for i = 1, #known, 2 do
    if known[i + 1] ~= '' and (known[i] == 'cut' or string.sub(known[i], 1, 4) == 'cut:') and ARGV[1] ~= '' then
        local told = cjson.decode(ARGV[1])
        told['old'], told['standing'] = tonumber(known[i + 1]), string.sub(known[i], 5)
        redis.call('LPUSH', KEYS[3], cjson.encode(told))
    end
end
redis.call('LTRIM', KEYS[3], 0, ARGV[2] - 1)
""")


# What people decide: names and values, "" for what is taken back.
DECIDE = Script("""
for i = 1, #ARGV, 2 do
    if ARGV[i + 1] == '' then
        redis.call('HDEL', KEYS[1], ARGV[i])
    else
        redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    end
end
redis.call('HINCRBY', KEYS[1], 'version', 1)
""")

# Replaces a field that still holds what was read.
REPLACE = Script("""
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
""")

# Takes entries out of a stream by their places. XDEL would only mark them, their bytes stay in memory and in backups:
# so the stream is written anew, in O(its length), which is bounded.
REWRITE = Script("""
local gone = {}
for _, place in ipairs(ARGV) do gone[place] = true end
local all = redis.call('XRANGE', KEYS[1], '-', '+')
redis.call('DEL', KEYS[1])
for _, entry in ipairs(all) do
    if not gone[entry[1]] then redis.call('XADD', KEYS[1], entry[1], unpack(entry[2])) end
end
""")

SCRIPTS = (RECORD, SET_CUT, RESET, DECIDE, REPLACE, REWRITE)


class SimilarStates:
    """The similar questions of one tenant's flows. `damaged` counts records that were found to be something else."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self.damaged = 0

    def read_commands(self, flow: str, embedder: str, pairs: Sequence[str] = ()) -> list[Command]:
        """What to send to read a flow's state, and which of the pairs (their digests) are blocked; see `state_of`."""
        commands: list[Command] = [
            ("HMGET", self._keys.similar(flow), "version", *_SETTINGS),
            ("HGETALL", self._keys.evidence(flow, embedder)),
        ]
        if pairs:
            commands.append(("SMISMEMBER", self._keys.blocked(flow), *pairs))
        return commands

    def state_of(self, replies: Sequence[Any]) -> SimilarState:
        """The replies to `read_commands`. Raises `StoreDamaged`."""
        try:
            version, profile, mode, max_error = replies[0]
            fields = _named(replies[1])
            learnt = int(fields.pop("version", 0))
            cuts = {name: fields.pop(name) for name in list(fields) if name == "cut" or name.startswith("cut:")}
            return SimilarState(
                version=int(version or 0) + learnt,
                cuts={name.partition(":")[2]: float(cut) for name, cut in cuts.items() if cut},
                evidence={name: int(count) for name, count in fields.items()},
                profile=Profile(profile.decode()) if profile else None,
                mode=SimilarMode(mode.decode()) if mode else None,
                max_error=float(max_error) if max_error else None,
                blocked=tuple(bool(int(one)) for one in replies[2]) if len(replies) > 2 else (),
            )
        except NONSENSE as error:
            raise StoreDamaged(
                f"what is known of a flow's similar questions is not what was written: {error}",
                suggestions=("Forget the flow's labels (they are learnt anew), and take back what people set for it.",),
            ) from error

    async def state(self, flow: str, embedder: str, pairs: Sequence[str] = ()) -> SimilarState:
        """A flow's state; all defaults where nothing is known. Raises `StoreDamaged`."""
        return self.state_of(await self._link.run(*self.read_commands(flow, embedder, pairs)))

    async def record(self, flow: str, embedder: str, increments: Mapping[str, int]) -> SimilarState:
        """Add labels (by field); the state with them. Raises `StoreDamaged`."""
        words = [word for field, count in increments.items() for word in (field, count)]
        (replies,) = await self._link.run(RECORD.call(self._hashes(flow, embedder)[:2], *words))
        return self.state_of(replies)

    async def set_cut(self, flow: str, embedder: str, *, version: int, cut: float | None, change: CutChange) -> bool:
        """Put a cut (that of `change.standing`) in force and write its change down; whether it is in force now.

        False where something was learnt or decided since `version`: reckon anew. A cut that serves less than the one in
        force (higher, or None) is taken whatever the version. `change.old` is replaced by the cut that was in force.
        """
        new = "" if cut is None else repr(float(cut))
        field = f"cut:{change.standing}" if change.standing else "cut"
        call = SET_CUT.call(self._hashes(flow, embedder), version, new, _without_old(change), _CHANGES_KEPT, field)
        (done,) = await self._link.run(call)
        return bool(done)

    async def reset(self, flow: str, embedder: str, change: CutChange | None = None) -> None:
        """Forget a flow's labels and its cut, and write `change` down if there was one. Blocked pairs stay blocked."""
        said = _without_old(change) if change is not None else ""
        await self._link.run(RESET.call(self._hashes(flow, embedder), said, _CHANGES_KEPT), slow=True)

    async def changes(self, flow: str, embedder: str) -> list[CutChange]:
        """The last 200 changes of a flow's cut, newest first; damaged ones are left out and counted."""
        (raw,) = await self._link.run(("LRANGE", self._keys.cut_changes(flow, embedder), 0, -1), slow=True)
        found = []
        for item in raw:
            try:
                found.append(msgspec.json.decode(item, type=CutChange))
            except msgspec.DecodeError as error:
                self.damaged += 1
                _log.warning("a change of the cut of flow %s is left out: %s", flow, error)
        return found

    async def set_override(
        self,
        flow: str,
        *,
        profile: Profile | UnsetType | None = UNSET,
        mode: SimilarMode | UnsetType | None = UNSET,
        max_error: float | UnsetType | None = UNSET,
    ) -> None:
        """Set what people decide for a flow; None takes a decision back, what is not named stays."""
        said = {"profile": profile, "mode": mode, "max_error": max_error}
        words: list[str] = []
        for name, value in said.items():
            if value is not UNSET:
                words += [name, "" if value is None else str(value)]
        if words:
            await self._link.run(DECIDE.call((self._keys.similar(flow),), *words), slow=True)

    async def block(self, flow: str, pair: str) -> bool:
        """Never let two questions (the digest of the pair) be taken for each other again; whether that is new."""
        (added,) = await self._link.run(("SADD", self._keys.blocked(flow), pair))
        return bool(added)

    async def add_report(self, report: Report) -> None:
        """Keep what somebody said of an answer, among about the newest 10,000 of the tenant."""
        await self._link.run(("XADD", self._keys.reports, "MAXLEN", "~", _REPORTS_KEPT, "*", "r", encode(report)))

    async def reports(self, limit: int, flow: str | None = None) -> list[Report]:
        """The newest reports (of one flow), newest first; damaged ones are left out and counted."""
        found: dict[str, Report] = {}
        edge = "+"
        while len(found) < limit:
            (page,) = await self._link.run(("XREVRANGE", self._keys.reports, edge, "-", "COUNT", _PAGE), slow=True)
            for _place, fields in page:
                raw = fields.get(b"r") if isinstance(fields, dict) else fields[1]
                report = self._decoded(raw or b"", Report)
                if report is not None and flow in (None, report.flow) and len(found) < limit:
                    found.setdefault(report.id, report)  # one that was sent twice, over a connection that broke
            if len(page) < _PAGE:
                break
            edge = "(" + page[-1][0].decode()
        return list(found.values())

    async def forget_reports(self, session: str, *, dry_run: bool) -> int:
        """Remove what was said of a session's answers; how many reports there are."""
        return await self._forget(lambda report: report.session_id == session, dry_run=dry_run)

    async def forget_reports_of(self, due: Mapping[str, Set[str]], *, dry_run: bool) -> int:
        """Remove what was said of certain turns, named by session; how many reports there are."""
        return await self._forget(
            lambda report: report.turn_id in due.get(report.session_id, frozenset()), dry_run=dry_run
        )

    async def _forget(self, concerns: Callable[[Report], bool], *, dry_run: bool) -> int:
        (page,) = await self._link.run(("XRANGE", self._keys.reports, "-", "+"), slow=True)
        places = []
        for place, fields in page:
            raw = fields.get(b"r") if isinstance(fields, dict) else fields[1]
            report = self._decoded(raw or b"", Report)
            if report is not None and concerns(report):
                places.append(place)
        if places and not dry_run:
            await self._link.run(REWRITE.call((self._keys.reports,), *places), slow=True)
        return len(places)

    async def put_proposal(self, proposal: Proposal) -> bool:
        """Keep a proposal; False where there is one of this id, decided or not.

        Processes that come to the same proposal make one of it by an id that says what is proposed, and since when.
        """
        (new,) = await self._link.run(("HSETNX", self._keys.proposals, proposal.id, encode(proposal)))
        return bool(new)

    async def proposals(self) -> list[Proposal]:
        """Every proposal, newest first, decided ones too; damaged ones are left out and counted."""
        (reply,) = await self._link.run(("HGETALL", self._keys.proposals), slow=True)
        found = [self._decoded(raw, Proposal) for raw in _named(reply).values()]
        return sorted((one for one in found if one is not None), key=lambda one: (-one.at, one.id))

    async def decide_proposal(self, id_: str, state: str, *, by: str, reason: str, at: float) -> Proposal | None:
        """Accept or reject an open proposal, once: the decided one; None where none of this id is open.

        Raises `StoreDamaged` where what is kept under this id cannot be read.
        """
        key, decided = self._keys.proposals, None
        while True:
            (raw,) = await self._link.run(("HGET", key, id_), slow=True)
            if raw is None:
                return None
            known = decode(raw, Proposal)
            if known.state != "open":
                return decided if known == decided else None  # it was sent twice, over a connection that broke
            decided = msgspec.structs.replace(known, state=state, decided_at=at, decided_by=by, reason=reason)
            (done,) = await self._link.run(
                REPLACE.call((key,), id_, raw, encode(decided, place_of(key, id_))), slow=True
            )
            if done:
                return decided

    def _decoded(self, raw: bytes, type_: type[_T]) -> _T | None:
        try:
            return decode(raw, type_)
        except StoreDamaged as error:
            self.damaged += 1
            _log.warning("a %s is left out: %s", type_.__name__.lower(), error)
            return None

    def _hashes(self, flow: str, embedder: str) -> tuple[str, str, str]:
        keys = self._keys
        return keys.similar(flow), keys.evidence(flow, embedder), keys.cut_changes(flow, embedder)


def _named(reply: Any) -> dict[str, Any]:
    # RESP3 answers a map, a script and RESP2 a flat list.
    pairs: Any = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {name.decode(): value for name, value in pairs}


def _without_old(change: CutChange) -> bytes:
    told = msgspec.to_builtins(change)
    del told["old"]
    return msgspec.json.encode(told)
