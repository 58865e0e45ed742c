"""`afw redis`: the embedded server, which starts by itself when no other Redis is configured."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelGroup, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.store.embedded import EmbeddedServer

NOT_RUNNING = 1


@click.group("redis", cls=FlywheelGroup)
def redis() -> None:
    """The embedded Redis server."""


def _server(invocation: Invocation) -> EmbeddedServer:
    from agentic_flywheel.store.embedded import EmbeddedServer

    return EmbeddedServer(invocation.settings())


@redis.command("status")
@click.pass_obj
def status(invocation: Invocation) -> int:
    """Say whether the server runs, and what it is.

    Exit code 1 if it does not run.
    """
    from agentic_flywheel.durations import show_duration
    from agentic_flywheel.interfaces.cli.terminal import as_wire, note, pairs, print_json, size

    server = _server(invocation)
    found = server.status_now()
    if found is None:
        if invocation.as_json:
            print_json({"running": False, "pid": None, "path": server.path})
        else:
            print("not running")
            note("It starts with the first question, where no other Redis is configured.")
        return NOT_RUNNING
    if invocation.as_json:
        print_json({"running": True, **as_wire(found)})
        return 0
    pairs(
        [
            ("running", f"{found.server} {found.version}"),
            ("pid", str(found.pid)),
            ("socket", str(found.socket)),
            ("memory", size(found.used_memory_bytes)),
            ("up", show_duration(timedelta(seconds=found.uptime_seconds))),
            ("path", str(found.path)),
        ]
    )
    return 0


@redis.command("stop")
@click.pass_obj
def stop(invocation: Invocation) -> int:
    """Stop the server; its data stays.

    The next question starts it again. Exit code 1 if none ran.
    """
    from agentic_flywheel.interfaces.cli.terminal import print_json

    stopped = _server(invocation).stop_now()
    if invocation.as_json:
        print_json({"stopped": stopped})
    else:
        print("stopped" if stopped else "not running")
    return 0 if stopped else NOT_RUNNING


@redis.command("path")
@click.pass_obj
def path(invocation: Invocation) -> None:
    """Print the directory of its data and its log."""
    from agentic_flywheel.interfaces.cli.terminal import print_json, say

    server = _server(invocation)
    if invocation.as_json:
        print_json({"path": server.path, "socket": server.socket, "log": server.log_path})
    else:
        say(str(server.path))
