"""The words of an entry: what may be said in one, and what its history says of a change.

Invariant: what comes out of here may be served to the whole team: no word about oneself, nothing that could not be
asked. An answer that a person has changed is not called that of a run any more.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agentic_flywheel.curated import FaqCandidate, FaqEntry, wordings_of
from agentic_flywheel.errors import InputError
from agentic_flywheel.identifiers import new_id
from agentic_flywheel.insight.faq_books import Opened, Step
from agentic_flywheel.insight.faq_page import day
from agentic_flywheel.policy.admission import admit_question, admit_text
from agentic_flywheel.policy.faq import unfit

#: The last second of the year 9999.
_LAST_MOMENT = 253_402_300_799.0

_ID = 12
_LONGEST_ANSWER = 200_000
_MOST_WORDINGS = 100


def edited(entry: FaqEntry, question: str, wordings: Sequence[str], answer: str, *, longest: int) -> FaqEntry:
    """The entry in other words. Raises `InputError` for words that have no place in the FAQ."""
    if isinstance(wordings, str):
        raise InputError("wordings are given as a list, also where there is only one")
    question = admit_wording(question, longest=longest)
    others = wordings_of(question, [admit_wording(wording, longest=longest) for wording in wordings])
    if len(others) > _MOST_WORDINGS:
        raise InputError(f"an entry has at most {_MOST_WORDINGS} other wordings, not {len(others)}")
    answer = admit_text(answer, "answer").strip()
    if len(answer) > _LONGEST_ANSWER:
        raise InputError(f"an answer has at most {_LONGEST_ANSWER} characters, not {len(answer)}")
    if entry.answer.strip() and not answer:
        raise InputError(
            "the answer is empty",
            suggestions=("Give the words that are to be served.", "To have none served: `afw faq retire ID`."),
        )
    own = answer == entry.answer.strip()
    return msgspec.structs.replace(
        entry,
        question=question,
        wordings=others,
        answer=entry.answer if own else answer,
        trace_id=entry.trace_id if own else "",  # a person's words are no longer those of a run
    )


def admit_wording(wording: str, *, longest: int) -> str:
    """One way to ask, on one line. Raises `InputError` where it has no place in the FAQ."""
    text = admit_question(" ".join(admit_text(wording, "question").split()), longest=longest)
    if why := unfit(text):
        raise InputError(
            f"{text!r} has no place in the FAQ: {why}",
            suggestions=("Ask it in words that hold for everybody: 'How do I reset a password?'.",),
        )
    return text


def admit_review(moment: float, now: float) -> None:
    """When an entry is to be looked at again: later, or never (0). Raises `InputError`."""
    if moment and not now < moment <= _LAST_MOMENT:
        named = day(moment) if 0 < moment <= _LAST_MOMENT else f"{moment:g}"
        raise InputError(
            f"an entry is looked at again later, not on {named}",
            suggestions=(
                "Name a day to come, or how long from now: --review 90d.",
                "Leave it out: `faq.review_days` says when.",
                "If nobody has to: --review never (0 in REST and Python).",
            ),
        )


def begun(flow: str, picked: FaqCandidate | None, now: float, by: str) -> Opened:
    """A new entry, of a candidate or a picked turn if there is one."""
    entry = FaqEntry(
        id=new_id()[:_ID],
        flow=flow,
        question=picked.question if picked else "",
        wordings=picked.wordings if picked else (),
        answer="",
        created_at=now,
        changed_at=now,
        changed_by=by,
        cluster=picked.id if picked else "",
    )
    return Opened(answered(entry, picked) if picked else entry, known=False)


def answered(entry: FaqEntry, picked: FaqCandidate) -> FaqEntry:
    """The entry with the answer that was picked, and where that is from."""
    return msgspec.structs.replace(
        entry,
        answer=picked.answer,
        sources=picked.sources,
        turn_id=picked.turn_id,
        session_id=picked.session_id,
        trace_id=picked.trace_id,
        flow_ms=picked.flow_ms,
    )


def step_of(what: str, entry: FaqEntry, before: FaqEntry | None) -> Step:
    """What was done to an entry's words, for its history."""
    now = _words(entry)
    was = dict.fromkeys(now, "") if before is None else _words(before)
    said = {name: text for name, text in now.items() if was[name] != text}
    if entry.turn_id and (before is None or before.turn_id != entry.turn_id):
        said["turn"] = entry.turn_id
    return Step(what, said)


def _words(entry: FaqEntry) -> dict[str, str]:
    return {"question": entry.question, "wordings": "\n".join(entry.wordings), "answer": entry.answer}


def same_flow(picked: FaqCandidate | None, flow: str) -> None:
    """Refuse what another flow has answered."""
    if picked is not None and picked.flow != flow:
        raise InputError(
            f"the turn {picked.turn_id!r} was answered by the flow {picked.flow!r}, not by {flow!r}",
            turn_id=picked.turn_id,
        )
