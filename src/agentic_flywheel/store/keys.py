"""Every Redis key, in one place.

Invariant: user text never stands in a key: ids of unsafe form are hashed; and all keys that one script touches carry
the same hash tag (`{...}`), so they live in one slot of a cluster while everything else spreads. The table in
docs/how-it-works.md lists the same keys; a test holds the two together.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from zlib import crc32

PREFIX = "afw:v1"
#: Indexes that would grow with the whole are spread over so many keys.
SHARDS = 16

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ENTRY = re.compile(
    rf"{re.escape(PREFIX)}:(?P<tenant>[^:]+):(?P<scope>team|user:\{{[^}}:]+\}}|session:\{{[^}}:]+\}})"
    r":flow:(?P<flow>[^:]+):q:\{?(?P<hash>[0-9a-f]{32})\}?"
)


def safe(raw: str) -> str:
    """An id as it stands in keys: itself if it is plain, else `~` and 128 bits of BLAKE2b; never ambiguous.

    >>> safe("alice-1"), safe("é:{x}")[:4], safe("~x") != "~x"
    ('alice-1', '~6ad', True)
    """
    if _SAFE.fullmatch(raw):
        return raw
    return "~" + blake2b(raw.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def shard_of(member: str) -> int:
    """The shard of an index that holds a member; CRC-32 is stable across processes and versions."""
    return crc32(member.encode()) % SHARDS


class Keys:
    """The keys of one tenant."""

    def __init__(self, tenant: str) -> None:
        self.root = f"{PREFIX}:{safe(tenant)}"
        self.flows = f"{self.root}:flows"
        self.lifetimes = f"{self.root}:ttl"
        #: What was set for the privacy of flows, users and the tenant (`store.privacy`).
        self.privacy = f"{self.root}:privacy"
        #: How far the sweep of turns past their retention has come, and what the last one came to.
        self.retention = f"{self.root}:retention"
        self.reports = f"{self.root}:reports"
        self.proposals = f"{self.root}:proposals"
        self.audit = f"{self.root}:audit"
        #: What is still to be deleted where traces went.
        self.erasures = f"{self.root}:erasures"
        #: Of all tenants; `@` begins no tenant's part.
        self.api_keys = f"{PREFIX}:@keys"
        self.warm = f"{self.root}:warm"
        #: Which keys the values of this tenant are sealed with (`store.seals`).
        self.sealing = f"{self.root}:sealing"
        self._feeds = [f"{self.root}:feed:{shard}" for shard in range(SHARDS)]

    def entry(self, scope: str, flow: str, hash_: str, *, user: str = "", session: str = "") -> str:
        """The key of a stored answer; `scope` is team, user or session."""
        if scope == "team":
            return f"{self.root}:team:flow:{safe(flow)}:q:{{{hash_}}}"
        owner = user if scope == "user" else session
        return f"{self.root}:{scope}:{{{safe(owner)}}}:flow:{safe(flow)}:q:{hash_}"

    def is_entry(self, key: str) -> bool:
        """Whether this is the key of a stored answer of this tenant."""
        return key.startswith(self.root + ":") and _ENTRY.fullmatch(key) is not None

    def is_entry_of_session(self, key: str, session: str) -> bool:
        """Whether this is the key of an answer that is kept for one session alone."""
        return self.is_entry(key) and key.startswith(f"{self.session(session)}:flow:")

    def shared_prefixes(self) -> tuple[str, ...]:
        """What decides answers that the team shares: entries, flows, lifetimes, policies."""
        return f"{self.root}:team:", f"{self.root}:flow:", self.lifetimes, self.privacy

    def flow(self, flow: str) -> str:
        """What is known of a flow: fingerprint, generation, override of its lifetime."""
        return f"{self.root}:flow:{{{safe(flow)}}}"

    def changes(self, flow: str) -> str:
        """The flow's last changes of fingerprint or generation."""
        return f"{self.flow(flow)}:changes"

    def entries(self, flow: str, shard: int) -> str:
        """One shard of the flow's entry index: `generation|key` by expiry."""
        return f"{self.flow(flow)}:entries:{shard}"

    def similar(self, flow: str) -> str:
        """What people decided about the flow's similar questions."""
        return f"{self.flow(flow)}:similar"

    def evidence(self, flow: str, embedder: str) -> str:
        """The flow's labels and its cut, for one embedder."""
        return f"{self.similar(flow)}:{short(embedder)}"

    def cut_changes(self, flow: str, embedder: str) -> str:
        """The last changes of that cut."""
        return f"{self.evidence(flow, embedder)}:changes"

    def blocked(self, flow: str) -> str:
        """Pairs of the flow's questions that must never be taken for each other."""
        return f"{self.flow(flow)}:blocked"

    def faq(self, flow: str) -> str:
        """The flow's FAQ: its entries by id. Its version stands in the flow's own hash."""
        return f"{self.flow(flow)}:faq"

    def faq_changes(self, flow: str, entry: str) -> str:
        """Who changed an entry of the FAQ, when and how."""
        return f"{self.faq(flow)}:changes:{safe(entry)}"

    def faq_vectors(self, flow: str, embedder: str) -> str:
        """The vectors of the wordings in the flow's FAQ, for one embedder."""
        return f"{self.faq(flow)}:vec:{short(embedder)}"

    def vector(self, embedder: str, partition: str, entry: str) -> str:
        """The vector of a stored question, named by a digest of its entry's key."""
        name = blake2b(entry.encode(), digest_size=16).hexdigest()
        return f"{self.vector_prefix(embedder)}{safe(partition)}:{{{name}}}"

    def vector_prefix(self, embedder: str) -> str:
        """What the keys of all vectors of one embedder begin with."""
        return f"{self.root}:vec:{short(embedder)}:"

    def vector_log(self, embedder: str, partition: str) -> str:
        """The log of a partition's vectors."""
        return f"{self.root}:veclog:{short(embedder)}:{{{safe(partition)}}}"

    def session(self, session: str) -> str:
        """What is known of a session without its turns."""
        return f"{self.root}:session:{{{safe(session)}}}"

    def session_keys(self, session: str) -> tuple[str, str, str]:
        """What is known of a session, its turns, and the ids of those: `session`, `turns`, `turn_ids`."""
        known = self.session(session)
        return known, f"{known}:turns", f"{known}:ids"

    def turns(self, session: str) -> str:
        """The session's turns, oldest first."""
        return f"{self.session(session)}:turns"

    def anew(self, stream: str) -> str:
        """The copy of a stream that takes its place, in the same slot: braces around a whole key name its own."""
        return f"{stream}:anew" if "{" in stream else f"{PREFIX}:@anew:{{{stream}}}"

    def turn_ids(self, session: str) -> str:
        """Turn id -> place in the stream: what makes an append idempotent."""
        return f"{self.session(session)}:ids"

    def judgements(self, session: str) -> str:
        """What people said of the session's answers."""
        return f"{self.session(session)}:judged"

    def sessions(self, shard: int) -> str:
        """One shard of the session index: ids by last activity."""
        return f"{self.root}:sessions:{shard}"

    def user_sessions(self, user: str) -> str:
        """The sessions of one user by last activity."""
        return f"{self.root}:user:{{{safe(user)}}}:sessions"

    def feed(self, session: str) -> str:
        """The stream of events that follows this session's turns."""
        return self._feeds[shard_of(session)]

    def feeds(self) -> list[str]:
        """All streams of events."""
        return list(self._feeds)

    def api_key(self, id_: str) -> tuple[str, str]:
        """An API key, of whatever tenant, and the bucket of its rate."""
        record = f"{self.api_keys}:{{{safe(id_)}}}"
        return record, f"{record}:rate"

    def rate(self, who: str) -> str:
        """The bucket of the rate of a caller that has no API key."""
        return f"{PREFIX}:@rate:{{{safe(who)}}}"

    def history(self, part: str = "state") -> str:
        """What the query engine's index of history is made of, but for its documents: `state`, `flows`, `lease`.

        All keys of this index lie in one slot: the engine only ever sees one server's keys.
        """
        return f"{self.root}:{{history}}:{part}"

    def history_sessions(self, shard: int) -> str:
        """How far the index has come with the sessions of one shard, and their tags."""
        return self.history(f"sessions:{shard}")

    def history_turns(self, session: str) -> str:
        """The numbers of a session's documents."""
        return self.history(f"turns:{safe(session)}")

    def history_doc(self, session: str, turn: str) -> str:
        """The document of a turn."""
        return self.history_prefix() + history_name(session, turn)

    def history_prefix(self) -> str:
        """What the keys of all documents begin with."""
        return self.history("doc:")

    def history_lacking(self, embedder: str) -> str:
        """The documents without a vector of an embedder."""
        return self.history(f"lacking:{short(embedder)}")

    def repeat(self, name: str) -> str:
        """A request with an `Idempotency-Key`, and what it came to."""
        return f"{self.root}:repeat:{{{name}}}"

    def mark(self, name: str) -> str:
        """A mark that one process takes for all, for a while."""
        return f"{self.root}:mark:{name}"

    def lease(self, flight: str) -> tuple[str, str]:
        """The lease of a flight (see `flight_name`), and the stream of what its owner says."""
        tag, _, version = flight.partition(":")
        lease = f"{self.root}:lease:{{{tag}}}:{version}"
        return lease, f"{lease}:parts"

    def refresh(self, flight: str) -> str:
        """Whoever refreshes the answer of a flight before its end."""
        return f"{self.lease(flight)[0]}:refresh"

    def calls(self, flow: str) -> tuple[str, str]:
        """The calls of a flow that are under way (where it is limited), and the bucket of its rate."""
        return f"{self.flow(flow)}:calls", f"{self.flow(flow)}:rate"

    def warm_job(self, job: str) -> tuple[str, str]:
        """A warm-up, and what came of each of its questions."""
        name = f"{self.warm}:{{{safe(job)}}}"
        return name, f"{name}:items"

    def count(self, flow: str, stamp: str) -> str:
        """What one flow's questions came to on one day (`yyyymmdd`, UTC) or in one hour (`yyyymmddhh`)."""
        return f"{self.root}:count:{{{safe(flow)}}}:{stamp}"

    def minutes(self, flow: str, hour: str) -> str:
        """What they came to in each minute of an hour."""
        return f"{self.count(flow, hour)}:minutes"

    def askers(self, day: str, shard: int) -> str:
        """What each user asked on a day, in shards."""
        return f"{self.root}:askers:{day}:{shard}"

    def popular(self, flow: str, day: str) -> str:
        """How often each of one flow's questions was asked on one day (`yyyymmdd`, UTC)."""
        return f"{self._popular(flow)}:{day}"

    def paths(self, flow: str, day: str) -> str:
        """How often one question followed another in a session of one flow on one day (`yyyymmdd`, UTC)."""
        return f"{self.root}:paths:{{{safe(flow)}}}:{day}"

    def joined(self, flow: str) -> str:
        """Which of a flow's questions are other wordings of which."""
        return f"{self._popular(flow)}:joined"

    def hidden(self, flow: str) -> str:
        """Questions of a flow that are never counted, since somebody said that they are private."""
        return f"{self._popular(flow)}:hidden"

    def delivered(self, flow: str) -> str:
        """Turns to a flow that were kept while Redis was away, and counted when they were delivered."""
        return f"{self._popular(flow)}:delivered"

    def _popular(self, flow: str) -> str:
        # Not under `flow:`: near caches are told of every change there, and this changes all the time.
        return f"{self.root}:popular:{{{safe(flow)}}}"


