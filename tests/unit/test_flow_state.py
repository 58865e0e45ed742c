"""What of a flow's state a decision can rest on: all but what concerns the next check alone."""

from __future__ import annotations

import msgspec
import pytest

from agentic_flywheel.model import FlowState

#: Another value for each field: a new one counts until somebody says here that it does not.
OTHER = {
    "fingerprint": "f2",
    "generation": 2,
    "changed_at": 2.0,
    "revision": "r2",
    "ttl_seconds": 2.0,
    "faq": "2",
    "gone": b"2",
}
CHECKS = {"etag": "2", "checked_at": 2.0}
STATE = FlowState(
    fingerprint="f", generation=1, changed_at=1.0, revision="r", etag="1", checked_at=1.0, ttl_seconds=1.0
)


def test_every_field_is_here() -> None:
    assert {field.name for field in msgspec.structs.fields(FlowState)} == OTHER.keys() | CHECKS.keys()


@pytest.mark.parametrize("name", [*OTHER, *CHECKS])
def test_only_checks_leave_it_as_it_was(name: str) -> None:
    other = msgspec.structs.replace(STATE, **{name: (OTHER | CHECKS)[name]})
    assert other != STATE
    assert (other.lasting == STATE.lasting) == (name in CHECKS)
