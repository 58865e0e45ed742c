"""`afw mcp`: the MCP server over standard input and output.

Invariant: standard output carries the protocol alone and logs go to standard error. The server ends within two
seconds of the end of its input or of SIGTERM or SIGINT, whatever a flow or Redis is doing, and what was to be
written behind is flushed first. Redis need not be there: nothing is connected before the first use.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from agentic_flywheel import __version__
from agentic_flywheel.errors import ExtraMissing, FlywheelError, SettingsError
from agentic_flywheel.interfaces.mcp.opening import Opening

if TYPE_CHECKING:
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.interfaces.mcp.surface import FlywheelServer

logger = logging.getLogger(__name__)

_INSTRUCTIONS = (
    "Agentic Flywheel asks AI flows and remembers what they answered. Ask with flowise_query; give the session_id of "
    "an earlier answer to go on with that conversation, even days later. Every answer says where it came from "
    "(outcome, reason, age, trace); report one that is wrong with flowise_report_answer. Conversations are named by "
    "session_id alone, never by this connection."
)
#: What flushing may take; the rest of the two seconds is for leaving.
_FLUSH_SECONDS = 1.4
_LAST_RESORT_SECONDS = 1.9


def build_server(flywheel: Flywheel, kind: type[FlywheelServer] | None = None) -> FlywheelServer:
    """The MCP server over an open `flywheel`, which the caller closes; `kind` may be a class with more of its own.

    Raises `ExtraMissing`.
    """
    try:
        import mcp  # noqa: F401 -- only to see whether the extra is installed
    except ImportError as error:
        raise ExtraMissing("The MCP server", "mcp") from error
    from agentic_flywheel.interfaces.mcp.asking import add_asking_tools
    from agentic_flywheel.interfaces.mcp.caching import add_cache_tools
    from agentic_flywheel.interfaces.mcp.coaia import add_coaia_tools
    from agentic_flywheel.interfaces.mcp.faq import add_faq_tools
    from agentic_flywheel.interfaces.mcp.flows import add_flow_tools
    from agentic_flywheel.interfaces.mcp.history import add_history_tools
    from agentic_flywheel.interfaces.mcp.popular import add_popular_tools
    from agentic_flywheel.interfaces.mcp.reporting import add_reporting_tools
    from agentic_flywheel.interfaces.mcp.resources import add_resources
    from agentic_flywheel.interfaces.mcp.sessions import add_session_tools
    from agentic_flywheel.interfaces.mcp.surface import FlywheelServer
    from agentic_flywheel.interfaces.mcp.traces import add_trace_tools
    from agentic_flywheel.interfaces.mcp.usage import add_usage_tools
    from agentic_flywheel.interfaces.mcp.warming import add_warming_tools

    server = (kind or FlywheelServer)(
        flywheel, title="Agentic Flywheel", instructions=_INSTRUCTIONS, version=__version__
    )
    add_asking_tools(server)
    add_flow_tools(server)
    add_session_tools(server)
    add_history_tools(server)
    add_popular_tools(server)
    add_faq_tools(server)
    add_cache_tools(server)
    add_usage_tools(server)
    add_warming_tools(server)
    add_reporting_tools(server)
    add_trace_tools(server)
    add_coaia_tools(server)
    add_resources(server)
    return server


def main(opening: Opening | None = None, **arguments: Any) -> None:
    """Serve until the input ends or a signal comes; `arguments` are those of `Flywheel.open`.

    `opening` is what was read of standard input before, and answered. The process is to end afterwards, and is made to
    if something holds it up. Raises `ExtraMissing` and `SettingsError` before anything else is served.
    """
    import asyncio

    _log_to_stderr()
    asyncio.run(_serve(opening or Opening(), arguments))


async def _serve(opening: Opening, arguments: dict[str, Any]) -> None:
    import anyio

    from agentic_flywheel.flywheel import Flywheel

    flywheel = Flywheel.open(**arguments)
    server = build_server(flywheel)
    flywheel.keep_house()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_on_signal, tasks.cancel_scope)
            await server.serve(opening)
            tasks.cancel_scope.cancel()
    except* BrokenPipeError:
        logger.info("the client reads no more")
    finally:
        _leave_at_last()
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _FLUSH_SECONDS) as flushing:
            try:
                await flywheel.aclose()
            except FlywheelError:
                logger.exception("not everything could be flushed")
        if flushing.cancelled_caught:
            logger.error("not everything could be flushed within %g s", _FLUSH_SECONDS)


async def cancel_on_signal(scope: Any) -> None:
    """Cancel a scope at the first SIGTERM or SIGINT."""
    import anyio

    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for received in signals:
            logger.info("%s: leaving", received.name)
            scope.cancel()
            return


def _leave_at_last() -> None:
    """End the process even if a thread of it is stuck, say in an edit that waits for a lock."""
    timer = threading.Timer(_LAST_RESORT_SECONDS, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _log_to_stderr() -> None:
    level = os.environ.get("AFW_LOG_LEVEL", "WARNING").upper()
    if level not in logging.getLevelNamesMapping():
        raise SettingsError(
            f"AFW_LOG_LEVEL: expected DEBUG, INFO, WARNING or ERROR, got {level!r}", variable="AFW_LOG_LEVEL"
        )
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    # The SDK tells what tools were called with; no words of a question may be logged.
    logging.getLogger("mcp").setLevel(logging.WARNING)
