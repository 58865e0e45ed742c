"""Privacy policies as all processes share them: one hash of a tenant, with a version that every question reads.

    afw:v1:T:privacy    hash    version; tenant, flow:F, user:U: a policy each

Invariant: a policy and the version are written in one step, and the version is another one after each change; so who
has read the version knows whether what it knows still holds. A policy that cannot be read counts as one that forbids
everything to be kept: what somebody forbade is not allowed by damage.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.identifiers import new_id
from agentic_flywheel.privacy import PrivacyPolicy, Rule, Whose
from agentic_flywheel.store.codec import decode, encode, packed, place
from agentic_flywheel.store.failures import NONSENSE, nonsense
from agentic_flywheel.store.keys import Keys, safe
from agentic_flywheel.store.link import Command, Link, Script
from agentic_flywheel.store.seals import Seals

#: The field of the version.
VERSION = "version"
#: What holds in place of a policy that cannot be read.
NOTHING_KEPT = PrivacyPolicy(history=False, cache=False)

_log = logging.getLogger(__name__)

# KEYS: the policies. ARGV: field, policy ("": take it back), new version.
CHANGE = Script("""
if ARGV[2] == '' then redis.call('HDEL', KEYS[1], ARGV[1])
else redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
redis.call('HSET', KEYS[1], 'version', ARGV[3])
return 1
""")


class PolicyTable(msgspec.Struct, frozen=True):
    """All policies of a tenant that were set at run time, by field; `version` is "" where nobody ever set one."""

    version: str
    rules: Mapping[str, Rule]


class PolicyStore:
    """The policies of one tenant."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._key = keys.privacy

    def version_command(self) -> Command:
        """What to send to learn the version; see `version_of`."""
        return ("HGET", self._key, VERSION)

    def version_of(self, reply: bytes | None) -> str:
        """The reply to `version_command`."""
        return reply.decode("ascii", "replace") if reply else ""

    async def table(self, *, slow: bool = False) -> PolicyTable:
        """All policies. Raises `StoreError`."""
        (reply,) = await self._link.run(("HGETALL", self._key), slow=slow)
        try:
            fields = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
            version = self.version_of(fields.pop(VERSION.encode(), None))
            named = {name.decode("utf-8", "replace"): raw for name, raw in fields.items()}
            return PolicyTable(version, {field: _rule(field, raw) for field, raw in named.items()})
        except NONSENSE as error:
            raise nonsense(error, "the privacy policies") from error

    async def change(self, whose: Whose, name: str, policy: PrivacyPolicy | None) -> None:
        """Set a policy, or take it back. Raises `StoreError`."""
        field = field_of(whose, name)
        value = encode(Rule(whose, name, policy), place(self._key, field)) if policy is not None else ""
        await self._link.run(CHANGE.call((self._key,), field, value, new_id()), slow=True)


class PolicyFile:
    """The policies as they were last read, on local disk: what holds for a process that begins while Redis is away.

    Written only where there are policies, or were; sealed where values are. Its methods block.
    """

    def __init__(self, path: Path, seals: Seals, tenant: str) -> None:
        self._path = path / f"policies-{safe(tenant)}"
        self._seals = seals
        self._at = place(Keys(tenant).privacy, "on disk")

    def read(self) -> Mapping[str, Rule] | None:
        """The policies by field; None where there is no file. One that cannot be read forbids everything."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("the policies on disk cannot be read: %s", error)
            return _unreadable()
        try:
            rules = decode(self._seals.open(raw, self._at), _Rules).rules
        except StoreDamaged as error:
            _log.warning("the policies on disk cannot be read: %s", error)
            return _unreadable()
        return {field_of(rule.whose, rule.name): rule for rule in rules}

    def write(self, rules: Mapping[str, Rule]) -> None:
        """Keep these."""
        try:
            if not rules and not self._path.exists():
                return
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            raw = self._seals.seal(packed(_Rules(tuple(rules.values()))), self._at)
            part = self._path.with_name(f"{self._path.name}.{new_id()}")
            part.touch(mode=0o600)
            part.write_bytes(raw)
            part.replace(self._path)
        except OSError as error:
            _log.warning("the policies are not kept on disk for an outage: %s", error)


class _Rules(msgspec.Struct, frozen=True):
    rules: tuple[Rule, ...]


def field_of(whose: Whose, name: str) -> str:
    """The field of a policy."""
    return f"{whose.value}:{safe(name)}" if name else whose.value


def keeps_turns(rules: Mapping[str, Rule], flow: str, user: str) -> bool:
    """Whether these policies let turns be kept."""
    return all(rule.policy.history is not False for rule in _concerning(rules, flow, user))


def keeps_answers(rules: Mapping[str, Rule], flow: str, user: str) -> bool:
    """Whether these policies let answers be stored."""
    return all(rule.policy.cache is not False for rule in _concerning(rules, flow, user))


def _concerning(rules: Mapping[str, Rule], flow: str, user: str) -> Iterator[Rule]:
    fields = [field_of(Whose.TENANT, ""), field_of(Whose.FLOW, flow)]
    if user:
        fields.append(field_of(Whose.USER, user))
    return (rules[field] for field in fields if field in rules)


def _rule(field: str, raw: bytes) -> Rule:
    try:
        return decode(raw, Rule)
    except StoreDamaged as error:
        _log.error("the privacy policy of %s cannot be read, so nothing is kept there: %s", field, error)
        whose, _, name = field.partition(":")
        return Rule(Whose(whose) if whose in tuple(Whose) else Whose.TENANT, name, NOTHING_KEPT)


def _unreadable() -> Mapping[str, Rule]:
    return {Whose.TENANT.value: Rule(Whose.TENANT, "", NOTHING_KEPT)}
