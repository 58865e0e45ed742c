"""So many of something, as people read it."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """`1 turn`, `3 turns`, `1 entry`, `2 entries`; `noun` is given in its plural.

    >>> counted(1, "entries"), counted(0, "turns"), counted(1200, "calls")
    ('1 entry', '0 turns', '1200 calls')
    """
    one = noun[:-3] + "y" if noun.endswith("ies") else noun.removesuffix("s")
    return f"{count} {one if count == 1 else noun}"