def history_name(session: str, turn: str) -> str:
    """The name of a turn's document: its session, and 63 bits of BLAKE2b of its id, since sets of whole numbers are
    kept in little room."""
    number = int.from_bytes(blake2b(turn.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 1
    return f"{safe(session)}:{number}"


def short(fingerprint: str) -> str:
    """64 bits of an embedder's fingerprint: enough to tell apart the few that one tenant ever has."""
    return safe(fingerprint[:16])


def flight_name(entry: str, version: str) -> str:
    """The name of the call that would fill the key of an entry; it lies in the same slot, so that on a cluster too the
    entry is written before its lease is given up. A changed flow (`version`) is another call.
    """
    tag = entry[entry.index("{") + 1 : entry.index("}")]
    return f"{tag}:{blake2b(f'{entry} {version}'.encode(), digest_size=16).hexdigest()}"


def scope_of_key(key: str) -> str:
    """The scope that an entry's key names: team, user or session; "" for any other key."""
    match = _ENTRY.fullmatch(key)
    return match["scope"].split(":", 1)[0] if match else ""


@lru_cache(maxsize=2048)
def team_question(key: str) -> str:
    """The name of the question whose answer an entry's key holds for the whole team; "" for any other key."""
    match = _ENTRY.fullmatch(key)
    return match["hash"] if match and match["scope"] == "team" else ""
