"""Stretches of time as counters know them: aligned to minutes, hours and days of UTC.

Invariant: pure; the clock is an argument. The buckets of a window cover it without gap or overlap, and are as few as
can be: whole days are read as days. tests/unit/test_windows.py proves both.
"""

from __future__ import annotations

import math

import msgspec

from agentic_flywheel.errors import InputError
from agentic_flywheel.store.counters import KEPT, MINUTES_KEPT, Tier

#: What a chart shows without being told otherwise: the first of these that makes no more steps than it has room for.
STEPS = (60, 300, 900, 1800, 3600, 2 * 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400)
FEW = 200
#: Most steps that one series may have.
MOST_STEPS = 12_000


class Window(msgspec.Struct, frozen=True):
    """From `since` on, up to `until` (epoch seconds, on whole hours, or minutes where a series asks for them).

    `until` may lie ahead: the bucket that is under way is counted as far as it got.
    """

    since: float
    until: float

    def aligned(self, tier: Tier) -> Window:
        """The smallest window of whole buckets that holds this one.

        >>> Window(7000, 7300).aligned(Tier.HOUR)
        Window(since=3600.0, until=10800.0)
        """
        return Window(float(self.since // tier * tier), float(math.ceil(self.until / tier) * tier))


def window_of(since: float | None, until: float | None, *, now: float, default_seconds: float) -> Window:
    """The window that was asked for, within what is kept. Raises `InputError` where it ends before it begins, or ended
    before anything that is kept.

    >>> window_of(None, None, now=1_000_000.0, default_seconds=3600.0)
    Window(since=996400.0, until=1000000.0)
    """
    if not all(math.isfinite(moment) for moment in (since or 0.0, until or 0.0)):
        raise InputError("since and until are moments in epoch seconds, dates or durations")
    until = now if until is None else min(until, now)
    since = until - default_seconds if since is None else since
    kept = now - KEPT.total_seconds()
    if since >= until:
        raise InputError(
            "the time asked for ends before it begins",
            suggestions=("Let `since` be earlier than `until`.", "Leave `until` out: it is now, then."),
        )
    if until <= kept:
        raise InputError(f"figures are kept for {KEPT.days} days, and the time asked for ended before that")
    return Window(max(since, kept), until)


def buckets_of(window: Window, *, now: float) -> list[tuple[Tier, int]]:
    """The buckets that hold a window aligned to hours: whole days, and hours at its ends.

    >>> buckets_of(Window(82800.0, 176400.0), now=900000.0)
    [(<Tier.HOUR: 3600>, 23), (<Tier.DAY: 86400>, 1), (<Tier.HOUR: 3600>, 48)]
    """
    hour, end = int(window.since // Tier.HOUR), math.ceil(window.until / Tier.HOUR)
    if window.until > now // Tier.HOUR * Tier.HOUR:  # nothing is counted ahead of now, so today may be read whole
        end = math.ceil(end / 24) * 24
    found: list[tuple[Tier, int]] = []
    while hour < end:
        if hour % 24 == 0 and hour + 24 <= end:
            found.append((Tier.DAY, hour // 24))
            hour += 24
        else:
            found.append((Tier.HOUR, hour))
            hour += 1
    return found


def step_of(window: Window, step_seconds: float | None, *, now: float, most: int = FEW) -> int:
    """The width of a series' steps, in seconds: the one asked for, else one that makes no more than `most` steps (of
    days there may be more). Raises `InputError` for one that counters cannot give.

    >>> step_of(Window(0.0, 7 * 86400.0), None, now=7 * 86400.0)
    3600
    """
    length = window.until - window.since
    minutes = now - window.since <= MINUTES_KEPT.total_seconds()
    if step_seconds is None:
        wide = [step for step in STEPS if step >= Tier.HOUR or minutes]
        return next((step for step in wide if length / step <= most), wide[-1])
    step = int(step_seconds) if math.isfinite(step_seconds) else 0
    part, whole = (Tier.MINUTE, Tier.HOUR) if step < Tier.HOUR else (Tier.HOUR, Tier.DAY)
    if step != step_seconds or step < Tier.MINUTE or step % part or whole % step:
        raise InputError(
            f"a series has steps of whole minutes that make up an hour, or whole hours that make up a day, not "
            f"{step_seconds:g} s",
            suggestions=("Take 1m, 5m, 15m, 1h, 6h or 1d.", "Leave the step out to have one that suits the time."),
        )
    if step < Tier.HOUR and not minutes:
        raise InputError(
            f"minutes are kept for {MINUTES_KEPT.days} days; ask for steps of an hour or more",
            suggestions=("Take a step of 1h, 6h or 1d.", "Let the series begin later."),
        )
    if length / step > MOST_STEPS:
        raise InputError(f"a series has {MOST_STEPS} steps at most; ask for wider ones, or for less time")
    return step
