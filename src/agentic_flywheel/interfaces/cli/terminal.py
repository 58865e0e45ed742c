"""Putting things in front of people and programs: JSON, tables, threads, times, quiet notes.

Invariant: nothing here decides anything. Text that came from elsewhere never reaches a terminal with control
characters in it; colour is used only on a terminal, and not where NO_COLOR is set.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO, get_args

import click
import msgspec

from agentic_flywheel.durations import show_age, show_duration
from agentic_flywheel.errors import FlywheelError

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """`text` without control characters, so that nobody's answer can drive somebody's terminal."""
    return _CONTROL.sub("", text)


def one_line(text: str, width: int = 60) -> str:
    """`text` on one line of at most `width` characters."""
    return textwrap.shorten(clean(text), width, placeholder="…") or clean(text).strip()[: width - 1] + "…" * bool(text)


def styled(text: str, stream: TextIO, **style: Any) -> str:
    """`text` in colour or weight where `stream` is a terminal that wants it."""
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else click.style(text, **style)


def note(text: str = "", **style: Any) -> None:
    """A line on stderr, quiet unless styled otherwise."""
    print(styled(text, sys.stderr, **(style or {"dim": True})), file=sys.stderr)


def warn(text: str) -> None:
    """A line on stderr that should be read."""
    print(styled("warning", sys.stderr, fg="yellow") + f": {clean(text)}", file=sys.stderr)


def say(text: str = "") -> None:
    """Text on stdout: as it is into a pipe, without control characters on a terminal."""
    sys.stdout.write((clean(text) if sys.stdout.isatty() else text) + "\n")


def bold(text: str) -> str:
    """`text` as a heading on stdout."""
    return styled(clean(text), sys.stdout, bold=True)


def dim(text: str) -> str:
    """`text` as a side note on stdout."""
    return styled(clean(text), sys.stdout, dim=True)


def width() -> int:
    """Columns to use: those of the terminal, within what reads well."""
    return max(40, min(100, shutil.get_terminal_size((100, 24)).columns))


def paragraphs(text: str, indent: str) -> str:
    """`text` wrapped and indented, its own line breaks kept."""
    lines = clean(text).splitlines() or [""]
    return "\n".join(
        textwrap.fill(line, width(), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
        for line in lines
    )


def table(rows: Sequence[Sequence[str]], headings: Sequence[str]) -> None:
    """`rows` in columns under quiet headings, on stdout; the last column is shortened to the terminal."""
    cleaned = [[clean(cell).replace("\n", " ").replace("\t", " ") for cell in row] for row in rows]
    sizes = [max(len(row[i]) for row in [list(headings), *cleaned]) for i in range(len(headings))]
    room = width() - sum(sizes[:-1]) - 2 * (len(sizes) - 1)
    for number, row in enumerate([list(headings), *cleaned]):
        last = one_line(row[-1], max(12, room)) if sys.stdout.isatty() and len(row[-1]) > room else row[-1]
        line = "  ".join([*(cell.ljust(size) for cell, size in zip(row, sizes[:-1], strict=False)), last]).rstrip()
        print(dim(line) if number == 0 else line)


def pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Names and what they are, aligned, on stdout; empty values are left out."""
    shown = [(name, clean(value)) for name, value in rows if value]
    size = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{dim(name.ljust(size))}  {value}")


def ago(at: float, now: float | None = None) -> str:
    """A moment (epoch seconds) relative to now: `2 h ago`."""
    if not at:
        return "never"
    age = show_age(timedelta(seconds=(time.time() if now is None else now) - at))
    return age if age == "just now" else f"{age} ago"


def old(age_seconds: float) -> str:
    """How old something is: `2 h old`, `just now`."""
    age = show_age(timedelta(seconds=age_seconds))
    return age if age == "just now" else f"{age} old"


def moment(at: float) -> str:
    """A moment (epoch seconds) in local time: `Sun 22 Nov 2026, 17:05`."""
    return datetime.fromtimestamp(at, tz=UTC).astimezone().strftime("%a %d %b %Y, %H:%M")


def seconds(value: float | None) -> str:
    """A number of seconds as a duration for people; "" where there is none."""
    return "" if value is None else show_duration(timedelta(seconds=value))


def milliseconds(value: float) -> str:
    """A number of milliseconds for people: `3.1 ms`, `240 ms`, `2.4 s`."""
    if value < 10:
        return f"{value:.1f} ms"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def size(count: int) -> str:
    """A number of bytes for people: `812 B`, `1.4 kB`, `23 MB` (10^6)."""
    amount, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"


def words(value: str) -> str:
    """An outcome or reason as people read it: `not_stored` is `not stored`."""
    return str(value).replace("_", " ")


def likeness(similarity: float) -> str:
    """A similarity (0 to 1) in whole percent, never rounded up: `97 %`."""
    return f"{math.floor(similarity * 100 + 1e-9)} %"


def origin(reason: str, similarity: float | None, matched_question: str) -> str:
    """Why an outcome is what it is: `not stored`, or `97 % like: ...` where another question's answer was given."""
    if similarity is None:
        return words(reason)
    return f"{likeness(similarity)} like: {one_line(matched_question)}"


def as_wire(value: Any) -> Any:
    """`value` as JSON holds it: structs as objects by field name, durations in seconds under a name that says so."""
    if isinstance(value, msgspec.Struct):
        shown = {}
        for part in msgspec.structs.fields(type(value)):
            content = getattr(value, part.name)
            if isinstance(content, bytes):
                continue  # what a service said word for word, for interfaces of its own protocol
            is_duration = timedelta in (part.type, *get_args(part.type))
            shown[part.name + "_seconds" if is_duration else part.name] = as_wire(content)
        return shown
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {str(name): as_wire(content) for name, content in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [as_wire(content) for content in value]
    if isinstance(value, Path):
        return str(value)
    return value


def print_json(value: Any, *, indent: int = 2) -> None:
    """`value` as JSON on stdout; `indent` 0 gives one line."""
    text = msgspec.json.encode(as_wire(value), enc_hook=str)
    sys.stdout.write((msgspec.json.format(text, indent=indent) if indent else text).decode() + "\n")


def print_error(error: FlywheelError, *, as_json: bool, one_object_per_line: bool = False) -> None:
    """What failed and what to do next: for people on stderr, as an object on stdout."""
    if as_json:
        print_json(error.as_dict(), indent=0 if one_object_per_line else 2)
        return
    print(styled("error", sys.stderr, fg="red", bold=True) + f": {clean(error.message)}", file=sys.stderr)
    for suggestion in error.suggestions[:4]:  # the first ones fit the case best; JSON has them all
        print(f"  - {clean(suggestion)}", file=sys.stderr)
    after = f"; try again in {seconds(error.retry_after_seconds)}" if error.retry_after_seconds else ""
    note(f"  error {error.error_id}{after}")
