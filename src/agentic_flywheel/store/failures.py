"""What the failures of a connection to Redis mean.

Invariant: every failure of the wire or the server has one meaning in `errors`; no command's arguments, which are
people's words, get into a message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from agentic_flywheel.errors import (
    SessionTaken,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreMisused,
    StoreRefused,
    StoreUnavailable,
)
from agentic_flywheel.store.address import Address

_KINDS: dict[str, type[StoreError]] = {
    "NOAUTH": StoreRefused,
    "WRONGPASS": StoreRefused,
    "NOPERM": StoreRefused,
    "DENIED": StoreRefused,  # protected mode
    "OOM": StoreFull,
    "MISCONF": StoreFull,  # it cannot write to its disk
    "READONLY": StoreFull,
    "NOREPLICAS": StoreFull,
    "WRONGTYPE": StoreMisused,
    "NOTOWNER": SessionTaken,  # our own: two users began a session of one id at the same time
    "LOADING": StoreUnavailable,
    "BUSY": StoreUnavailable,
    "MASTERDOWN": StoreUnavailable,
    "CLUSTERDOWN": StoreUnavailable,
    "TRYAGAIN": StoreUnavailable,
    "MOVED": StoreUnavailable,
    "ASK": StoreUnavailable,
    "CROSSSLOT": StoreUnavailable,
    "UNBLOCKED": StoreUnavailable,
}
#: Answers under the general code ERR that mean more than it says.
_PHRASES: tuple[tuple[str, type[StoreError]], ...] = (
    ("max number of clients reached", StoreUnavailable),
    ("acl failure in script", StoreRefused),
    ("the user executing the script can't", StoreRefused),
    ("invalid password", StoreRefused),
    ("without any password configured", StoreRefused),
    ("no password is set", StoreRefused),
    ("db index is out of range", StoreRefused),
    ("no space left", StoreFull),
)
_CLUSTER_WORDS = ("MOVED", "ASK", "CROSSSLOT")
_CODE = re.compile(r"[A-Z]{3,}")
#: Before version 7, an error inside a script comes wrapped in text: `ERR Error running script ...: -OOM command ...`.
_SCRIPTED = re.compile(rf"running script .*?: -?({'|'.join(_KINDS)}) ")


def store_error(error: BaseException, address: Address, what: str) -> StoreError:
    """The failure of `what` (a command's name) as this project names it, to be raised `from error`.

    Details: `address` (masked), `origin`, `command`, and `reply`: what the server or the socket said.
    """
    if isinstance(error, StoreError):
        return error
    chain = list(_causes(error))
    reply = next((e for e in chain if getattr(e, "status_code", None)), None)
    where = f"Redis at {address.masked}"
    facts: dict[str, Any] = {"address": address.masked, "origin": address.origin, "command": what}
    if reply is not None:
        return _replied(reply, where, facts)
    said = words_of(chain[-1]) or type(chain[-1]).__name__
    if any(isinstance(e, TimeoutError) for e in chain):
        return StoreUnavailable(f"{where} did not answer in time ({what})", **facts, reply=said)
    return StoreUnavailable(f"{where} cannot be reached ({what}): {said}", **facts, reply=said)


def _replied(error: BaseException, where: str, facts: dict[str, Any]) -> StoreError:
    """The meaning of an answer that is an error."""
    said = words_of(error)
    code = getattr(error, "status_code", None) or ""
    if not code and (found := _CODE.match(said)):
        code = found.group()
    if code in ("", "ERR") and (found := _SCRIPTED.search(said)):
        code = found.group(1)
    kind = _KINDS.get(code)
    if kind is None:
        kind = next((kind for phrase, kind in _PHRASES if phrase in said.lower()), StoreError)
    suggestions: tuple[str, ...] = ()
    if code in _CLUSTER_WORDS:
        suggestions = ("This server is part of a cluster: name it with redis+cluster:// (rediss+cluster:// for TLS).",)
    elif "db index" in said.lower():
        suggestions = ("Name a database that the server has: most have 0 to 15, clusters only 0.",)
    if kind is SessionTaken:
        return kind("the session belongs to another user by now", **facts, reply=said)
    return kind(f"{where} answered {facts['command']} with: {said}", suggestions=suggestions, **facts, reply=said)


#: What reading a reply that no server gives ends in.
NONSENSE = (TypeError, ValueError, LookupError, AttributeError)


def nonsense(error: Exception, what: str) -> StoreDamaged:
    """The failure to read a reply, to be raised `from error`; `what` was asked for."""
    return StoreDamaged(f"Redis, or something on the way to it, answered {what} with nonsense ({error})")


def words_of(error: BaseException) -> str:
    """The server's or the system's own words, without the command that client or server repeat in them."""
    text = str(error.args[0]) if error.args else ""
    if isinstance(error, OSError) and error.strerror:
        # Of a connection that failed asyncio says where, which we know, and not why.
        located = error.errno is not None and error.strerror.startswith("Connect call failed")
        text = os.strerror(error.errno or 0) if located else error.strerror
    text = text.partition(", with args beginning with")[0]
    code = getattr(error, "status_code", None)
    return f"{code} {text}" if code and not text.startswith(code) else text


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from: over a unix socket a refused password arrives wrapped as lost connection."""
    while error is not None:
        yield error
        error = error.__cause__
