"""How long things take, counted so that percentiles over any window can be told afterwards.

Invariant: pure. Times are counted in `BUCKETS` buckets, each `GROWTH` times as wide as the one before, from 1
microsecond to 53 minutes. A percentile is told as the value that is right within `RELATIVE_ERROR` for every
time in its bucket (Masson, Rim and Lee, DDSketch, VLDB 2019, section 2.1); times beyond the ends count at the ends.
Buckets of different processes and minutes simply add up. tests/unit/test_latency.py proves the bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

#: Each bucket reaches so many times as far as the one before.
GROWTH = 1.2
#: Bucket `i` holds times above GROWTH ** (i - 1), up to GROWTH ** i, in microseconds.
BUCKETS = 121
#: A percentile is wrong by this share of itself at most: 0.0909.
RELATIVE_ERROR = (GROWTH - 1) / (GROWTH + 1)
#: The longest time that has a bucket of its own, in microseconds.
LONGEST_US = GROWTH ** (BUCKETS - 1)

_PER_LOG = 1 / math.log(GROWTH)


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Times of so many events, in milliseconds; None where there were none. The mean is exact, percentiles are right
    within 9.1 %."""

    count: int = 0
    mean_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


def bucket_of(microseconds: float) -> int:
    """The bucket of a time.

    >>> bucket_of(0), bucket_of(1), bucket_of(1.1), bucket_of(2_500_000), bucket_of(1e12)
    (0, 0, 1, 81, 120)
    """
    if microseconds <= 1:
        return 0
    return min(BUCKETS - 1, math.ceil(math.log(microseconds) * _PER_LOG))


def percentile(buckets: Mapping[int, int], share: float) -> float | None:
    """The time, in microseconds, that `share` (0 to 1) of the counted times do not exceed; None where there are none.

    That is the nearest-rank percentile, to `RELATIVE_ERROR`.

    >>> percentile({0: 98, 81: 2}, 0.5), round(percentile({0: 98, 81: 2}, 0.99) or 0)
    (1.0, 2356613)
    """
    total = sum(buckets.values())
    if total <= 0:
        return None
    rank = max(1, math.ceil(share * total))
    for bucket in sorted(buckets):
        rank -= buckets[bucket]
        if rank <= 0:
            break
    # The value that is equally far, as a share of itself, from both ends of the bucket.
    return 1.0 if bucket == 0 else 2 * GROWTH**bucket / (GROWTH + 1)


def latency_of(buckets: Mapping[int, int], sum_us: int) -> Latency:
    """Counted times in words of milliseconds; `sum_us` is the sum of them all."""
    count = sum(buckets.values())
    if count <= 0:
        return Latency()
    p50, p95, p99 = ((percentile(buckets, share) or 0.0) / 1000 for share in (0.5, 0.95, 0.99))
    return Latency(count=count, mean_ms=sum_us / count / 1000, p50_ms=p50, p95_ms=p95, p99_ms=p99)
