"""The log of the service, on standard error.

Invariant: above DEBUG no word of a question or an answer is logged. What exceptions say may hold such words, so of an
exception only its type and where it was raised is written; requests are named by the pattern of their route, never by
their path. `text` is for people, `json` is one object a line.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from agentic_flywheel.errors import SettingsError

#: Facts of a request that its message says already.
_IN_MESSAGE: Final = frozenset({"method", "route", "status"})
_ACCESS: Final = logging.getLogger("agentic_flywheel.access")
_QUIET: Final = ("mcp", "httpx2", "httpcore2", "uvicorn", "asyncio")


def log_to_stderr(form: str, *, level: str | None = None) -> None:
    """Log in this form (`text`, `json`) from `level` on: `AFW_LOG_LEVEL`, else INFO. Raises `SettingsError`."""
    level = (level or os.environ.get("AFW_LOG_LEVEL") or "INFO").upper()
    if level not in logging.getLevelNamesMapping():
        raise SettingsError(
            f"AFW_LOG_LEVEL: expected DEBUG, INFO, WARNING or ERROR, got {level!r}", variable="AFW_LOG_LEVEL"
        )
    handler = _Stderr(_Json() if form == "json" else _Text())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))


def log_request(facts: dict[str, Any]) -> None:
    """Log that a request was answered. `facts` begin with method, route and status.

    Where the log is that of `log_to_stderr`, the line goes there without a detour: there is one for each request.
    """
    root = logging.root
    handler = root.handlers[0] if len(root.handlers) == 1 else None
    if not isinstance(handler, _Stderr) or _ACCESS.handlers:
        _ACCESS.info("%(method)s %(route)s %(status)s", facts, extra={"facts": facts})
        return
    message = f"{facts['method']} {facts['route']} {facts['status']}"
    handler.put(handler.form.line(time.time(), "INFO", _ACCESS.name, message, facts))


class _Stderr(logging.StreamHandler[Any]):
    """Standard error, in one of our forms."""

    def __init__(self, form: _Text | _Json) -> None:
        super().__init__(sys.stderr)
        self.form = form
        self.setFormatter(form)
        self._lines: list[str] = []

    def put(self, line: str) -> None:
        """Write a line as it is, with all others that come in this turn of the event loop; call it there."""
        self._lines.append(line)
        if len(self._lines) == 1:
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write what waits."""
        with self.lock or contextlib.nullcontext():
            if self._lines:
                lines, self._lines = self._lines, []
                self.stream.write("\n".join(lines) + "\n")
            super().flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, after what came before it."""
        if self._lines:
            self.flush()
        super().emit(record)


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
    _second = (0, "")

    def line(self, moment: float, level: str, logger: str, message: str, facts: dict[str, Any]) -> str:
        """A line for people; the time's seconds are spelled out once for all lines of a second."""
        second = int(moment)
        if second != self._second[0]:
            self._second = (second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second)))
        line = f"{self._second[1]},{int((moment - second) * 1000):03} {level} {logger}: {message}"
        for name, value in facts.items():
            if value != "" and name not in _IN_MESSAGE:
                line += f" {name}={value}"
        return line

    def format(self, record: logging.LogRecord) -> str:
        message = self.formatted(record)
        line = self.line(record.created, record.levelname, record.name, message, getattr(record, "facts", {}))
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _Json(_Discreet):
    def line(self, moment: float, level: str, logger: str, message: str, facts: dict[str, Any]) -> str:
        """A line for programs."""
        shown = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
        found = {"time": shown, "level": level, "logger": logger, "message": message, **facts}
        return msgspec.json.encode(found, enc_hook=str).decode()

    def format(self, record: logging.LogRecord) -> str:
        facts: dict[str, Any] = getattr(record, "facts", {})
        if record.exc_info and record.exc_info[1] is not None:
            chain = _chain(record.exc_info[1])
            facts = {**facts, "exceptions": [{"type": kind, "at": places} for kind, places in chain]}
        return self.line(record.created, record.levelname, record.name, self.formatted(record), facts)


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
