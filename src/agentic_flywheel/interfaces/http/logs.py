"""The log of the service, on standard error.

Invariant: above DEBUG no word of a question or an answer is logged. What exceptions say may hold such words, so of an
exception only its type and where it was raised is written; requests are named by the pattern of their route, never by
their path. `text` is for people, `json` is one object a line.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from agentic_flywheel.errors import SettingsError

_QUIET: Final = ("mcp", "httpx2", "httpcore2", "uvicorn", "asyncio")


def log_to_stderr(form: str, *, level: str | None = None) -> None:
    """Log in this form (`text`, `json`) from `level` on: `AFW_LOG_LEVEL`, else INFO. Raises `SettingsError`."""
    level = (level or os.environ.get("AFW_LOG_LEVEL") or "INFO").upper()
    if level not in logging.getLevelNamesMapping():
        raise SettingsError(
            f"AFW_LOG_LEVEL: expected DEBUG, INFO, WARNING or ERROR, got {level!r}", variable="AFW_LOG_LEVEL"
        )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))


class _Discreet(logging.Formatter):
    """Leaves out what exceptions say, and what asyncio says of the objects that it met."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 -- logging's name
        """The exceptions by their types and places, the first cause first."""
        if logging.root.level <= logging.DEBUG:
            return super().formatException(ei)
        return "\n".join(f"{kind} at {' < '.join(places)}" for kind, places in _chain(ei[1]))

    def formatted(self, record: logging.LogRecord) -> str:
        """The message."""
        message = record.getMessage()
        if record.name == "asyncio" and logging.root.level > logging.DEBUG:
            return message.partition("\n")[0].partition("(")[0].partition("<")[0].strip()
        return message


class _Text(_Discreet):
    def format(self, record: logging.LogRecord) -> str:
        facts: dict[str, Any] = getattr(record, "facts", {})
        line = f"{self.formatTime(record)} {record.levelname} {record.name}: {self.formatted(record)}"
        if facts:
            shown = {name: value for name, value in facts.items() if name not in {"method", "route", "status"}}
            line += "".join(f" {name}={value}" for name, value in shown.items() if value != "")
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _Json(_Discreet):
    def format(self, record: logging.LogRecord) -> str:
        found: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": self.formatted(record),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            found["exceptions"] = [{"type": kind, "at": places} for kind, places in _chain(record.exc_info[1])]
        return msgspec.json.encode(found, enc_hook=str).decode()


def _chain(error: BaseException | None) -> list[tuple[str, list[str]]]:
    """An exception and what it came from, the root of it first: type, and where it passed, innermost first."""
    found = []
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        places = [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in reversed(frames)]
        found.append((type(error).__name__, places))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found[::-1]


def _short(path: str) -> str:
    """A path from the package's name on."""
    head, found, tail = path.rpartition("site-packages/")
    if found:
        return tail
    head, found, tail = path.rpartition("/agentic_flywheel/")
    return f"agentic_flywheel/{tail}" if found else os.path.basename(head + tail)  # noqa: PTH119
