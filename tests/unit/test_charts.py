"""Small charts: as wide as they are said to be, and nothing that there is goes unseen."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.interfaces.cli.charts import bar, draws_blocks, fitted, spark

COUNTS = st.lists(st.integers(0, 10**9), max_size=300)


@given(st.lists(st.none() | st.floats(0, 1e9)), st.booleans())
def test_a_sparkline_has_one_character_for_each_value(values: list[float | None], blocks: bool) -> None:
    line = spark(values, blocks=blocks)
    assert len(line) == len(values)
    lowest = "▁" if blocks else "_"
    for value, shown in zip(values, line, strict=True):
        assert (shown == " ") == (value is None)
        assert value is None or (shown == lowest) == (value == 0)


@given(st.lists(st.integers(1, 1000), min_size=2))
def test_higher_is_never_drawn_lower(values: list[int]) -> None:
    levels = ["▁▂▃▄▅▆▇█".index(shown) for shown in spark(values)]
    by_value = [level for _, level in sorted(zip(values, levels, strict=True))]
    assert by_value == sorted(by_value)
    assert max(levels) == 7


@given(st.floats(-1, 2), st.integers(1, 60), st.booleans())
def test_a_bar_is_no_longer_than_its_room(share: float, width: int, blocks: bool) -> None:
    drawn = bar(share, width, blocks=blocks)
    assert len(drawn) <= width
    assert bool(drawn) == (share > 0)
    assert len(bar(1.0, width, blocks=blocks)) == width


@given(COUNTS, st.integers(1, 100))
def test_counts_fit_and_none_is_lost(values: list[int], room: int) -> None:
    shown = fitted(values, room)
    assert len(shown) <= room
    assert sum(shown) == sum(values)


@pytest.mark.parametrize(("encoding", "blocks"), [("utf-8", True), ("ascii", False), ("latin-1", False)])
def test_blocks_are_drawn_where_they_can_be_written(encoding: str, blocks: bool) -> None:
    assert draws_blocks(io.TextIOWrapper(io.BytesIO(), encoding=encoding)) is blocks


def test_a_dumb_terminal_gets_plain_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    terminal = Terminal(io.BytesIO(), encoding="utf-8")
    monkeypatch.setenv("TERM", "xterm")
    assert draws_blocks(terminal)
    monkeypatch.setenv("TERM", "dumb")
    assert not draws_blocks(terminal)
