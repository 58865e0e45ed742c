"""Durations are read as written, shown as read, and refused with what is accepted."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.durations import ACCEPTED, LONGEST, parse_duration, show_age, show_duration
from agentic_flywheel.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", timedelta(days=7)),
        ("36h", timedelta(hours=36)),
        ("90m", timedelta(minutes=90)),
        ("45s", timedelta(seconds=45)),
        ("2w", timedelta(days=14)),
        ("604800", timedelta(days=7)),
        ("0", timedelta()),
        ("0s", timedelta()),
        ("1h30m", timedelta(minutes=90)),
        ("1d 12h", timedelta(hours=36)),
        (" 7D ", timedelta(days=7)),
        ("1.5h", timedelta(minutes=90)),
        ("0.25", timedelta(milliseconds=250)),
        ("7 days", timedelta(days=7)),
        ("1 hour 30 minutes", timedelta(minutes=90)),
        ("90min", timedelta(minutes=90)),
        ("36500d", LONGEST),
    ],
)
def test_reads_what_people_write(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "d",
        "7x",
        "-1",
        "-7d",
        "+7d",
        "1h1h",
        "1e5",
        "inf",
        "nan",
        "7d!",
        "d7",
        "seven days",
        "٧d",
        "1,5h",
        "9" * 80,
    ],
)
def test_refuses_anything_else_and_says_what_is_accepted(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_duration(text)
    assert ACCEPTED in str(caught.value)
    assert caught.value.exit_code == 2
    assert len(caught.value.suggestions) >= 3


@pytest.mark.parametrize("text", ["36501d", "99999999999999999999"])
def test_refuses_absurdly_long_durations(text: str) -> None:
    with pytest.raises(InputError, match="longer than 36500 days"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("duration", "shown"),
    [
        (timedelta(), "0 s"),
        (timedelta(microseconds=10), "1 ms"),
        (timedelta(milliseconds=350), "350 ms"),
        (timedelta(seconds=3.24), "3.2 s"),
        (timedelta(seconds=9), "9 s"),
        (timedelta(seconds=45), "45 s"),
        (timedelta(seconds=90), "90 s"),
        (timedelta(seconds=60), "1 min"),
        (timedelta(minutes=2), "2 min"),
        (timedelta(minutes=90), "90 min"),
        (timedelta(hours=1), "1 h"),
        (timedelta(minutes=133), "2 h 13 min"),
        (timedelta(hours=24), "1 day"),
        (timedelta(hours=36), "36 h"),
        (timedelta(days=2, hours=3), "2 days 3 h"),
        (timedelta(days=7), "7 days"),
        (timedelta(days=7) - timedelta(seconds=2), "7 days"),
        (timedelta(days=30, hours=7), "30 days"),
        (timedelta(days=-2), "-2 days"),
    ],
)
def test_shows_what_people_read(duration: timedelta, shown: str) -> None:
    assert show_duration(duration) == shown


@pytest.mark.parametrize(
    ("duration", "shown"),
    [
        (timedelta(milliseconds=3), "just now"),
        (timedelta(seconds=-5), "just now"),
        (timedelta(seconds=59), "59 s"),
        (timedelta(minutes=119), "119 min"),
        (timedelta(hours=2, minutes=50), "2 h"),
        (timedelta(days=2), "2 days"),
        (timedelta(days=400), "400 days"),
    ],
)
def test_shows_ages(duration: timedelta, shown: str) -> None:
    assert show_age(duration) == shown


@given(st.integers(min_value=0, max_value=int(LONGEST.total_seconds())))
def test_whole_seconds_survive_in_every_unit(seconds: int) -> None:
    days, rest = divmod(seconds, 86400)
    assert parse_duration(str(seconds)) == timedelta(seconds=seconds)
    assert parse_duration(f"{days}d{rest}s") == timedelta(seconds=seconds)


@given(st.integers(min_value=0, max_value=36500 * 86400))
def test_what_is_shown_is_within_a_tenth_of_what_is_meant(seconds: int) -> None:
    meant = timedelta(seconds=seconds)
    assert abs(parse_duration(show_duration(meant)) - meant) <= meant / 10
