"""Everything that is kept in Redis for one tenant, behind one connection."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from agentic_flywheel.settings import Settings
from agentic_flywheel.store.api_keys import SCRIPTS as API_KEYS
from agentic_flywheel.store.api_keys import ApiKeyStore
from agentic_flywheel.store.audit import APPEND, AuditLog
from agentic_flywheel.store.counters import SCRIPTS as COUNTING
from agentic_flywheel.store.counters import Counters
from agentic_flywheel.store.entries import DROP, HEAD, TRIM, EntryStore
from agentic_flywheel.store.erasures import ErasureStore
from agentic_flywheel.store.faq import WRITE, FaqStore
from agentic_flywheel.store.feed import Feed
from agentic_flywheel.store.flow_states import OBSERVE, FlowStates
from agentic_flywheel.store.gone import REMEMBER
from agentic_flywheel.store.judgements import SCRIPTS as JUDGING
from agentic_flywheel.store.judgements import Judgements
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.leases import ACQUIRE, FINISH, SPEAK, Leases
from agentic_flywheel.store.limits import ENTER, STAY, Limits
from agentic_flywheel.store.link import Link
from agentic_flywheel.store.outbox import Outbox
from agentic_flywheel.store.popularity import Popularity
from agentic_flywheel.store.popularity_scripts import SCRIPTS as POPULARITY
from agentic_flywheel.store.privacy import CHANGE, PolicyFile, PolicyStore
from agentic_flywheel.store.repeats import SCRIPTS as REPEATS
from agentic_flywheel.store.repeats import RepeatStore
from agentic_flywheel.store.restoring import SCRIPTS as RESTORING
from agentic_flywheel.store.retention import SweepStore
from agentic_flywheel.store.session_scripts import SCRIPTS as OF_SESSIONS
from agentic_flywheel.store.sessions import SessionStore
from agentic_flywheel.store.similar_states import SCRIPTS, SimilarStates
from agentic_flywheel.store.vectors import KEEP, NAME, TELL, VectorStore
from agentic_flywheel.store.warm_jobs import NOTE, TAKE, WarmJobs

if TYPE_CHECKING:
    from agentic_flywheel.store.history_docs import HistoryDocs
    from agentic_flywheel.store.history_engine import HistoryEngine
    from agentic_flywheel.store.history_lease import HistoryLease


class Store:
    """The store of one tenant; connects on first use. Whoever made it closes it."""

    def __init__(self, settings: Settings) -> None:
        asked = (OBSERVE, TRIM, ACQUIRE, SPEAK, FINISH, ENTER, KEEP, NAME, TELL, WRITE)
        more = (
            *SCRIPTS,
            *RESTORING,
            *API_KEYS,
            *POPULARITY,
            *COUNTING,
            APPEND,
            HEAD,
            DROP,
            REMEMBER,
            STAY,
            TAKE,
            NOTE,
            CHANGE,
            *REPEATS,
            *JUDGING,
        )
        self.link = Link(settings, (*OF_SESSIONS, *asked, *more))
        self.keys = Keys(settings.text("tenant"))
        self.sessions = SessionStore(self.link, self.keys)
        self.feed = Feed(self.link, self.keys)
        self.entries = EntryStore(self.link, self.keys)
        self.flows = FlowStates(self.link, self.keys)
        self.counters = Counters(self.link, self.keys)
        self.popularity = Popularity(self.link, self.keys)
        self.leases = Leases(self.link, self.keys)
        self.limits = Limits(self.link, self.keys)
        self.vectors = VectorStore(self.link, self.keys)
        self.similar = SimilarStates(self.link, self.keys)
        self.faq = FaqStore(self.link, self.keys)
        self.judgements = Judgements(self.link, self.keys)
        self.api_keys = ApiKeyStore(self.link, self.keys)
        self.audit = AuditLog(self.link, self.keys)
        self.erasures = ErasureStore(self.link, self.keys)
        self.warm_jobs = WarmJobs(self.link, self.keys)
        self.repeats = RepeatStore(self.link, self.keys)
        self.policies = PolicyStore(self.link, self.keys)
        self.sweeps = SweepStore(self.link, self.keys)
        self.outbox = Outbox(settings, self.link)
        self.link.on_recovered(self.outbox.recovered)

    @cached_property
    def policy_file(self) -> PolicyFile | None:
        """The policies as they were last read, for an outage; None where nothing waits on disk."""
        if not self.outbox.enabled:
            return None
        return PolicyFile(self.outbox.path, self.link.seals, self.link.settings.text("tenant"))

    @cached_property
    def history(self) -> HistoryDocs:
        """The documents of the query engine's index."""
        from agentic_flywheel.store.history_docs import HistoryDocs
        from agentic_flywheel.store.history_scripts import SCRIPTS as HISTORY

        self.link.learn(HISTORY)
        return HistoryDocs(self.link, self.keys)

    @cached_property
    def history_engine(self) -> HistoryEngine:
        """That index."""
        from agentic_flywheel.store.history_engine import HistoryEngine

        return HistoryEngine(self.link, self.keys, self.history)

    @cached_property
    def history_lease(self) -> HistoryLease:
        """The lease of whoever brings it up to date."""
        from agentic_flywheel.store.history_lease import HistoryLease
        from agentic_flywheel.store.history_scripts import SCRIPTS as HISTORY

        self.link.learn(HISTORY)
        return HistoryLease(self.link, self.keys)

    async def take_mark(self, name: str, *, seconds: int) -> bool:
        """Take a mark that nobody has taken in the last `seconds`; False where somebody has."""
        (taken,) = await self.link.run(("SET", self.keys.mark(name), "1", "NX", "EX", seconds))
        return taken is not None

    async def prolong_mark(self, name: str, *, seconds: int) -> None:
        """Keep a mark that was taken for so long from now on."""
        await self.link.run(("SET", self.keys.mark(name), "1", "EX", seconds))

    async def drop_mark(self, name: str) -> None:
        """Give a mark back before its time."""
        await self.link.run(("UNLINK", self.keys.mark(name)))

    async def aclose(self) -> None:
        """Finish what is on its way to the outbox, and release every connection."""
        await self.outbox.aclose()
        await self.link.aclose()
