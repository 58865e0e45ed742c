"""Answers that this process has given before and may give once more: from the near cache, or as Redis confirms them.

Invariant: what is given from here is a hit like any other: its turn is queued, it is counted, traced and told of. Only
questions without session, directives, overrides and the like come here; where there is None, they go the whole way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentic_flywheel.familiar import Familiar
from agentic_flywheel.listening import Listening
from agentic_flywheel.model import Answer
from agentic_flywheel.near import NearCache

if TYPE_CHECKING:
    from agentic_flywheel.tracing import Context, Tracing


class AtHand:
    """The two ways to such an answer; `user` is who asks where nobody is named."""

    def __init__(
        self,
        near: NearCache | None,
        familiar: Familiar,
        *,
        user: str,
        tracing: Tracing | None,
        listening: Listening | None,
    ) -> None:
        self._near = near
        self._familiar = familiar
        self._user = user
        self._tracing = tracing
        self._listening = listening
        #: Whether Redis confirms each answer, so that `answer` has to be awaited.
        self.confirmed = near is None

    async def answer(
        self, question: str, flow: str | None, user: str | None, intent: str | None = None
    ) -> Answer | None:
        """The answer, if it is at hand."""
        if self._near is not None:
            return self.near(question, flow, user, intent)
        caller = self._caller()
        trace = "" if caller is None else caller[0]
        answer = await self._familiar.answer(question, flow, user, intent, trace=trace)
        return None if answer is None else self._told(answer, user, caller)

    def near(self, question: str, flow: str | None, user: str | None, intent: str | None = None) -> Answer | None:
        """The answer, if it is in the near cache and may be relied on."""
        if self._near is None:
            return None
        caller = self._caller()
        answer = self._near.answer(question, flow, user, intent, trace="" if caller is None else caller[0])
        return None if answer is None else self._told(answer, user, caller)

    def _caller(self) -> Context | None:
        return None if self._tracing is None else self._tracing.caller()

    def _told(self, answer: Answer, user: str | None, caller: Context | None) -> Answer:
        if self._tracing is not None:
            self._tracing.at_hand(answer, self._user if user is None else user, caller)
        return answer if self._listening is None else self._listening.answered(answer)
