"""Small charts in lines of text: sparklines and bars, in block characters or, where those cannot be shown, in ASCII.

Invariant: pure but for `draws_blocks`; a chart is exactly as wide as it is said to be, or narrower.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TextIO

_BLOCKS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_PLAIN = "_.:-=+*#"


def draws_blocks(stream: TextIO) -> bool:
    """Whether block characters can be written to `stream`, and shown by a terminal behind it."""
    if stream.isatty() and os.environ.get("TERM") == "dumb":
        return False
    try:
        _BLOCKS.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def spark(values: Sequence[float | None], *, top: float | None = None, blocks: bool = True) -> str:
    """One character for each value, as high as it is; what is not known is left blank. `top` is the highest there can
    be, else the highest there is.

    >>> spark([0, 1, None, 4, 8]), spark([0, 0.5, 1], top=1, blocks=False)
    ('▁▂ ▅█', '_=#')
    """
    levels = _BLOCKS if blocks else _PLAIN
    highest = max((value for value in values if value is not None), default=0) if top is None else top
    return "".join(" " if value is None else levels[_level(value, highest, len(levels))] for value in values)


def _level(value: float, highest: float, levels: int) -> int:
    """0 for nothing alone: what there is shows, however little."""
    if value <= 0 or highest <= 0:
        return 0
    return min(levels - 1, max(1, round(value / highest * (levels - 1))))


def bar(share: float, width: int, *, blocks: bool = True) -> str:
    """A bar of at most `width` characters, without blanks behind it.

    >>> bar(0.5, 5), bar(0.5, 5, blocks=False), bar(0.0, 5), bar(1e-6, 5)
    ('██▌', '##', '', '▏')
    """
    share = min(1.0, max(0.0, share))
    if not blocks:
        return "#" * max(int(share > 0), int(share * width))
    eighths = max(int(share > 0), int(share * width * 8))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def fitted(values: Sequence[int], room: int) -> list[int]:
    """Counts in no more than `room` columns: neighbours are added up where there are more.

    >>> fitted([1, 2, 3, 4, 5], 3)
    [3, 7, 5]
    """
    together = max(1, -(-len(values) // max(1, room)))
    return [sum(values[at : at + together]) for at in range(0, len(values), together)]
