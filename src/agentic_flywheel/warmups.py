"""The vocabulary of warm-ups: what is to be asked before anybody asks it, within which bounds, and what came of it.

Invariant: immutable values without I/O, as in `model`. Times are epoch seconds, durations seconds; money is in whatever
currency the registry's prices are.

`WarmOrder` and `WarmItem` are stored in Redis, encoded as maps: fields may be added with a default.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

#: Questions of one warm-up: more is a slip, or belongs in several files.
MOST_QUESTIONS = 10_000


class WarmOutcome(StrEnum):
    """What came of one question."""

    STORED = "stored"  # the flow was asked, and its answer is stored
    WARM = "warm"  # a fresh answer was there already, or somebody else was just being given it
    REFUSED = "refused"  # policy keeps no answer of it for others
    FAILED = "failed"  # the flow was asked, or could not be, and nothing was stored
    LEFT = "left"  # a bound was reached first
    DUE = "due"  # a dry run: it would be asked


class NotWarmed(StrEnum):
    """Why policy refuses to warm a question."""

    NOT_SHARED = "not_shared"  # the flow's answers are not shared with the team
    ACTS = "acts"  # the flow acts on the world
    PERSONAL = "personal"  # words about the asker's own things, or personal data
    FOLLOW_UP = "follow_up"  # it leans on an earlier question, and its path is not given
    WITHDRAWN = "withdrawn"  # somebody called the answer private
    POLICY = "policy"  # a privacy policy lets none of the flow's answers be stored
    NO_ROOM = "no_room"  # one call a minute leaves none that people do not need
    PATH = "path"  # the question before it has no answer to go on from


class WarmBound(StrEnum):
    """What ended a warm-up before its questions did."""

    CALLS = "calls"
    TIME = "time"
    MONEY = "money"
    FLOW = "flow"  # a flow failed several times in a row: its other questions are left
    STOPPED = "stopped"  # whoever ran it stopped it


class WarmPath(msgspec.Struct, frozen=True, kw_only=True):
    """Questions of one conversation: the first, and follow-ups in their order. `standalone` vouches that the first
    needs no earlier turn, whatever its words."""

    questions: tuple[str, ...]
    flow: str = ""
    standalone: bool = False


class WarmBudget(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds; None for none. `calls` of flows, `seconds` after which no call begins, `money` by the flows' prices."""

    calls: int | None = None
    seconds: float | None = None
    money: float | None = None


class WarmOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be warmed: questions given word for word, and sources that are read when it runs.

    Of popular questions and the FAQ no words are kept here: what is deleted there must be gone from here as well.
    """

    id: str
    at: float
    paths: tuple[WarmPath, ...] = ()
    name: str = ""  # what the paths were given as: a file's name
    popular: int = 0  # so many popular questions
    follow_ups: int = 0  # so many of what is asked next after each of them
    faq: bool = False
    flow: str = ""  # only this flow
    refresh: bool = False  # ask although a fresh answer is there
    cause: str = "asked"  # asked, schedule, change


class WarmItem(msgspec.Struct, frozen=True, kw_only=True):
    """One question of a warm-up and what came of it. `reason` is a word for programs: why it was asked (`Reason`), why
    not (`NotWarmed`, `WarmBound`), or the code of the error; `note` the same for people. `path` are the questions
    before it. `called` says that it cost a call of the flow."""

    name: str  # a digest of path and question
    outcome: WarmOutcome
    reason: str = ""
    note: str = ""
    question: str = ""
    path: tuple[str, ...] = ()
    flow: str = ""
    key: str = ""
    called: bool = False
    flow_ms: float | None = None
    at: float = 0.0


class WarmReport(msgspec.Struct, frozen=True, kw_only=True):
    """A warm-up as far as it has come. `state` is `running`, `done`, `left` (by `bound`) or `dry`; `broken` where
    whoever ran it has not been heard of for a while. `stopping`: somebody wants it stopped. `refusals` and `failures`
    count reasons; `money` is None where no price is known, else in `currency`. `items` has each question where that
    was wanted."""

    job: str
    state: str
    sources: tuple[str, ...] = ()
    cause: str = "asked"
    total: int = 0
    asked: int = 0  # calls of flows
    stored: int = 0
    warm: int = 0
    refused: int = 0
    failed: int = 0
    left: int = 0
    due: int = 0
    bound: WarmBound | None = None
    refusals: dict[str, int] = {}
    failures: dict[str, int] = {}
    money: float | None = None
    currency: str = ""
    seconds: float = 0.0
    at: float = 0.0
    ended_at: float = 0.0
    stopping: bool = False
    warnings: tuple[str, ...] = ()
    items: tuple[WarmItem, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to go on with."""
        return self.state in {"done", "dry"}


class WarmProgress(msgspec.Struct, frozen=True, kw_only=True):
    """One more question is done: what came of it, how many are, and how many there are in all by now."""

    job: str
    item: WarmItem
    done: int
    total: int
    asked: int
