"""The tree of errors is the one that is drawn, and every error says what to do next."""

from __future__ import annotations

import inspect
import json
import re

import pytest

from agentic_flywheel import errors
from agentic_flywheel.errors import ExtraMissing, FlywheelError

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, FlywheelError)]


def drawn() -> list[tuple[str, str, str]]:
    """Name, parent and second base of every class in the drawing."""
    assert errors.__doc__
    path: dict[int, str] = {}
    found = []
    for line in errors.__doc__.splitlines():
        match = re.match(r"    ((?:[│ ] {3})*)(?:[├└]── )?([A-Z]\w+)(?: \((\w+)\))?(?:  |$)", line)
        if match is None:
            continue
        depth = len(match[1]) // 4 + ("── " in line)
        path[depth] = match[2]
        found.append((match[2], path.get(depth - 1, ""), match[3] or ""))
    return found


def make(kind: type[FlywheelError]) -> FlywheelError:
    return ExtraMissing("searching", "search") if kind is ExtraMissing else kind("something happened", thing="x")


def test_the_drawing_names_every_class_once() -> None:
    assert sorted(name for name, _, _ in drawn()) == sorted(kind.__name__ for kind in CLASSES)


def test_the_drawing_names_what_an_except_clause_would_catch() -> None:
    for name, parent, second in drawn():
        kind = getattr(errors, name)
        if parent:
            assert issubclass(kind, getattr(errors, parent)), name
        if second:
            assert any(base.__name__ == second for base in kind.__bases__), name


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_says_what_to_do(kind: type[FlywheelError]) -> None:
    error = make(kind)
    assert len(set(error.suggestions)) >= 3
    assert all(suggestion.endswith((".", "`.")) for suggestion in error.suggestions)
    assert error.exit_code in {1, 2}
    assert error.retry_after_seconds >= 0


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_as_interfaces_show_it(kind: type[FlywheelError]) -> None:
    error = make(kind)
    shown = json.loads(json.dumps(error.as_dict()))
    assert list(shown) == ["error", "error_type", "details", "suggestions", "retry_after_seconds", "error_id"]
    assert shown["error"] == str(error) == error.message
    assert shown["error_type"] == kind.code
    assert re.fullmatch("[0-9a-f]{12}", shown["error_id"])
    assert make(kind).error_id != error.error_id


def test_codes_are_unique() -> None:
    assert len({kind.code for kind in CLASSES}) == len(CLASSES)


def test_suggestions_of_the_case_come_first_and_once() -> None:
    error = errors.UnknownKey("no", suggestions=("Do this.", errors.UnknownKey.default_suggestions[1]))
    assert error.suggestions[:2] == ("Do this.", errors.UnknownKey.default_suggestions[1])
    assert len(error.suggestions) == len(set(error.suggestions)) == 4


def test_what_was_given_is_answered_with_advice_on_what_to_give() -> None:
    for error in (errors.InputError("no"), errors.UnknownTurn("no"), errors.UnknownProposal("no")):
        assert not set(error.suggestions) & set(FlywheelError.general_suggestions)
    own = errors.InputError("no", suggestions=("Do this.", "Or that.", "Or nothing."))
    assert own.suggestions == ("Do this.", "Or that.", "Or nothing."), "what is general only fills up"


def test_details_leave_out_what_is_not_known() -> None:
    assert errors.NotCached("no", flow="f", session=None).details == {"flow": "f"}


def test_an_outline_says_nothing_of_where_things_are() -> None:
    registry = errors.UnknownFlow("no flow 'x' in /etc/f.yaml; did you mean 'y'?", flow="x", file="/etc/f.yaml")
    assert registry.outline == "no flow 'x'; did you mean 'y'?"
    assert errors.StoreFull("the outbox is full (/var/afw): no space", path="/var/afw").outline == (
        "the outbox is full: no space"
    )
    assert errors.StoreError("/var/afw/x is locked, not /var/afw/xy", path="/var/afw/x").outline == (
        "… is locked, not /var/afw/xy"
    )
    assert errors.FlowError("it is down").outline == "it is down"
    raised = errors.FlowUnavailable("own:answer raised OSError: db://u:p@host", flow="f", callable="own:answer")
    assert raised.outline == "the flow 'f' failed"
