"""What is known of a session's turns: the newest as they were read just now, and those further back.

Invariant: what lies before the newest turns is the same whether it was read just now or remembered. Turns only come in
at the end, and whoever takes one away counts down; so where the newest turns and the count follow on from what was
known, all before them is as it was (`continued`). Where that cannot be seen, it is read again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import msgspec

from agentic_flywheel.model import Session, Turn
from agentic_flywheel.policy.relevance import MOST_BYTES, MOST_TURNS, Earlier, within_reach
from agentic_flywheel.store.link import Command
from agentic_flywheel.store.recalled import Recalled, recalled_with
from agentic_flywheel.store.session_headers import of_one_owner
from agentic_flywheel.store.sessions import SessionStore
from agentic_flywheel.store.store import Store

#: Sessions that a process remembers, to predict where their next question is looked up; and what they all may take, in
#: bytes: those asked in longest ago go, and cost one more read when they are asked in again.
MOST_SESSIONS = 4096
MOST_BYTES_IN_ALL = 8_000_000
#: What a turn, a turn further back and a session take besides their texts, in bytes.
_TURN_BYTES, _EARLIER_BYTES, _SESSION_BYTES = 1200, 600, 1500


class Conversation(msgspec.Struct, gc=False, frozen=True):
    """What is known of a session: as it was recalled, and the turns between its first one and those that were recalled,
    oldest first, as far back as is looked; None: not known."""

    recalled: Recalled = Recalled()
    earlier: tuple[Earlier, ...] | None = ()

    def before(self, limit: int) -> tuple[Earlier, ...]:
        """The turns between the first and the last `limit`, oldest first, as far as they are known."""
        turns, sizes = self.recalled.turns, self.recalled.sizes
        if len(turns) <= limit:
            return self.earlier or ()
        first = self.recalled.first
        left = [turn for turn in turns[: len(turns) - limit] if first is None or turn.id != first.id]
        return (*(self.earlier or ()), *(Earlier.of(turn, sizes.get(turn.id, 0)) for turn in left))

    def size_bytes(self) -> int:
        """About what it takes in memory."""
        recalled = self.recalled
        turns = recalled.turns if recalled.first is None else (*recalled.turns, recalled.first)
        whole = sum(len(turn.question) + len(turn.answer) for turn in turns) + _TURN_BYTES * len(turns)
        earlier = self.earlier or ()
        further = sum(len(turn.asked) + len(turn.answered) for turn in earlier)  # each text is there twice
        return _SESSION_BYTES + whole + 2 * further + _EARLIER_BYTES * len(earlier)

    def reaches_back(self) -> bool:
        """Whether there is nothing further back that is not known."""
        session = self.recalled.session
        recalled = len(self.recalled.turns) + self.recalled.damaged + 1  # the first one is recalled too
        return self.earlier is not None or session is None or session.turns <= recalled


UNKNOWN = Conversation()


def further_back(sessions: SessionStore, session: str, behind: int) -> Command:
    """What to send to read the turns before the newest `behind`."""
    return sessions.earlier_command(session, behind=behind, count=MOST_TURNS, size=MOST_BYTES)


def read_further(recalled: Recalled, stored: Iterable[tuple[Turn, int]], damaged: int = 0) -> Conversation:
    """A session whose turns further back were read too, each with its size; so many of them were damaged.

    What came in between the two readings moves turns that were recalled further back; they count once.
    """
    known = {turn.id for turn in recalled.turns} | ({recalled.first.id} if recalled.first else set())
    earlier = tuple(Earlier.of(turn, size) for turn, size in stored if turn.id not in known)
    if damaged:
        recalled = msgspec.structs.replace(recalled, damaged=recalled.damaged + damaged)
    return Conversation(recalled, earlier)


def with_waiting(known: Conversation, waiting: Sequence[Turn]) -> Conversation:
    """What would be known of a session once these turns, which wait in this order, are appended, as far as they can."""
    session = known.recalled.session
    waiting = of_one_owner(session.owner if session else "", waiting)
    if not waiting:
        return known
    ids = {turn.id for turn in waiting}
    earlier = known.earlier and tuple(turn for turn in known.earlier if turn.id not in ids)
    return Conversation(recalled_with(known.recalled, waiting), earlier)


async def known_of(store: Store, session: str, *, window: int) -> Conversation:
    """What is known of a session that nothing is remembered of. Raises `StoreError`."""
    sessions = store.sessions
    *recalled, further = await store.link.run(
        *sessions.recall_commands(session, window), further_back(sessions, session, window)
    )
    return read_further(sessions.recalled(recalled), *sessions.earlier(further))


def continued(known: Conversation, read: Recalled) -> Conversation:
    """A session whose newest turns were read just now; those before them follow from what was known, if that tells."""
    before = known.recalled
    if known.earlier is None or before.session is None or read.session is None or read.damaged or not before.turns:
        return Conversation(read, None)
    last, now = [turn.id for turn in before.turns], [turn.id for turn in read.turns]
    if last[-1] not in now:
        return Conversation(read, None)
    came = len(now) - 1 - now.index(last[-1])
    stayed = now[: len(now) - came]
    if read.session.turns != before.session.turns + came or last[-len(stayed) :] != stayed:
        return Conversation(read, None)
    return Conversation(read, _with(known.earlier, before.turns[: len(last) - len(stayed)], before))


def _with(earlier: tuple[Earlier, ...], turns: Sequence[Turn], recalled: Recalled) -> tuple[Earlier, ...] | None:
    """Turns further back and those that are so from now on; None where the size of one is not known."""
    first = recalled.first.id if recalled.first else ""
    left = [turn for turn in turns if turn.id != first]
    if not left:
        return earlier
    if any(turn.id not in recalled.sizes for turn in left):
        return None
    return tuple(within_reach((*earlier, *(Earlier.of(turn, recalled.sizes[turn.id]) for turn in left))))


class Remembered:
    """The sessions that a process has asked in lately."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, tuple[Conversation, int]] = OrderedDict()
        self.size_bytes = 0

    def get(self, session: str) -> Conversation:
        """What was known of a session after its last question here."""
        known = self._sessions.get(session)
        return UNKNOWN if known is None else known[0]

    def add(self, known: Conversation, turn: Turn, *, window: int) -> None:
        """Note that a turn was appended to a session of which this was known; its last `window` turns stay whole.

        What lies further back is read again where some turns could not be read, and where another was noted meanwhile,
        of which this does not know: the count cannot tell then whether one was taken away.
        """
        before = known.recalled
        session = before.session or Session(id=turn.session_id, owner=turn.user, created_at=turn.at)
        turns = (*before.turns, turn)
        earlier = known.earlier
        if earlier is None and session.turns <= len(before.turns) + 1:  # there is nothing between
            earlier = ()
        noted = self.get(turn.session_id).recalled.turns
        if before.damaged or (noted and all(one.id != noted[-1].id for one in before.turns)):
            earlier = None
        elif earlier is not None and len(turns) > window:
            earlier = _with(earlier, turns[:-window], before)
        session = msgspec.structs.replace(session, flow=turn.flow, turns=session.turns + 1, last_active_at=turn.at)
        recalled = Recalled(session, turns[-window:], before.first or turn, 0, before.sizes)
        self._put(turn.session_id, Conversation(recalled, earlier))

    def _put(self, session: str, known: Conversation) -> None:
        self._drop(session)
        size = known.size_bytes()
        self._sessions[session] = known, size
        self.size_bytes += size
        while len(self._sessions) > MOST_SESSIONS or (self.size_bytes > MOST_BYTES_IN_ALL and len(self._sessions) > 1):
            self._drop(next(iter(self._sessions)))

    def _drop(self, session: str) -> None:
        gone = self._sessions.pop(session, None)
        if gone is not None:
            self.size_bytes -= gone[1]
