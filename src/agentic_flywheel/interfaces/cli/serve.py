"""`afw serve`: the service over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.interfaces.http.app import App


@click.command("serve", cls=FlywheelCommand, epilog="Example: afw serve --port 8765")
@click.option("--host", metavar="ADDRESS", help="Listen here; any but loopback demands credentials. [127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Listen on this port; 0: any that is free. [8765]")
@click.pass_obj
def serve(invocation: Invocation, host: str | None, port: int | None) -> None:
    """Serve a team over HTTP, until SIGTERM or Ctrl-C.

    One process (or --workers of them), one port.
    """
    _need_extra()
    from agentic_flywheel.interfaces.http.serving import serve as run

    given = {"serve.host": host, "serve.port": port}
    invocation.arguments |= {name: value for name, value in given.items() if value is not None}

    def ready(address: str, app: App) -> None:
        _say(address, app, as_json=invocation.as_json)

    run(invocation.settings(), ready)


def _need_extra() -> None:
    from importlib.util import find_spec

    from agentic_flywheel.errors import ExtraMissing

    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise ExtraMissing("The service", "serve")


def _say(address: str, app: App, *, as_json: bool) -> None:
    """What is served where: for people on stderr, as one line of JSON on stdout."""
    import os
    import sys

    from agentic_flywheel.interfaces.cli.terminal import note, print_json

    if as_json:
        served: dict[str, Any] = {room.name: sorted({route.path for route in room.routes}) for room in app.rooms}
        print_json({"event": "serving", "url": address, "pid": os.getpid(), "rooms": served}, indent=0)
        sys.stdout.flush()
    note(f"Serving at {address} (Ctrl-C ends it)", bold=True)
    for room in app.rooms:
        if room.says:
            note(f"  {room.says}")
