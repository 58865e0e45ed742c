"""What the Redis at hand is able to do and how it is configured, and whether that keeps the promises.

Invariant: the probe reads only, and asks for nothing that a server may be without: what is forbidden or unknown there
becomes a note, never a failure. `examine` is pure, so that every judgement is tested without a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from agentic_flywheel.errors import StoreError, StoreUnavailable
from agentic_flywheel.model import Check
from agentic_flywheel.store.address import Address

OLDEST_REDIS = (6, 2)


class Executes(Protocol):
    """Anything that sends one command and returns its reply."""

    async def execute(self, *args: Any) -> Any:
        """Send a command; an error reply raises."""
        ...


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a server said of itself; None where it did not say, and then `notes` has the reason.

    `search` says that the query engine (`FT.*`) is there, `snapshots` that it saves to disk from time to time,
    `append_only` that it logs every write.
    """

    family: str = "unknown"
    version: str = ""
    cluster: bool | None = None
    search: bool | None = None
    role: str | None = None
    max_memory_bytes: int | None = None
    used_memory_bytes: int | None = None
    eviction_policy: str | None = None
    append_only: bool | None = None
    snapshots: bool | None = None
    notes: tuple[str, ...] = ()


async def probe(connection: Executes) -> Capabilities:
    """Ask the server. Raises what `connection` raises where it cannot be reached or refuses the credentials."""
    notes: list[str] = []
    info = _facts(await _ask(connection, notes, "INFO"))
    settings = _settings(await _ask(connection, notes, "CONFIG", "GET", "save"))
    family = "valkey" if "valkey_version" in info else "redis" if "redis_version" in info else "unknown"
    return Capabilities(
        family=family,
        version=info.get(f"{family}_version", ""),
        cluster=_flag(info.get("cluster_enabled")),
        search=await _has_search(connection, notes),
        role=info.get("role"),
        max_memory_bytes=_number(info.get("maxmemory")),
        used_memory_bytes=_number(info.get("used_memory")),
        eviction_policy=info.get("maxmemory_policy"),
        append_only=_flag(info.get("aof_enabled")),
        snapshots=bool(settings["save"]) if "save" in settings else None,
        notes=tuple(notes),
    )


def examine(capabilities: Capabilities, address: Address) -> list[Check]:
    """Judge a server by the promises: what is fine, what is not, what to do."""
    checks = [_check_version(capabilities), _check_role(capabilities), _check_eviction(capabilities)]
    checks += [_check_persistence(capabilities), _check_search(capabilities)]
    if capabilities.cluster and address.kind == "cluster":
        checks.append(
            Check("cluster", "ok", "a cluster; what is said here of one server is that of one of its primaries")
        )
    elif capabilities.cluster:
        advice = "Name it with redis+cluster:// (rediss+cluster:// for TLS)."
        checks.append(Check("cluster", "fail", "the server is part of a cluster", advice))
    if not (address.embedded or address.tls or address.local):
        advice = "Use rediss:// if the network between is not yours alone."
        checks.append(Check("encryption", "warn", "the connection is not encrypted", advice))
    checks += [
        Check("note", "warn", note, "Allow the command to this user for a full check.") for note in capabilities.notes
    ]
    return checks


def _check_version(found: Capabilities) -> Check:
    name = f"{found.family} {found.version}".strip()
    if not found.version:
        return Check("version", "warn", "the server does not say which version it is", "Redis 6.2 or Valkey is needed.")
    if found.family == "redis" and _version(found.version) < OLDEST_REDIS:
        return Check("version", "fail", f"{name} is too old", "Use Redis 6.2 or later, or Valkey.")
    return Check("version", "ok", name)


def _check_role(found: Capabilities) -> Check:
    if found.role is None:
        return Check("role", "warn", "the server does not say whether it takes writes")
    if found.role != "master":
        return Check(
            "role", "fail", "the server is a replica and takes no writes", "Name the primary in AFW_REDIS_URL."
        )
    return Check("role", "ok", "takes writes")


def _check_eviction(found: Capabilities) -> Check:
    policy, limit = found.eviction_policy, found.max_memory_bytes
    if policy is None or limit is None:
        advice = "Make sure that maxmemory-policy is volatile-lru (or another volatile-*)."
        return Check("eviction", "warn", "the server does not say what it evicts when memory is short", advice)
    size = f"{limit / 1e6:.0f} MB" if limit else "no memory limit"
    if policy.startswith("volatile-"):
        return Check("eviction", "ok", f"{policy}, {size}: cached answers make room, conversations never do")
    if policy != "noeviction":
        advice = "CONFIG SET maxmemory-policy volatile-lru, and the same in its configuration."
        return Check("eviction", "warn", f"{policy}, {size}: conversations may be evicted", advice)
    if limit:
        advice = "CONFIG SET maxmemory-policy volatile-lru lets cached answers make room instead."
        return Check("eviction", "warn", f"noeviction, {size}: writes fail when it is reached", advice)
    return Check("eviction", "ok", "no memory limit, nothing is evicted")


def _check_persistence(found: Capabilities) -> Check:
    if found.append_only:
        return Check("persistence", "ok", "every write is logged (append-only file)")
    advice = "CONFIG SET appendonly yes, and the same in its configuration."
    if found.append_only is None:
        return Check("persistence", "warn", "the server does not say whether it keeps its data on disk")
    if found.snapshots:
        return Check("persistence", "warn", "snapshots only: a crash loses the turns since the last one", advice)
    if found.snapshots is None:
        return Check("persistence", "warn", "no append-only file; snapshots are not known", advice)
    return Check("persistence", "warn", "nothing is kept on disk: a restart loses every conversation", advice)


def _check_search(found: Capabilities) -> Check:
    if found.search is None:
        return Check("search", "ok", "not known whether the server has a query engine; none is needed")
    return Check("search", "ok", "query engine" if found.search else "no query engine; none is needed")


async def _has_search(connection: Executes, notes: list[str]) -> bool | None:
    """Whether `FT.*` works, found by trying; asking COMMAND INFO breaks the client where a command is unknown."""
    before = len(notes)
    reply = await _ask(connection, notes, "FT._LIST")
    if reply is not None:
        return True
    unknown = "unknown command" in notes[-1].lower() if len(notes) > before else False
    del notes[before + (0 if unknown else 1) :]
    return False if unknown else None


async def _ask(connection: Executes, notes: list[str], *command: str) -> Any:
    """The reply, or None with a note where the server has or allows no such command."""
    from redis.exceptions import AuthenticationError, ResponseError

    try:
        return await connection.execute(*command)
    except StoreUnavailable:
        raise
    except (ResponseError, StoreError) as error:
        if isinstance(error, AuthenticationError) or isinstance(error.__cause__, AuthenticationError):
            raise
        notes.append(f"{' '.join(command)} is not answered: {error}")
        return None


def _facts(reply: Any) -> dict[str, str]:
    """INFO as names and values, whether the client has parsed it or not."""
    if isinstance(reply, Mapping):
        return {_text(name): _text(value) for name, value in reply.items()}
    lines = (line.partition(":") for line in _text(reply or "").splitlines())
    return {name: value for name, colon, value in lines if colon}


def _settings(reply: Any) -> dict[str, str]:
    """CONFIG GET as names and values: a map, or names and values in turn."""
    if isinstance(reply, Mapping):
        return {_text(name): _text(value) for name, value in reply.items()}
    flat = [_text(item) for item in reply or ()]
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _number(value: str | None) -> int | None:
    return int(value) if value is not None else None


def _flag(value: str | None) -> bool | None:
    return value == "1" if value is not None else None


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
