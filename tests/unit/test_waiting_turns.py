"""What a session looks like while some of its turns wait in the outbox."""

from __future__ import annotations

from agentic_flywheel.model import Outcome, Reason, Session, Turn
from agentic_flywheel.store.recalled import Recalled, recalled_with


def turn(number: int, flow: str = "f") -> Turn:
    return Turn(f"t{number}", "s", float(number), f"q{number}", "a", flow, "", Outcome.MISS, Reason.NOT_STORED, "")


def recalled(*numbers: int, flow: str = "f") -> Recalled:
    turns = tuple(turn(number, flow) for number in numbers)
    return Recalled(Session(id="s", flow=flow, turns=numbers[-1]), turns, turn(0))


def numbers(recalled: Recalled) -> list[int]:
    return [int(turn.id[1:]) for turn in recalled.turns]


def test_what_waits_comes_after_what_is_there() -> None:
    merged = recalled_with(recalled(1, 2), [turn(3), turn(4, "other")])
    assert numbers(merged) == [1, 2, 3, 4]
    assert merged.session is not None
    assert (merged.session.flow, merged.session.turns) == ("other", 4)


def test_an_old_turn_that_still_waits_does_not_become_the_newest() -> None:
    """Seen when Redis was away for longer than the turns that a process remembers of a session."""
    merged = recalled_with(recalled(2, 3, 4, flow="new"), [turn(1, "old"), turn(2), turn(3), turn(4, "new")])
    assert numbers(merged) == [1, 2, 3, 4]
    assert merged.session is not None
    assert merged.session.flow == "new"


def test_what_another_process_kept_stands_where_it_was_kept() -> None:
    assert numbers(recalled_with(recalled(1, 2, 4), [turn(2), turn(3), turn(4), turn(5)])) == [1, 2, 3, 4, 5]


def test_nothing_known_and_nothing_new() -> None:
    assert recalled_with(Recalled(), [turn(7)]).first == turn(7)
    same = recalled(1, 2)
    assert recalled_with(same, [turn(2)]) is same
    assert recalled_with(same, []) is same
