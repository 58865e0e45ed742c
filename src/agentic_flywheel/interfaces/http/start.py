"""How the service starts: what must hold before anything listens, then one process or several."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from agentic_flywheel.interfaces.http.service import check_access
from agentic_flywheel.interfaces.http.serving import Served, listen, serve_here
from agentic_flywheel.settings import Settings

_log = logging.getLogger(__name__)


def start(settings: Settings, ready: Callable[[Served], None]) -> None:
    """Serve until a signal comes; `ready` is told once requests are accepted.

    Raises `SettingsError` where the settings let nobody in, or too many, or the port is taken.
    """
    if warning := asyncio.run(check_access(settings)):
        _log.warning("%s", warning)
    with listen(settings) as listener:
        if settings["serve.workers"] == 1:
            serve_here(settings, listener, ready)
            return
        from agentic_flywheel.interfaces.http.workers import serve_with_workers

        serve_with_workers(settings, listener, ready)
