"""The query engine of a server (`FT.*`: Redis Stack, Redis 8): whether it is there for us, and its commands.

Invariant: what it refuses or says in another form leaves here as a `StoreError`. Nobody's text gets into a query: who
builds one is given numbers, digests and tokens of letters and digits (`search.history.engine_query`), or binds it as a
parameter. A cluster's servers each know their own part only, and the engine only knows database 0: there is none then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from agentic_flywheel.errors import StoreError
from agentic_flywheel.store.failures import NONSENSE, nonsense
from agentic_flywheel.store.link import Command, Link
from agentic_flywheel.store.wire import Refusal

#: What nobody may wait for: the engine holds up the whole server while it searches. It gives partial results beyond
#: this, and does not always say so; it is there for accidents.
SEARCH_MILLISECONDS = 2000

_UNKNOWN = ("unknown command", "no such command")
_ABSENT = ("no such index", "not found", "unknown index name")
_PRESENT = ("already exists",)


class Built(NamedTuple):
    """How far an index has come: `docs` that it holds, the `share` that is done while it is `building`, its size."""

    docs: int
    building: bool
    share: float
    size_bytes: int


class Row(NamedTuple):
    """A hash that was found: its key, its score, and the fields that were asked for."""

    key: str
    score: float
    fields: Mapping[bytes, bytes]


class Rows(NamedTuple):
    """What a search found, best first, and how many match in all."""

    rows: list[Row]
    total: int


class QueryEngine:
    """The engine of one server."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._usable: bool | None = None
        self.why_not = ""

    async def usable(self) -> bool:
        """Whether it is there and may be used; asked once, and `why_not` says what is in the way. Raises `StoreError`
        where nobody answers."""
        if self._usable is None:
            address = self._link.address
            if address.kind == "cluster":
                self.give_up("on a cluster each server would know its own part only")
            elif address.database:
                self.give_up(f"it only knows database 0, and this is database {address.database}")
            else:
                (reply,) = await self._link.run_each(("FT._LIST",), slow=True)
                if not isinstance(reply, Refusal):
                    self._usable = True
                elif reply.status_code == "NOPERM":
                    self.give_up("this user of Redis may not use it (`afw doctor --acl` prints the rights)")
                elif any(words in str(reply).lower() for words in _UNKNOWN):
                    self.give_up("this Redis has none (Redis 8 and Redis Stack have one)")
                else:
                    raise self.error(reply, "FT._LIST")
        return bool(self._usable)

    def give_up(self, why: str) -> None:
        """Take it for unusable from now on."""
        self._usable, self.why_not = False, why

    async def names(self) -> list[str]:
        """The indexes of this server, whosever they are."""
        (reply,) = await self._link.run(("FT._LIST",), slow=True)
        return [raw.decode("utf-8", "replace") for raw in reply]

    async def create(self, index: str, prefix: str, schema: Sequence[Any], *options: Any) -> None:
        """Make an index of hashes whose keys begin so, unless it is there. Raises `StoreError`; where it is no trouble
        that may pass, this engine cannot do it, and is given up."""
        create: Command = ("FT.CREATE", index, "ON", "HASH", "PREFIX", 1, prefix, *options, "SCHEMA", *schema)
        (reply,) = await self._link.run_each(create, slow=True)
        if isinstance(reply, Refusal) and not any(words in str(reply).lower() for words in _PRESENT):
            error = self.error(reply, "FT.CREATE")
            if type(error) is StoreError or reply.status_code == "NOPERM":
                self.give_up(f"it does not take our index: {reply}")
            raise error

    async def drop(self, index: str) -> None:
        """Remove an index, not what it finds; without effect where there is none."""
        (reply,) = await self._link.run_each(("FT.DROPINDEX", index), slow=True)
        if isinstance(reply, Refusal) and not any(words in str(reply).lower() for words in _ABSENT):
            raise self.error(reply, "FT.DROPINDEX")

    @staticmethod
    def info_command(index: str) -> Command:
        """What to send to learn how far an index has come; see `built`."""
        return ("FT.INFO", index)

    def built(self, reply: Any) -> Built | None:
        """The reply to `info_command`; None where there is no such index."""
        if isinstance(reply, Refusal):
            if any(words in str(reply).lower() for words in _ABSENT):
                return None
            raise self.error(reply, "FT.INFO")
        try:
            megabytes = sum(float(reply.get(name, 0)) for name in (b"total_index_memory_sz_mb", b"vector_index_sz_mb"))
            share = float(reply[b"percent_indexed"])
            building = share < 1 or bool(int(reply[b"indexing"]))
            return Built(int(reply[b"num_docs"]), building, share, int(megabytes * 2**20))
        except NONSENSE as error:
            raise nonsense(error, "the state of an index") from error

    @staticmethod
    def sizes_command(index: str, tokens: Sequence[str], few: str) -> Command:
        """What to send to learn how many documents hold tokens, about, without looking at them: of a search within
        `few` documents, the engine's account of itself has the length of each token's list. See `sizes`."""
        query = f"{few} ({'|'.join(tokens)})"
        return ("FT.PROFILE", index, "SEARCH", "QUERY", query, "VERBATIM", "LIMIT", 0, 0, "DIALECT", 2)

    @staticmethod
    def sizes(reply: Any) -> dict[str, int]:
        """The reply to `sizes_command`, by token; none where the engine refuses, or says it in a form that is not
        known here."""
        found: dict[str, int] = {}
        waiting = [reply]
        while waiting:
            part = waiting.pop()
            if isinstance(part, Mapping):
                term, size = part.get(b"Term"), part.get(b"Size")
                if part.get(b"Type") == b"TEXT" and isinstance(term, bytes) and isinstance(size, int):
                    found[term.decode("utf-8", "replace")] = size
                waiting += part.values()
            elif isinstance(part, list):
                waiting += part
        return found

    async def search(self, search: Command, *also: Command) -> tuple[Rows | None, list[Any]]:
        """Carry out an `FT.SEARCH`; None where there is no such index. `also` is sent with it: the replies to that."""
        reply, *others = await self._link.run_each(search, *also, slow=True)
        if isinstance(reply, Refusal):
            if is_absent(reply):
                return None, others
            raise self.error(reply, "FT.SEARCH")
        return self.rows(reply), others

    def rows(self, reply: Any) -> Rows:
        """The reply to an `FT.SEARCH`; what ended between being found and being read is left out."""
        try:
            if warnings := reply.get(b"warning"):
                raise StoreError(f"the query engine did not finish its search: {warnings[0].decode()}")
            nothing: dict[bytes, bytes] = {}
            rows = [
                Row(row[b"id"].decode(), float(row.get(b"score", 0.0)), row.get(b"extra_attributes", nothing))
                for row in reply[b"results"]
            ]
            return Rows(rows, int(reply[b"total_results"]))
        except NONSENSE as error:
            raise nonsense(error, "a search of the query engine") from error

    def error(self, refusal: Refusal, what: str) -> StoreError:
        """A refusal, to be raised."""
        error = self._link.error(refusal, what)
        error.__cause__ = refusal
        return error


def is_absent(refusal: Refusal) -> bool:
    """Whether a refusal says that there is no such index."""
    return any(words in str(refusal).lower() for words in _ABSENT)
